package connectionmanager_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peerlink"
	"peerlink/account"
	"peerlink/channel"
	"peerlink/ice"
	"peerlink/identity"
	"peerlink/internal/calls/callstest"
	"peerlink/multiplex"
	"peerlink/peerlinktest"
	"peerlink/peerlinktest/loopback"
)

// cable is a stream that a test can have write short.
type cable struct {
	net.Conn
	mu    sync.Mutex
	write func(p []byte, write func([]byte) (int, error)) (int, error) // nil: as it is
}

func (c *cable) Write(p []byte) (int, error) {
	c.mu.Lock()
	write := c.write
	c.mu.Unlock()
	if write != nil {
		return write(p, c.Conn.Write)
	}
	return c.Conn.Write(p)
}

func (c *cable) set(write func([]byte, func([]byte) (int, error)) (int, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write = write
}

// cables collects what a device dials.
type cables struct {
	mu  sync.Mutex
	all []*cable
}

func (cs *cables) wrap(c net.Conn) net.Conn {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	k := &cable{Conn: c}
	cs.all = append(cs.all, k)
	return k
}

func (cs *cables) last() *cable {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.all[len(cs.all)-1]
}

// case: E22
func TestS21_CloseWhileARequestHangsInTheCallee(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		asked := make(chan struct{})
		tell := sync.OnceFunc(func() { close(asked) }) // a caller may ask again
		alice := w.device(t, "alice", nil)
		bob := w.device(t, "bob", func(c *peerlink.Config) {
			c.OnChannelRequest = func(ctx context.Context, _ identity.Peer, _ string) error {
				tell()
				<-ctx.Done()
				return ctx.Err()
			}
		})
		results := make(chan error, 2)
		ctx, cancel := context.WithTimeout(background, patience)
		defer cancel()
		go func() {
			_, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "hang://", peerlink.ConnectOptions{})
			results <- err
		}()
		await(t, asked, results)
		if err := bob.Close(); err != nil { // one close suffices
			t.Error(err)
		}
		defer time.AfterFunc(2*time.Second, cancel).Stop() // it tries to reach the device again
		select {
		case err := <-results:
			if err == nil {
				t.Error("a closed device gave a channel")
			}
		case <-time.After(patience):
			t.Fatal("the call hangs")
		}
		select {
		case err := <-results:
			t.Errorf("a second result: %v", err)
		default:
		}
		eventually(t, "no link is left", func() bool { return len(alice.Connections()) == 0 })
	})
}

func TestS24_ManagersClosedWhileSending(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		for round := range 3 {
			patient := func(c *peerlink.Config) { c.Link.CloseTimeout = patience } // on a busy machine, too
			ds := [2]*device{w.device(t, fmt.Sprint("alice", round), patient), w.device(t, fmt.Sprint("bob", round), patient)}
			incoming := ds[1].accepting(t, "*")
			var wg sync.WaitGroup
			for i := range 4 {
				a := connect(t, ds[0], ds[1], fmt.Sprint("n://", i))
				b := await(t, incoming, never)
				for _, c := range []*channel.Socket{a, b} {
					wg.Go(func() { _, _ = io.Copy(io.Discard, c) })
					wg.Go(func() {
						for {
							if _, err := c.Write(make([]byte, 30_000)); err != nil {
								return
							}
						}
					})
				}
			}
			began := time.Now()
			var closing sync.WaitGroup
			for i := range 1 + round%2 { // one of them, or both at once
				closing.Go(func() {
					err := ds[i].Close()
					// Two that close at once may cut what the other one still sends; then Close says so.
					if _, cut := errors.AsType[*peerlink.ShutdownError](err); err != nil && (!cut || round%2 == 0) {
						t.Errorf("round %d: %v", round, err)
					}
				})
			}
			closing.Wait()
			wg.Wait()
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("round %d: took %v", round, d)
			}
		}
	})
}

// fault: B7, F2
func TestS25_S28_BeaconsFindADeadPath(t *testing.T) {
	overNetworks(t, func(t *testing.T, n *peerlinktest.Network) {
		alice := ofPeer(n.Peer("alice", func(c *peerlink.Config) {
			c.Link = multiplex.Config{BeaconInterval: -1, BeaconTimeout: time.Second}
			c.ProbeTimeout = 100 * time.Millisecond
		}))
		bob := ofPeer(n.Peer("bob"))
		bob.echoing(t, "*")
		c := connect(t, alice, bob, "chat://1")
		exchange(t, c, "hello")
		alice.ConnectivityChanged()
		eventually(t, "the beacon came back", func() bool { return alice.Connections()[0].RTT > 0 })
		n.Silence("alice", "bob")
		began := time.Now()
		alice.ConnectivityChanged()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, multiplex.ErrDead) || time.Since(began) > 3*time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		eventually(t, "a new link was made", func() bool { return alice.IsConnected(bob.id.DeviceID()) })
		exchange(t, connect(t, alice, bob, "chat://2"), "again")
	})
}

