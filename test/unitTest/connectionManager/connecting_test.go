package connectionmanager_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peerlink"
	"peerlink/identity"
)

func TestS01_RefusedCallerHearsAtOnce(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice := w.device(t, "alice", nil)
		bob := w.device(t, "bob", func(c *peerlink.Config) {
			c.OnICERequest = func(context.Context, identity.Peer) error { return errors.New("not today") }
		})
		began := time.Now()
		_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://bob", peerlink.ConnectOptions{})
		if err == nil || time.Since(began) > 5*time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		if !errors.Is(err, peerlink.ErrRefused) || !strings.Contains(err.Error(), "not today") {
			t.Errorf("the refusal came as %v", err)
		}
		if n := len(bob.Connections()); n != 0 {
			t.Errorf("the callee holds %d connections", n)
		}
	})
}

func TestS02_S07_CalleeSeesTheURIAndBothAreReady(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		channels := bob.accepting(t, "git://*")
		a := connect(t, alice, bob, "git://repository")
		b := await(t, channels, never)
		if b.URI() != "git://repository" || a.URI() != b.URI() || a.ID() != b.ID() {
			t.Errorf("caller has %q (%d), callee %q (%d)", a.URI(), a.ID(), b.URI(), b.ID())
		}
		if p, ok := peerlink.PeerOf(b); !ok || p.Device != alice.id.DeviceID() || p.Account != alice.id.AccountID() {
			t.Errorf("the callee takes the caller for %v", p)
		}
		if _, err := a.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(b, make([]byte, 1)); err != nil {
			t.Error(err)
		}
	})
}

func TestS03_DeviceIsFoundByItsIDAlone(t *testing.T) {
	w := newAccountWorld(t)
	alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
	bob.echoing(t, "*")
	var mu sync.Mutex
	var steps []string
	ctx := peerlink.WithTrace(background, func(e peerlink.TraceEvent) {
		mu.Lock()
		defer mu.Unlock()
		steps = append(steps, string(e.Step))
	})
	s, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "chat://bob", peerlink.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, s, "found")
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"record found", "offer sent", "answer received", "ice pair", "tls", "link up", "channel open"} {
		if !strings.Contains(strings.Join(steps, "|"), want) {
			t.Errorf("no step %q in %q", want, steps)
		}
	}
}

func TestS05_S06_S15_StateWhileTheCalleeThinks(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		asked, decide := make(chan identity.Peer, 4), make(chan struct{})
		alice := w.device(t, "alice", nil)
		bob := w.device(t, "bob", func(c *peerlink.Config) {
			c.OnICERequest = func(_ context.Context, p identity.Peer) error {
				asked <- p
				<-decide
				return nil
			}
		})
		bob.echoing(t, "*")
		peer := bob.id.DeviceID()
		if alice.IsConnecting(peer) || alice.IsConnected(peer) {
			t.Error("something before anything was asked for")
		}
		done := make(chan net.Conn)
		go func() {
			s, err := alice.ConnectDevice(background, peer, "chat://bob", peerlink.ConnectOptions{})
			if err != nil {
				t.Error(err)
			}
			done <- s
		}()
		if p := await(t, asked, done); p.Device != alice.id.DeviceID() {
			t.Errorf("asked about %v", p)
		}
		if !alice.IsConnecting(peer) || alice.IsConnected(peer) {
			t.Error("not connecting, or connected, while the callee thinks about it")
		}
		close(decide)
		exchange(t, <-done, "hello")
		if alice.IsConnecting(peer) || !alice.IsConnected(peer) || !bob.IsConnected(alice.id.DeviceID()) {
			t.Error("not connected on both sides afterwards")
		}
		if len(asked) != 0 {
			t.Error("asked more than once")
		}
	})
}

func TestS08_S12_DeclineHasAReasonAndLeavesTheLink(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice := w.device(t, "alice", nil)
		bob := w.device(t, "bob", func(c *peerlink.Config) {
			c.OnChannelRequest = func(context.Context, identity.Peer, string) error {
				return errors.New("no such repository")
			}
		})
		_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "git://nothing", peerlink.ConnectOptions{})
		if !errors.Is(err, peerlink.ErrDeclined) || !strings.Contains(err.Error(), `"no such repository"`) {
			t.Errorf("got %v", err)
		}
		bob.echoing(t, "chat://*")
		exchange(t, connect(t, alice, bob, "chat://bob"), "still here")
		if a, b := alice.Connections(), bob.Connections(); len(a) != 1 || len(b) != 1 || len(b[0].Channels) != 1 {
			t.Errorf("alice has %+v, bob %+v", a, b)
		}
	})
}

