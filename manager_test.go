package peerlink_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
)

var background = context.Background()

func connect(t testing.TB, from, to *device, uri string) *channel.Socket {
	t.Helper()
	s, err := from.ConnectDevice(background, to.id.DeviceID(), uri, peerlink.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSecondChannelUsesTheSameLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		var news []string
		alice := n.newDevice(t, "alice", nil)
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.OnNewDevice = func(p identity.Peer) { news = append(news, p.Name) }
		})
		bob.echo(t, "*")
		a, b := connect(t, alice, bob, "chat://bob"), connect(t, alice, bob, "chat://bob")
		exchange(t, a, "one")
		exchange(t, b, "two")
		synctest.Wait()
		if cs := alice.Connections(); len(cs) != 1 || len(cs[0].Channels) != 2 || cs[0].Peer.Name != "bob" || cs[0].Direction != peerlink.Outbound {
			t.Errorf("alice's connections: %+v", cs)
		}
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://bob", peerlink.ConnectOptions{Mode: peerlink.NewLink}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if fmt.Sprint(news) != "[alice]" {
			t.Errorf("bob heard of %v, want alice once", news)
		}
		if p, ok := peerlink.PeerOf(a); !ok || p.Device != bob.id.DeviceID() {
			t.Errorf("far end is %v, %v", p, ok)
		}
		if !alice.IsConnected(bob.id.DeviceID()) || alice.IsConnecting(bob.id.DeviceID()) {
			t.Error("connected, and not connecting: that is not what the manager says")
		}
	})
}

func TestManyCallersShareOneNegotiation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		dials := 0
		release := make(chan struct{})
		alice.port.dials = func(context.Context) error { dials++; <-release; return nil }
		bob.echo(t, "*")
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				s, err := alice.ConnectDevice(background, bob.id.DeviceID(), fmt.Sprint("chat://", i), peerlink.ConnectOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				exchange(t, s, "hello")
			})
		}
		synctest.Wait()
		if !alice.IsConnecting(bob.id.DeviceID()) {
			t.Error("not connecting while the dialer is at it")
		}
		close(release)
		wg.Wait()
		if dials != 1 || len(alice.Connections()) != 1 {
			t.Errorf("%d dials, %d links for 64 callers", dials, len(alice.Connections()))
		}
	})
}

func TestCallersContextBoundsItsOwnCallOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		alice.port.dials = func(ctx context.Context) error {
			select {
			case <-time.After(5 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		bob.echo(t, "*")
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		impatient := make(chan error)
		go func() {
			_, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "chat://1", peerlink.ConnectOptions{})
			impatient <- err
		}()
		synctest.Wait()
		began := time.Now()
		patient := make(chan error)
		go func() {
			_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://2", peerlink.ConnectOptions{})
			patient <- err
		}()
		err := <-impatient
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "memory: still trying after 1s") {
			t.Errorf("the impatient caller got %v", err)
		}
		if err := <-patient; err != nil || time.Since(began) != 5*time.Second {
			t.Errorf("the patient one got %v after %v", err, time.Since(began))
		}
	})
}

func TestFailureTellsEveryAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, fast := newNetwork("slow"), newNetwork("fast")
		alice := slow.newDevice(t, "alice", func(c *peerlink.Config) {
			c.Dialers = append(c.Dialers, fast.port(c.Identity))
		})
		stranger, err := identity.Generate("stranger")
		if err != nil {
			t.Fatal(err)
		}
		_, err = alice.ConnectDevice(background, stranger.DeviceID(), "chat://x", peerlink.ConnectOptions{})
		var ce *peerlink.ConnectError
		if !errors.As(err, &ce) || len(ce.Attempts) != 2 {
			t.Fatalf("got %v", err)
		}
		want := "could not reach device " + stranger.DeviceID().Short() + ": slow: no such device on the network; fast: no such device on the network"
		if err.Error() != want {
			t.Errorf("got  %s\nwant %s", err, want)
		}
	})
}

func TestCheaperCarrierHasAHeadStart(t *testing.T) {
	for _, c := range []struct {
		name   string
		cheap  time.Duration
		winner string
	}{
		{"in time", 40 * time.Millisecond, "cheap"},
		{"too slow", 200 * time.Millisecond, "dear"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cheap, dear := newNetwork("cheap"), newNetwork("dear")
				alice := cheap.newDevice(t, "alice", func(cfg *peerlink.Config) {
					cfg.Dialers = append(cfg.Dialers, dear.port(cfg.Identity))
				})
				alice.port.dials = func(ctx context.Context) error {
					select {
					case <-time.After(c.cheap):
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				bob := cheap.newDevice(t, "bob", func(cfg *peerlink.Config) {
					cfg.Listeners = append(cfg.Listeners, dear.port(cfg.Identity))
				})
				bob.echo(t, "*")
				exchange(t, connect(t, alice, bob, "chat://bob"), "hello")
				if cs := alice.Connections(); len(cs) != 1 || cs[0].Carrier != c.winner {
					t.Errorf("links: %+v, want one by %s", cs, c.winner)
				}
			})
		})
	}
}

func TestRefusalComesBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.OnICERequest = func(context.Context, identity.Peer) error { return errors.New("not today") }
		})
		began := time.Now()
		_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://bob", peerlink.ConnectOptions{})
		if err == nil || time.Since(began) > time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		if len(bob.Connections()) != 0 {
			t.Error("the callee holds a connection that it refused")
		}
	})
}

type refused struct{}

func (refused) Error() string   { return `refused by the device: "busy"` }
func (refused) Refused() string { return "busy" }

func TestDeviceThatRefusesIsNotTriedOtherwise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newNetwork("first"), newNetwork("second")
		alice := first.newDevice(t, "alice", func(c *peerlink.Config) { c.Dialers = append(c.Dialers, second.port(c.Identity)) })
		bob := second.newDevice(t, "bob", nil)
		alice.port.dials = func(context.Context) error { return refused{} }
		_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://bob", peerlink.ConnectOptions{})
		if !errors.Is(err, peerlink.ErrRefused) {
			t.Errorf("got %v", err)
		}
		if len(alice.Connections())+len(bob.Connections()) != 0 {
			t.Error("connected all the same")
		}
	})
}

func TestDeclineNamesTheReasonAndLeavesTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.OnChannelRequest = func(_ context.Context, _ identity.Peer, uri string) error {
				switch uri {
				case "git://panic":
					panic("as asked")
				case "git://yes":
					return nil
				}
				return errors.New("no such repository")
			}
			c.OnConnectionReady = func(p identity.Peer, s *channel.Socket) {
				_, _ = fmt.Fprintf(s, "welcome %s", p.Name)
				_ = s.Close()
			}
		})
		for uri, reason := range map[string]string{"git://no": "no such repository", "git://panic": "internal error"} {
			_, err := alice.ConnectDevice(background, bob.id.DeviceID(), uri, peerlink.ConnectOptions{})
			if !errors.Is(err, peerlink.ErrDeclined) || !strings.Contains(err.Error(), reason) {
				t.Errorf("%s: %v", uri, err)
			}
		}
		buf := make([]byte, 64)
		k, err := connect(t, alice, bob, "git://yes").Read(buf)
		if err != nil || string(buf[:k]) != "welcome alice" {
			t.Errorf("%q, %v", buf[:k], err)
		}
		if len(alice.Connections()) != 1 {
			t.Error("the declines cost the link")
		}
	})
}

func TestUndecidedChannelFailsAloneAfterItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.OnChannelRequest = func(ctx context.Context, _ identity.Peer, _ string) error {
				<-time.After(10 * time.Second)
				return nil
			}
		})
		bob.echo(t, "chat://*")
		chat := connect(t, alice, bob, "chat://bob")
		began := time.Now()
		_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "slow://x", peerlink.ConnectOptions{ChannelTimeout: 2 * time.Second})
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 2*time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		exchange(t, chat, "still here")
		time.Sleep(10 * time.Second) // the callee's callback returns, in the bubble's time
	})
}

func TestMostSpecificPatternWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		for _, p := range []string{"*", "file://*", "file://photos/*", "file://photos/cat.jpg"} {
			l, err := bob.Listen(p)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = fmt.Fprint(c, p)
					_ = c.Close()
				}
			}()
		}
		if _, err := bob.Listen("file://*"); err == nil {
			t.Error("a pattern was claimed twice")
		}
		for uri, want := range map[string]string{"chat://x": "*", "file://a": "file://*", "file://photos/dog.jpg": "file://photos/*", "file://photos/cat.jpg": "file://photos/cat.jpg"} {
			buf := make([]byte, 64)
			k, err := connect(t, alice, bob, uri).Read(buf)
			if err != nil || string(buf[:k]) != want {
				t.Errorf("%s went to %q (%v), want %q", uri, buf[:k], err, want)
			}
		}
	})
}

// Channels that a listener has accepted and nobody took end with it.
func TestClosedListenerLeavesNoChannelBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		l, err := bob.Listen("*")
		if err != nil {
			t.Fatal(err)
		}
		c := connect(t, alice, bob, "chat://bob")
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, peerlink.ErrNotAccepted) {
			t.Errorf("read %v", err)
		}
		if c, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accepted %v, %v afterwards", c, err)
		}
	})
}

func TestBanClosesLiveLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		var trust identity.Trust
		alice := n.newDevice(t, "alice", nil)
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) { c.Trust = &trust })
		bob.echo(t, "*")
		c := connect(t, alice, bob, "chat://bob")
		if err := trust.Set(alice.id.AccountID(), identity.Banned); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err := c.Read(make([]byte, 1))
		if err == nil || time.Since(began) > time.Second {
			t.Errorf("read returned %v after %v", err, time.Since(began))
		}
		synctest.Wait()
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://bob", peerlink.ConnectOptions{}); err == nil {
			t.Error("a banned account connected again")
		}
		if len(bob.Connections()) != 0 {
			t.Error("a banned account's link lives")
		}
	})
}

func TestOptionsSayWhichLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		dial := func(o peerlink.ConnectOptions) error {
			_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://bob", o)
			return err
		}
		if err := dial(peerlink.ConnectOptions{Mode: peerlink.OnlyIfConnected}); !errors.Is(err, peerlink.ErrNotConnected) {
			t.Errorf("only if connected: %v", err)
		}
		if err := dial(peerlink.ConnectOptions{Carriers: []string{"pigeon"}}); err == nil {
			t.Error("an unknown carrier was taken")
		}
		for i, mode := range []peerlink.ConnectMode{peerlink.Reuse, peerlink.OnlyIfConnected, peerlink.NewLink} {
			if err := dial(peerlink.ConnectOptions{Mode: mode}); err != nil {
				t.Errorf("mode %d: %v", i, err)
			}
		}
		if k := len(alice.Connections()); k != 2 {
			t.Errorf("%d links, want the first and the new one", k)
		}
	})
}

func TestCapacityIsHeldAndFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", func(c *peerlink.Config) { c.Capacity = 1 })
		bob, carol := n.newDevice(t, "bob", nil), n.newDevice(t, "carol", nil)
		bob.echo(t, "*")
		carol.echo(t, "*")
		connect(t, alice, bob, "chat://bob")
		first := alice.Connections()[0].ID
		if _, err := alice.ConnectDevice(background, carol.id.DeviceID(), "chat://carol", peerlink.ConnectOptions{}); !errors.Is(err, peerlink.ErrCapacity) {
			t.Errorf("past the capacity: %v", err)
		}
		if k := alice.CloseConnectionsWith(bob.id.AccountID()); k != 1 {
			t.Errorf("closed %d links", k)
		}
		synctest.Wait()
		connect(t, alice, carol, "chat://carol")
		second := alice.Connections()[0].ID
		if first == second {
			t.Errorf("%v names two links", first)
		}
		if err := alice.CloseLink(first); !errors.Is(err, peerlink.ErrNotConnected) {
			t.Errorf("closing a link that is gone: %v", err)
		}
		if id, err := peerlink.ParseLinkID(second.String()); err != nil || id != second {
			t.Errorf("%v parsed as %v, %v", second, id, err)
		}
		if err := alice.CloseLink(peerlink.LinkID{}); !errors.Is(err, peerlink.ErrNotConnected) {
			t.Errorf("closing the zero id: %v", err)
		}
	})
}

func TestLostLinkIsReplacedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		calls := 0
		var bob *device
		bob = n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.OnChannelRequest = func(context.Context, identity.Peer, string) error {
				if calls++; calls == 1 {
					bob.CloseConnectionsWith(alice.id.DeviceID())
				}
				return nil
			}
			c.OnConnectionReady = func(_ identity.Peer, s *channel.Socket) { _, _ = fmt.Fprint(s, "hi") }
		})
		buf := make([]byte, 2)
		if _, err := connect(t, alice, bob, "chat://bob").Read(buf); err != nil || string(buf) != "hi" {
			t.Errorf("%q, %v", buf, err)
		}
		if calls != 2 {
			t.Errorf("asked %d times", calls)
		}
	})
}

func TestCloseEndsEverythingUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob, carol := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil), n.newDevice(t, "carol", nil)
		bob.echo(t, "*")
		open := connect(t, alice, bob, "chat://bob")
		l, err := alice.Listen("chat://*")
		if err != nil {
			t.Fatal(err)
		}
		alice.port.dials = func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
		errs := make(chan error, 3)
		go func() {
			_, err := alice.ConnectDevice(background, carol.id.DeviceID(), "chat://carol", peerlink.ConnectOptions{})
			errs <- err
		}()
		go func() { _, err := open.Read(make([]byte, 1)); errs <- err }()
		go func() { _, err := l.Accept(); errs <- err }()
		synctest.Wait()
		began := time.Now()
		if err := alice.Close(); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("Close took %v", d)
		}
		for range 3 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v, want net.ErrClosed", err)
			}
		}
		synctest.Wait()
		if len(bob.Connections()) != 0 {
			t.Error("the peer was not told")
		}
	})
}

func TestAdoptedConnIsALinkLikeAnyOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		a, b := net.Pipe()
		go func() {
			if _, err := bob.AddConn(background, b, alice.id.Peer(), peerlink.Inbound); err != nil {
				t.Error(err)
			}
		}()
		if _, err := alice.AddConn(background, a, bob.id.Peer(), peerlink.Outbound); err != nil {
			t.Fatal(err)
		}
		s, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://bob", peerlink.ConnectOptions{Mode: peerlink.OnlyIfConnected})
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, s, "hello")
	})
}
