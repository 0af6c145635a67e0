package ice

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/identity"
	"peerlink/internal/calls"
)

// sink is a host that knows nothing of any call: it counts what comes.
type sink struct {
	addrs             []netip.AddrPort
	connects, packets atomic.Int64
}

// newSink takes connections and packets at so many addresses.
func newSink(t *testing.T, addrs int) *sink {
	t.Helper()
	s := &sink{}
	var running sync.WaitGroup
	t.Cleanup(running.Wait) // after the closing
	for i := range addrs {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 9, 0, byte(i + 1)}), 0)
		ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		at = addrPort(ln.Addr())
		pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		s.addrs = append(s.addrs, at)
		running.Go(func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				s.connects.Add(1)
				conn.Close()
			}
		})
		running.Go(func() {
			for b := make([]byte, 1500); ; {
				if _, _, err := pc.ReadFrom(b); err != nil {
					return
				}
				s.packets.Add(1)
			}
		})
		t.Cleanup(func() { ln.Close(); pc.Close() })
	}
	return s
}

// offer names the sink's addresses as the caller's own.
func (s *sink) offer() *message {
	m := &message{kind: calls.Offer, id: calls.NewID(), tcp: &tcpPart{}, udp: &udpPart{ufrag: "strangerstranger", password: "strangerstrangerstranger"}}
	rand.Read(m.tcp.key[:])
	for i, a := range s.addrs {
		typ := []candidateType{hostCandidate, srflxCandidate, mappedCandidate, relayCandidate}[i%4]
		m.tcp.candidates = append(m.tcp.candidates, candidate{typ, a})
		m.udp.candidates = append(m.udp.candidates, candidate{typ, a})
	}
	return m
}