func TestS11_S13_S14_ChannelsShareOneConnection(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		bob.echoing(t, "*")
		uris := []string{"sip://a", "sip://b", "sip://same", "sip://same"}
		var wg sync.WaitGroup
		for i, uri := range uris {
			wg.Go(func() {
				s, err := alice.ConnectDevice(background, bob.id.DeviceID(), uri, peerlink.ConnectOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				exchange(t, s, strings.Repeat(string(rune('a'+i)), 1000))
			})
		}
		wg.Wait()
		cs := alice.Connections()
		if len(cs) != 1 || len(cs[0].Channels) != len(uris) {
			t.Errorf("%d links, want one with %d channels: %+v", len(cs), len(uris), cs)
		}
	})
}

func TestS16_S18_CloseIsCleanForTheOther(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		channels := bob.accepting(t, "*")
		a := connect(t, alice, bob, "chat://1")
		b := await(t, channels, never)
		if _, err := b.Write([]byte("the end")); err != nil {
			t.Fatal(err)
		}
		_ = b.Close()
		if got, err := io.ReadAll(a); err != nil || string(got) != "the end" {
			t.Errorf("the initiator read %q, %v", got, err)
		}
		_ = connect(t, alice, bob, "chat://2").Close()
		if n, err := await(t, channels, never).Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("the acceptor read %d bytes, %v", n, err)
		}
	})
}

func TestS17_TimeoutAndEndAreNeverMixedUp(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		channels := bob.accepting(t, "*")
		a := connect(t, alice, bob, "chat://1")
		b := await(t, channels, never)
		_ = a.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("idle channel: %v", err)
		}
		_ = a.SetReadDeadline(time.Now().Add(patience))
		_ = b.Close()
		if _, err := a.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after the close: %v", err)
		}
	})
}

func TestS20_S52_ClosingWithAnAccountInformsBothEnds(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		bob.echoing(t, "*")
		for _, who := range []identity.Subject{alice.id.AccountID(), alice.id.DeviceID()} {
			s := connect(t, alice, bob, "chat://1")
			exchange(t, s, "hello")
			if n := bob.CloseConnectionsWith(who); n != 1 {
				t.Errorf("closed %d links", n)
			}
			if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF || !strings.Contains(err.Error(), "closed") {
				t.Errorf("the other end read %v", err)
			}
			eventually(t, "no connection is left", func() bool { return len(alice.Connections())+len(bob.Connections()) == 0 })
		}
	})
}

func TestS23_ConnectsAgainAfterTheCalleeKilledTheConnection(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		bob.echoing(t, "*")
		old := []net.Conn{connect(t, alice, bob, "chat://1"), connect(t, alice, bob, "chat://2")}
		if n := bob.CloseConnectionsWith(alice.id.DeviceID()); n != 1 {
			t.Errorf("closed %d links", n)
		}
		exchange(t, connect(t, alice, bob, "chat://3"), "again")
		for _, c := range old {
			if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("an old channel read %v", err)
			}
		}
	})
}

func TestS29_S30_CloseWhileNegotiatingAndWithOpenChannels(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		asked := make(chan struct{})
		tell := sync.OnceFunc(func() { close(asked) }) // a caller may ask again
		alice, carol := w.device(t, "alice", nil), w.device(t, "carol", nil)
		carol.echoing(t, "*")
		bob := w.device(t, "bob", func(c *peerlink.Config) {
			c.OnICERequest = func(ctx context.Context, _ identity.Peer) error {
				tell()
				<-ctx.Done()
				return ctx.Err()
			}
		})
		open := connect(t, alice, carol, "chat://carol")
		incoming := carol.accepting(t, "sink://*") // and reads nothing
		full := connect(t, alice, carol, "sink://carol")
		await(t, incoming, never)
		writing := make(chan error, 1)
		go func() { _, err := full.Write(make([]byte, 16<<20)); writing <- err }()
		eventually(t, "the write waits", func() bool { return full.Stats().Stalls > 0 })
		pending := make(chan error)
		go func() {
			_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://bob", peerlink.ConnectOptions{})
			pending <- err
		}()
		await(t, asked, pending)
		reading := make(chan error)
		go func() { _, err := open.Read(make([]byte, 1)); reading <- err }()
		began := time.Now()
		if err := alice.Close(); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("Close took %v", d)
		}
		if err := <-pending; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the pending connect got %v", err)
		}
		if err := <-reading; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the open channel got %v", err)
		}
		if err := <-writing; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the write that waited got %v", err)
		}
		if _, err := open.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a later write got %v", err)
		}
	})
}

