package ice

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/identity"
	"peerlink/internal/calls"
	"peerlink/internal/route"
)

// apart is two devices between which packets are lost, as between two
// symmetric NATs, unless a relay carries them.
type apart struct{ a, b atomic.Pointer[device] }

func (p *apart) lost(c *Config) {
	c.Engines = []string{engineUDP}
	c.lost = func(to netip.AddrPort) bool {
		for _, d := range []*device{p.a.Load(), p.b.Load()} {
			if d != nil && d.engines[0].(*udpEngine).port == to.Port() {
				return true
			}
		}
		return false
	}
}

// newApart makes two such devices.
func newApart(t testing.TB, changeA, changeB func(*Config)) (a, b *device) {
	p, x := &apart{}, newExchange()
	a, b = x.newDevice(t, "a", p.lost, changeA), x.newDevice(t, "b", p.lost, changeB)
	p.a.Store(a)
	p.b.Store(b)
	return a, b
}

// relayed checks how a stream goes. A side that is called from the other's relay
// before it was told of it cannot know better than "prflx": between such devices
// there is no other way.
func relayed(t *testing.T, c net.Conn) {
	t.Helper()
	if p := pathOf(c); !strings.HasPrefix(p, "udp relay ") && !strings.HasPrefix(p, "udp prflx ") {
		t.Errorf("path %q", p)
	}
}

func pathOf(c net.Conn) string { return c.(interface{ Path() route.Path }).Path().String() }

// fault: F1
func TestARelayIsUsedWhereNothingElseLeads(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			s := relayServer(t, true)
			a, b := newApart(t, through(t, s, transport), through(t, s, transport))
			start := time.Now()
			ca, cb := connect(t, a, b)
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("took %v", d)
			}
			relayed(t, ca)
			relayed(t, cb)
			exchangeBytes(t, ca, cb, 4<<20)
		})
	}
}

// exchangeBytes sends n bytes each way at once and compares.
func exchangeBytes(t *testing.T, a, b net.Conn, n int) {
	t.Helper()
	errc := make(chan error, 4)
	for _, c := range [][2]net.Conn{{a, b}, {b, a}} {
		data := make([]byte, n)
		rand.Read(data)
		go func() {
			_, err := c[0].Write(data)
			errc <- err
		}()
		go func() {
			got := make([]byte, n)
			_, err := io.ReadFull(c[1], got)
			if err == nil && !bytes.Equal(got, data) {
				err = errors.New("bytes differ")
			}
			errc <- err
		}()
	}
	for range 4 {
		if err := <-errc; err != nil {
			t.Fatal(err)
		}
	}
}

// One side's relay is enough where the other can send there.
func TestS71_ARelayOfOneSideIsEnough(t *testing.T) {
	for _, owner := range []string{"caller", "callee"} {
		t.Run(owner, func(t *testing.T) {
			s := relayServer(t, true)
			with, without := through(t, s, "udp"), func(*Config) {}
			if owner == "callee" {
				with, without = without, with
			}
			a, b := newApart(t, with, without)
			ca, cb := connect(t, a, b)
			exchangeBytes(t, ca, cb, 1<<16)
			relayed(t, ca)
			relayed(t, cb)
		})
	}
}

// On a local network a call is over before a relay is asked for one.
func TestALocalCallAsksForNoRelay(t *testing.T) {
	s := relayServer(t, true)
	x := newExchange()
	a, b := x.newDevice(t, "a", through(t, s, "udp")), x.newDevice(t, "b", through(t, s, "udp"))
	start := time.Now()
	ca, _ := connect(t, a, b)
	if strings.Contains(pathOf(ca), "relay") {
		t.Errorf("path %q", pathOf(ca))
	}
	waitFor(t, func() bool { return a.idle() && b.idle() })
	if n := s.AllocationCount(); n > 0 && time.Since(start) < headStart {
		t.Errorf("%d allocations", n)
	}
}

// A relay that goes away ends the streams over it, with an error that is no
// end of stream, and the next call gets another one.
// fault: F3, F7, C3
func TestStreamsEndWithTheirRelayAndTheNextCallGetsAnother(t *testing.T) {
	within(t, 3*time.Second, func() time.Duration { return endWithRelay(t) })
}

// endWithRelay returns how long it took until both ends knew.
func endWithRelay(t *testing.T) (noticed time.Duration) {
	first, second := relayServer(t, true), relayServer(t, true)
	both := func(c *Config) { through(t, first, "tcp")(c); through(t, second, "tcp")(c) }
	a, b := newApart(t, both, both)
	ca, cb := connect(t, a, b)
	gone := first
	if second.AllocationCount() > 0 {
		gone = second
	}
	start := time.Now()
	gone.Close()
	for _, c := range []net.Conn{ca, cb} {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("read: %v", err)
		}
	}
	noticed = time.Since(start)
	ca, cb = connect(t, a, b)
	exchangeBytes(t, ca, cb, 1<<16)
	return noticed
}

// Servers that are down, that refuse the credentials, or that never say
// anything do not keep the others, or direct paths, from being used.
// fault: F3
func TestBadServersDoNotHinderTheOthers(t *testing.T) {
	good := relayServer(t, true)
	silent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	mute, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	bad := func(c *Config) {
		c.Servers = append(c.Servers,
			Server{URL: "turn:127.0.0.1:9", Username: "u", Password: "p"},
			Server{URL: "turn:" + good.Addr().String(), Username: "9999999999:nobody", Password: "wrong"},
			Server{URL: "turn:" + silent.LocalAddr().String() + "?transport=udp", Username: "u", Password: "p"},
			Server{URL: "turn:" + mute.Addr().String() + "?transport=tcp", Secret: "s"},
			Server{URL: "turn:" + mute.Addr().String() + "?transport=tcp"})
	}
	x := newExchange()
	a, b := x.newDevice(t, "a", bad), x.newDevice(t, "b", bad)
	ca, cb := connect(t, a, b)
	exchangeBytes(t, ca, cb, 1<<12)
	worse := func(c *Config) { bad(c); through(t, good, "udp")(c) }
	c, d := newApart(t, worse, worse)
	start := time.Now()
	cc, cd := connect(t, c, d)
	if d := time.Since(start); d > 6*time.Second {
		t.Errorf("took %v", d)
	}
	exchangeBytes(t, cc, cd, 1<<12)
}