// flood has each of the keys call in turn, and waits until all calls are over.
func (s *sink) flood(t *testing.T, x *exchange, to *device, keys []*identity.Identity, offers int) {
	t.Helper()
	ignored := to.board.Ignored()
	for i := range offers {
		from := keys[i%len(keys)]
		b, err := s.offer().encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Join(from).Send(limit(t, 20*time.Second), to.id.DeviceID(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Join(keys[0]).Send(t.Context(), to.id.DeviceID(), nil); err != nil { // no signal, behind all others
		t.Fatal(err)
	}
	waitFor(t, func() bool { return to.board.Ignored() > ignored })
	waitFor(t, to.idle)
}

// A hundred throw-away keys name a third party's addresses in 184 offers. What
// arrives there is bounded by each offer and by the time; a member's offer has what
// it had.
//
// case: S8
func TestAThirdPartyHearsLittleOnStrangersWord(t *testing.T) {
	const offers, timeout = 184, 2 * time.Second
	s, x, trust := newSink(t, candidatesPerEngine), newExchange(), new(identity.Trust)
	b := x.newDevice(t, "b", func(c *Config) { c.Trust, c.Timeout = trust, timeout })
	var keys []*identity.Identity
	for range 100 {
		keys = append(keys, newIdentity(t, "throw-away"))
	}
	began := time.Now()
	s.flood(t, x, b, keys, offers)
	connects, packets, took := s.connects.Load(), s.packets.Load(), time.Since(began)
	t.Logf("%d offers of strangers in %v: %d connections, %d packets", offers, took, connects, packets)
	const each = 2 // of an engine's candidates, as all are on a network of this machine
	if most := int64(256 + 64*took.Seconds() + 1); connects > each*offers || packets > 5*each*offers || connects+packets/5 > most {
		t.Errorf("want at most %d and %d, and %d addresses in all", each*offers, 5*each*offers, most)
	}
	if connects == 0 || packets == 0 {
		t.Error("strangers are not called back at all")
	}

	member := newIdentity(t, "member")
	if err := trust.Set(member.DeviceID(), identity.Allowed); err != nil {
		t.Fatal(err)
	}
	s.connects.Store(0)
	s.packets.Store(0)
	s.flood(t, x, b, []*identity.Identity{member}, 1)
	connects, packets = s.connects.Load(), s.packets.Load()
	t.Logf("one offer of a member: %d connections, %d packets", connects, packets)
	if connects <= each || packets <= 5*each {
		t.Error("a member is not called back with patience")
	}
}

// A device that was called, and names a third party, has a few tries of each
// address.
//
// case: S8
func TestAThirdPartyHearsLittleOnACalledStrangersWord(t *testing.T) {
	s, x := newSink(t, 4), newExchange()
	a, b := x.newDevice(t, "a", func(c *Config) { c.Timeout = 8 * time.Second }), newIdentity(t, "b")
	box := x.Join(b)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			from, msg, err := box.Receive(t.Context())
			if err != nil {
				return
			}
			if m, err := decode(msg, true); err == nil && m.kind == calls.Offer {
				answer := s.offer()
				answer.kind, answer.id = calls.Answer, m.id
				reply, err := answer.encode()
				if err != nil {
					t.Error(err)
				}
				_ = box.Send(context.Background(), from.Device, reply)
				return
			}
		}
	}()
	if _, _, err := a.Dial(limit(t, 20*time.Second), b.DeviceID()); err == nil {
		t.Error("it has connected")
	}
	<-over
	connects, packets := s.connects.Load(), s.packets.Load()
	t.Logf("%d addresses of an answer: %d connections, %d packets", len(s.addrs), connects, packets)
	const handshake = 16 // packets of the one that QUIC tries early
	if connects > 4*5 || packets > 4*24+handshake || connects == 0 || packets == 0 {
		t.Errorf("want at most %d and %d", 4*5, 4*24+handshake)
	}
}

// Strangers connect as fast as members, over either engine.
//
// case: S8
func TestHonestStrangersConnectAsMembersDo(t *testing.T) {
	singleEngines(t, func(t *testing.T, name string) {
		x, trust := newExchange(), new(identity.Trust)
		stranger, member := x.newDevice(t, "stranger", engines(name)), x.newDevice(t, "member", engines(name))
		b := x.newDevice(t, "b", engines(name), func(c *Config) { c.Trust = trust })
		if err := trust.Set(member.id.DeviceID(), identity.Allowed); err != nil {
			t.Fatal(err)
		}
		var took [2][]time.Duration
		for round := range 20 {
			for i := range took {
				i = (i + round) % len(took)
				began := time.Now()
				connect(t, []*device{member, stranger}[i], b)
				took[i] = append(took[i], time.Since(began))
			}
		}
		median := func(all []time.Duration) time.Duration {
			slices.Sort(all)
			return all[len(all)/2]
		}
		m, s := median(took[0]), median(took[1])
		t.Logf("a member connects in %v, a stranger in %v: ratio %.2f", m, s, float64(s)/float64(m))
	})
}

// Throw-away keys hold all places that strangers have, and more wait. A member's
// call goes through as without them, and the places are given back.
//
// case: S24
func TestAMemberConnectsThoughStrangersHoldTheirPlaces(t *testing.T) {
	s, x, trust := newSink(t, candidatesPerEngine), newExchange(), new(identity.Trust)
	member := x.newDevice(t, "member")
	b := x.newDevice(t, "b", func(c *Config) { c.Trust, c.Timeout = trust, time.Hour })
	if err := trust.Set(member.id.DeviceID(), identity.Allowed); err != nil {
		t.Fatal(err)
	}
	fastest := func() time.Duration {
		var all []time.Duration
		for range 5 {
			began := time.Now()
			connect(t, member, b)
			all = append(all, time.Since(began))
		}
		return slices.Min(all)
	}
	alone := fastest()
	say := func(from *identity.Identity, m *message) {
		t.Helper()
		raw, err := m.encode()
		if err == nil {
			err = x.Join(from).Send(t.Context(), b.id.DeviceID(), raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	offers := make(map[*identity.Identity]*message)
	for range 100 {
		from := newIdentity(t, "throw-away")
		offers[from] = s.offer()
		say(from, offers[from])
	}
	waitFor(t, func() bool { _, in := b.board.Running(); return in == maxNegotiations/2 })
	among := fastest()
	_, held := b.board.Running()
	t.Logf("a member connects in %v alone, in %v among %d calls of strangers: ratio %.2f", alone, among, held, float64(among)/float64(alone))
	for from, m := range offers { // which withdraw
		say(from, &message{kind: calls.Refusal, id: m.id})
	}
	waitFor(t, b.idle)
	connect(t, x.newDevice(t, "stranger"), b)
}