func TestS33_ChannelTimeoutCostsThatChannelOnly(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		hang := make(chan struct{})
		alice := w.device(t, "alice", nil)
		bob := w.device(t, "bob", func(c *peerlink.Config) {
			c.OnChannelRequest = func(context.Context, identity.Peer, string) error { <-hang; return nil }
		})
		defer close(hang)
		bob.echoing(t, "chat://*")
		s := connect(t, alice, bob, "chat://bob")
		_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "slow://x", peerlink.ConnectOptions{ChannelTimeout: 50 * time.Millisecond})
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		exchange(t, s, "still here")
	})
}

func TestS37_NewDeviceIsToldOncePerDevice(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		var told atomic.Int32
		alice := w.device(t, "alice", nil)
		bob := w.device(t, "bob", func(c *peerlink.Config) {
			c.OnNewDevice = func(identity.Peer) { told.Add(1) }
		})
		bob.echoing(t, "*")
		for link := range int32(2) {
			exchange(t, connect(t, alice, bob, "chat://1"), "one")
			exchange(t, connect(t, alice, bob, "chat://2"), "two")
			eventually(t, "told once for each link", func() bool { return told.Load() == link+1 })
			alice.CloseConnectionsWith(bob.id.DeviceID())
			eventually(t, "no link is left", func() bool { return len(bob.Connections()) == 0 })
		}
		if n := told.Load(); n != 2 { // and not for a channel
			t.Errorf("told %d times of two links", n)
		}
	})
}

func TestS39_OptionsSayWhichLink(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		bob.echoing(t, "*")
		dial := func(m peerlink.ConnectMode) error {
			_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://bob", peerlink.ConnectOptions{Mode: m})
			return err
		}
		if err := dial(peerlink.OnlyIfConnected); !errors.Is(err, peerlink.ErrNotConnected) {
			t.Errorf("only if connected, and it is not: %v", err)
		}
		for _, m := range []peerlink.ConnectMode{peerlink.Reuse, peerlink.OnlyIfConnected, peerlink.NewLink} {
			if err := dial(m); err != nil {
				t.Errorf("mode %d: %v", m, err)
			}
		}
		if n := len(alice.Connections()); n != 2 {
			t.Errorf("%d links, want two", n)
		}
	})
}

func TestS40_CallbackMayOpenMoreChannels(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice := w.device(t, "alice", nil)
		alice.echoing(t, "back://*")
		var bob *device
		results := make(chan error, 5)
		ready := make(chan struct{})
		bob = w.device(t, "bob", func(c *peerlink.Config) {
			c.OnChannelRequest = func(ctx context.Context, p identity.Peer, uri string) error {
				<-ready
				s, err := bob.ConnectDevice(ctx, p.Device, "back://"+uri[len("go://"):], peerlink.ConnectOptions{})
				if err == nil {
					err = s.Close()
				}
				results <- err
				return err
			}
		})
		close(ready)
		for _, uri := range []string{"go://1", "go://2", "go://3", "go://4", "go://5"} {
			go func() { _, _ = alice.ConnectDevice(background, bob.id.DeviceID(), uri, peerlink.ConnectOptions{}) }()
		}
		for range 5 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestS60_S61_S62_CapacityAndIDs(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice := w.device(t, "alice", func(c *peerlink.Config) { c.Capacity = 1 })
		bob, carol := w.device(t, "bob", nil), w.device(t, "carol", nil)
		bob.echoing(t, "*")
		carol.echoing(t, "*")
		connect(t, alice, bob, "chat://bob")
		old := alice.Connections()[0].ID
		if _, err := alice.ConnectDevice(background, carol.id.DeviceID(), "chat://x", peerlink.ConnectOptions{}); !errors.Is(err, peerlink.ErrCapacity) {
			t.Errorf("past the capacity: %v", err)
		}
		if err := alice.CloseLink(old); err != nil {
			t.Error(err)
		}
		eventually(t, "a place is free", func() bool { return len(alice.Connections()) == 0 })
		exchange(t, connect(t, alice, carol, "chat://carol"), "hello")
		for _, id := range []peerlink.LinkID{old, {}} {
			if err := alice.CloseLink(id); !errors.Is(err, peerlink.ErrNotConnected) {
				t.Errorf("closing %v: %v", id, err)
			}
		}
		if len(alice.Connections()) != 1 {
			t.Error("an old id named a new link")
		}
	})
}