// post keeps copies of all signals.
type post struct {
	*callstest.Exchange
	mu   sync.Mutex
	sent []letter
}

type letter struct {
	from identity.Peer
	to   identity.DeviceID
	msg  []byte
}

// copy has what a device sends kept.
func (p *post) copy(c *ice.Config) {
	box := p.Join(c.Identity)
	box.Alter = func(to identity.DeviceID, msg []byte) ([]byte, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.sent = append(p.sent, letter{box.Self, to, msg})
		return msg, nil
	}
	c.Signaller = box
}

func (p *post) all() []letter {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sent)
}

// fault: E3
func TestS31_LateAndRepeatedAnswersChangeNothing(t *testing.T) {
	for _, engine := range []string{"tcp", "udp"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			letters := post{Exchange: callstest.New()}
			n := peerlinktest.New(t, loopback.ICE(engine, letters.copy))
			alice, bob := ofPeer(n.Peer("alice")), ofPeer(n.Peer("bob"))
			bob.echoing(t, "*")
			c := connect(t, alice, bob, "chat://1")
			late := letters.all()
			if len(late) < 2 {
				t.Fatalf("%d letters, want an offer and an answer", len(late))
			}
			mallory := letters.Join(newIdentity(t, "mallory"))
			for range 10 {
				for _, l := range late {
					again := *mallory
					again.Self = l.from
					for _, box := range []*callstest.Mailbox{&again, mallory} { // by somebody else, too
						if err := box.Pass(t.Context(), l.to, l.msg); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			exchange(t, c, "still here")
			exchange(t, connect(t, alice, bob, "chat://2"), "hello")
			eventually(t, "one link, and nothing under way", func() bool {
				return len(alice.Connections()) == 1 && len(bob.Connections()) == 1 && alice.Metrics().Opened == 1 && bob.Metrics().Opened == 1
			})
		})
	}
}

func TestS34_S35_WriteErrorAndShortWriteEndTheLinkOnce(t *testing.T) {
	overStreams(t, func(t *testing.T, w world) {
		broken := errors.New("the cable was pulled")
		// A short write is one byte: of half of what is sent the peer could answer
		// the request, if other frames stand behind it.
		for name, write := range map[string]func(p []byte, write func([]byte) (int, error)) (int, error){
			"error": func([]byte, func([]byte) (int, error)) (int, error) { return 0, broken },
			"short": func(p []byte, write func([]byte) (int, error)) (int, error) { return write(p[:1]) },
		} {
			var cs cables
			alice, bob := w.device(t, "alice "+name, wrapped(cs.wrap)), w.device(t, "bob "+name, nil)
			bob.echoing(t, "*")
			open := connect(t, alice, bob, "chat://1")
			var downs atomic.Int32
			over := make(chan struct{})
			events := alice.Events(t.Context())
			go func() {
				defer close(over)
				for e := range events {
					if e.Kind == peerlink.LinkDown {
						downs.Add(1)
					}
				}
			}()
			cs.last().set(write)
			c, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://2", peerlink.ConnectOptions{Mode: peerlink.OnlyIfConnected})
			if err == nil {
				t.Errorf("%s: got channel %d", name, c.ID())
			}
			if name == "error" && !errors.Is(err, broken) || name == "short" && !errors.Is(err, io.ErrShortWrite) {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := open.Read(make([]byte, 1)); err == nil || err == io.EOF { // fault: C3
				t.Errorf("%s: the open channel read %v", name, err)
			}
			eventually(t, "no link is left", func() bool { return len(alice.Connections())+len(bob.Connections()) == 0 })
			exchange(t, connect(t, alice, bob, "chat://3"), "again")
			if m := alice.Metrics(); downs.Load() != 1 || m.Closed != 1 || m.Opened != 2 {
				t.Errorf("%s: told %d times, %+v", name, downs.Load(), m)
			}
			_ = alice.Close()
			<-over
		}
	})
}

// Channels are opened, listeners changed and the link closed while it ends.
func TestS41_S43_WorkInsideTheEndOfALink(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		bob.echoing(t, "chat://*")
		var wg sync.WaitGroup
		for i := range 5 {
			c := connect(t, alice, bob, fmt.Sprint("chat://", i))
			wg.Go(func() {
				for { // a receive loop whose writes fail
					if _, err := c.Read(make([]byte, 1)); err != nil {
						break
					}
				}
				if _, err := c.Write([]byte("x")); err == nil {
					t.Error("wrote on a link that has ended")
				}
				l, err := alice.Listen(fmt.Sprintf("late://%d", i))
				if err != nil {
					t.Error(err)
					return
				}
				exchange(t, connect(t, alice, bob, "chat://again"), "hello") // fault: C8
				_ = l.Close()
				_ = c.Close() // fault: C4
				_ = c.Close()
			})
		}
		bob.CloseConnectionsWith(alice.id.DeviceID())
		wg.Wait()
	})
}