// The offer leaves with host candidates at once; what servers tell later
// follows, and is used.
// fault: F3
func TestCandidatesThatComeLaterAreTrickledAndUsed(t *testing.T) {
	for _, engine := range []string{engineTCP, engineUDP} {
		t.Run(engine, func(t *testing.T) {
			x := newExchange()
			a, b := x.newDevice(t, "a", engines(engine)), x.newDevice(t, "b", engines(engine))
			var more atomic.Int32
			hide := rewrite(func(m *message) {
				if m.kind == calls.More {
					more.Add(1)
					return
				}
				unreachable(m)
			})
			a.box.Alter, b.box.Alter = hide, hide
			asked := make(chan struct{})
			tell := sync.OnceFunc(func() { close(asked) }) // an offer may come twice
			b.Decide(func(context.Context, identity.Peer) error { tell(); return nil })
			go func() {
				<-asked // the offer has left
				for _, d := range []*device{a, b} {
					port := uint16(0)
					for _, e := range d.engines {
						switch e := e.(type) {
						case *tcpEngine:
							port = uint16(e.local.Port)
						case *udpEngine:
							port = e.port
						}
					}
					// An address that is none of the interface's, so that it counts.
					d.outside.set(engine, "test", candidate{srflxCandidate, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), port)})
				}
			}()
			start := time.Now()
			ca, cb := connect(t, a, b)
			if d := time.Since(start); d > time.Second {
				t.Errorf("took %v: not by the further candidates, but by a repeated offer", d)
			}
			exchangeBytes(t, ca, cb, 1<<12)
			if more.Load() == 0 {
				t.Error("no further candidates were sent")
			}
		})
	}
}

// What a server says is filtered as candidates of a peer are.
// fault: F3, E8
func TestAServersLiesAreNotOffered(t *testing.T) {
	x := newExchange()
	s := relayServer(t, false)
	a := x.newDevice(t, "a", func(c *Config) {
		c.Loopback = false // and so the server's answers, 127.0.0.1, are lies
		c.Servers = []Server{{URL: "stun:" + s.Addr().String()}}
	})
	waitFor(t, func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.silent) > 0
	})
	a.outside.mu.Lock()
	defer a.outside.mu.Unlock()
	if got := a.outside.seen; len(got) > 0 {
		t.Errorf("offered: %v", got)
	}
}

// A server tells both engines how they look.
func TestServersTellBothEngines(t *testing.T) {
	x := newExchange()
	s := relayServer(t, false)
	a := x.newDevice(t, "a", func(c *Config) {
		c.Addresses = func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil }
		c.Servers = []Server{{URL: "stun:" + s.Addr().String()}}
	})
	waitFor(t, func() bool { return len(a.outside.of(engineTCP)) == 1 && len(a.outside.of(engineUDP)) == 1 })
	for _, e := range a.engines {
		want := candidate{srflxCandidate, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0)}
		switch e := e.(type) {
		case *tcpEngine:
			want.addr = netip.AddrPortFrom(want.addr.Addr(), uint16(e.local.Port))
		case *udpEngine:
			want.addr = netip.AddrPortFrom(want.addr.Addr(), e.port)
		}
		if got := a.outside.of(e.name()); got[0] != want {
			t.Errorf("%s: %v, want %v", e.name(), got, want)
		}
	}
}

// A flood of further candidates is bounded.
// fault: E2, E8
func TestFurtherCandidatesAreBounded(t *testing.T) {
	n := newNegotiation(t.Context(), controlled, calls.NewID(), newIdentity(t, "b").DeviceID())
	defer n.end()
	taken := 0
	for i := range 4 * maxTrickles {
		m := &message{kind: calls.More, id: n.id, udp: &udpPart{}}
		for j := range candidatesPerEngine {
			m.udp.candidates = append(m.udp.candidates, candidate{srflxCandidate, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(100+100*i+j))})
		}
		if n.More(m) {
			taken++
		}
	}
	if got := len(n.remote[engineUDP]); got != candidatesPerEngine || taken != maxTrickles {
		t.Errorf("%d candidates of %d signals are kept", got, taken)
	}
}

// Further candidates may overtake the offer: they are kept for it, a few and
// not for long.
// fault: E2, E3
func TestFurtherCandidatesThatOvertakeTheOfferAreUsed(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a", engines(engineUDP)), x.newDevice(t, "b", engines(engineUDP))
	var first atomic.Bool
	a.box.Alter = func(to identity.DeviceID, msg []byte) ([]byte, error) {
		m, err := decode(msg, true)
		if err != nil || m.kind != calls.Offer || !first.CompareAndSwap(false, true) {
			return nil, err // nothing else reaches b
		}
		more, err := (&message{kind: calls.More, id: m.id, udp: &udpPart{candidates: m.udp.candidates}}).encode()
		if err != nil {
			return nil, err
		}
		b.board.Handle(a.id.Peer(), more)
		unreachable(m)
		return m.encode()
	}
	b.box.Alter = rewrite(unreachable) // so only b can begin
	ca, cb := connect(t, a, b)
	exchangeBytes(t, ca, cb, 1<<12)
}