// fault: C3
func TestS44_DeadTransportGivesTheRestAndThenItsCause(t *testing.T) {
	overNetworks(t, func(t *testing.T, n *peerlinktest.Network) {
		alice, bob := ofPeer(n.Peer("alice")), ofPeer(n.Peer("bob"))
		incoming := bob.accepting(t, "*")
		a := connect(t, alice, bob, "file://1")
		b := await(t, incoming, never)
		data := pattern(3, 100_000)
		if _, err := a.Write(data); err != nil {
			t.Fatal(err)
		}
		eventually(t, "all has arrived", func() bool { return b.Stats().BytesReceived == uint64(len(data)) })
		n.Reset("alice", "bob") // below the multiplexer, without a word
		got, err := io.ReadAll(b)
		if string(got) != string(data) || err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("read %d of %d bytes, then %v", len(got), len(data), err)
		}
		var op *channel.OpError // whichever of the link's two directions has met the reset first
		if !errors.As(err, &op) || !strings.Contains(err.Error(), "link read") && !strings.Contains(err.Error(), "link write") {
			t.Errorf("the cause is not named: %v", err)
		}
		if _, err := a.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("the other side: %v", err)
		}
	})
}

func TestS54_AccountClosedWhileNegotiatingAndSending(t *testing.T) {
	w := newAccountWorld(t).(*accountWorld)
	asked := make(chan struct{})
	tell := sync.OnceFunc(func() { close(asked) }) // a caller may ask again
	bob := w.device(t, "bob", func(c *peerlink.Config) {
		c.OnICERequest = func(ctx context.Context, p identity.Peer) error {
			if p.Name == "alice" {
				tell()
				<-ctx.Done()
			}
			return ctx.Err()
		}
	})
	incoming := bob.accepting(t, "*")
	opts := account.Options{Name: "carol", Bootstrap: w.node.Addrs(), Loopback: true, LocalDir: "off"}
	for _, name := range []string{"alice", "carol"} {
		opts.Name = name
		acc, err := account.Create(filepath.Join(w.dir, name), opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := acc.Start(background); err != nil {
			t.Fatal(err)
		}
		if err := acc.Ready(background); err != nil {
			t.Fatal(err)
		}
		d := ofAccount(acc)
		result := make(chan error, 1)
		if name == "alice" {
			go func() {
				_, err := d.ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{})
				result <- err
			}()
			await(t, asked, result)
		} else {
			c := connect(t, d, bob, "x://")
			await(t, incoming, never)
			go func() { _, err := c.Write(make([]byte, 10<<20)); result <- err }()
		}
		began := time.Now()
		if err := acc.Close(); err != nil {
			t.Error(err)
		}
		if err := <-result; !errors.Is(err, net.ErrClosed) || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %v after %v", name, err, time.Since(began))
		}
	}
}

func TestS70_HostCandidatesOverTCP(t *testing.T) {
	n := peerlinktest.New(t, loopback.ICE("tcp", nil))
	alice, bob := ofPeer(n.Peer("alice")), ofPeer(n.Peer("bob"))
	bob.echoing(t, "*")
	exchange(t, connect(t, alice, bob, "chat://1"), "hello")
	if c := alice.Connections()[0]; c.Path.Engine != "tcp" || c.Path.Class != "host" || !c.Path.Local.IsValid() || !c.Path.Remote.IsValid() {
		t.Errorf("path %q", c.Path)
	}
}

func TestS72_TooManyCandidatesAreCut(t *testing.T) {
	for _, engine := range []string{"tcp", "udp"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			letters := post{Exchange: callstest.New()}
			n := peerlinktest.New(t, loopback.ICE(engine, func(c *ice.Config) {
				letters.copy(c)
				c.Addresses = func() ([]netip.Addr, error) {
					addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
					for i := range 200 {
						addrs = append(addrs, netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)}))
					}
					return addrs, nil
				}
			}))
			alice, bob := ofPeer(n.Peer("alice")), ofPeer(n.Peer("bob"))
			bob.echoing(t, "*")
			exchange(t, connect(t, alice, bob, "chat://1"), "hello")
			for _, l := range letters.all() {
				if len(l.msg) > 8<<10 {
					t.Errorf("a signal of %d bytes", len(l.msg))
				}
			}
		})
	}
}

func TestS73_NoPathSaysWhatWasTried(t *testing.T) {
	n := peerlinktest.New(t, loopback.ICE("tcp", func(c *ice.Config) {
		c.Timeout = 500 * time.Millisecond
		c.Addresses = func() ([]netip.Addr, error) { return nil, nil } // nothing to be reached at
	}))
	alice, bob := ofPeer(n.Peer("alice")), ofPeer(n.Peer("bob"))
	began := time.Now()
	_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://1", peerlink.ConnectOptions{})
	if !errors.Is(err, ice.ErrNoPath) || time.Since(began) > 5*time.Second {
		t.Errorf("got %v after %v", err, time.Since(began))
	}
	if len(alice.Connections())+len(bob.Connections()) != 0 {
		t.Error("a link without a path")
	}
}
