package peerlink_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
)

// fault: C9
func TestPanickingCallbacksCostTheirChannelOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.OnChannelRequest = func(_ context.Context, _ identity.Peer, uri string) error {
				if uri == "x://request" {
					panic(uri)
				}
				return nil
			}
			c.OnConnectionReady = func(_ identity.Peer, s *channel.Socket) { panic(s.URI()) }
			c.OnNewDevice = func(identity.Peer) { panic("new device") }
		})
		bob.echo(t, "chat://*")
		chat := connect(t, alice, bob, "chat://bob")
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "x://request", peerlink.ConnectOptions{}); !errors.Is(err, peerlink.ErrDeclined) || !strings.Contains(err.Error(), "internal error") {
			t.Errorf("panic of the request's callback: %v", err)
		}
		var reset *channel.ResetError
		if _, err := connect(t, alice, bob, "x://ready").Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Code != channel.CodeInternal {
			t.Errorf("panic of the ready channel's callback: %v", err)
		}
		exchange(t, chat, "still here")
		synctest.Wait()
		if p := bob.Metrics().Panics; p != 3 {
			t.Errorf("%d panics counted, want 3", p)
		}
	})
}

// fault: C9
func TestCallbacksThatNeverReturnStopTheirDeviceOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, carol := n.newDevice(t, "alice", nil), n.newDevice(t, "carol", nil)
		release := make(chan struct{})
		var blocked atomic.Int32
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.OnChannelRequest = func(context.Context, identity.Peer, string) error { return nil }
			c.OnConnectionReady = func(p identity.Peer, s *channel.Socket) {
				if p.Name == "alice" {
					blocked.Add(1)
					<-release
				}
				_, _ = fmt.Fprint(s, "served")
			}
		})
		bob.echo(t, "chat://*")
		for range 128 { // for a stranger
			connect(t, alice, bob, "x://")
		}
		synctest.Wait()
		if blocked.Load() != 128 {
			t.Fatalf("%d callbacks wait", blocked.Load())
		}
		exchange(t, connect(t, alice, bob, "chat://1"), "patterns need no callback")
		began := time.Now()
		_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "x://one more", peerlink.ConnectOptions{ChannelTimeout: time.Minute})
		if !errors.Is(err, peerlink.ErrDeclined) || !strings.Contains(err.Error(), "no decision in time") || time.Since(began) != 30*time.Second {
			t.Errorf("the next one got %v after %v", err, time.Since(began))
		}
		buf := make([]byte, 6)
		if _, err := connect(t, carol, bob, "x://").Read(buf); err != nil || string(buf) != "served" {
			t.Errorf("another device got %q, %v", buf, err)
		}
		close(release)
	})
}

// fault: B2
func TestRequestsThatNobodyDecidesAreDeclinedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.DecisionTimeout = 5 * time.Second
			c.OnChannelRequest = func(ctx context.Context, _ identity.Peer, _ string) error {
				<-ctx.Done()
				return context.Cause(ctx)
			}
		})
		const flood = 2000
		errs := make(chan error, flood)
		for i := range flood {
			go func() {
				_, err := alice.ConnectDevice(background, bob.id.DeviceID(), fmt.Sprint("x://", i), peerlink.ConnectOptions{ChannelTimeout: time.Hour})
				errs <- err
			}()
		}
		began := time.Now()
		for range flood {
			if err := <-errs; !errors.Is(err, peerlink.ErrDeclined) || !strings.Contains(err.Error(), "no decision in time") {
				t.Fatalf("got %v", err)
			}
		}
		if took := time.Since(began); took != 40*time.Second { // 256 at a time
			t.Errorf("took %v", took)
		}
		if k := len(alice.Connections()); k != 1 {
			t.Errorf("%d links", k)
		}
	})
}

func TestCallbackMayCloseItsOwnManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		var bob *device
		closed := make(chan error, 1)
		p := n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.OnChannelRequest = func(context.Context, identity.Peer, string) error {
				began := time.Now()
				err := bob.Close()
				if d := time.Since(began); d > 2*time.Second {
					err = fmt.Errorf("took %v", d)
				} else if err != nil && !strings.Contains(err.Error(), "callback") {
					err = fmt.Errorf("want it to name the callback: %w", err)
				} else {
					err = nil
				}
				closed <- err
				return nil
			}
		})
		bob = p
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{}); err == nil {
			t.Error("a closed manager gave a channel")
		}
		if err := <-closed; err != nil { // fault: C4
			t.Error(err)
		}
	})
}

// Row 4.
func TestPeersOfOtherVersions(t *testing.T) {
	for _, c := range []struct {
		name       string
		alice, bob multiplex.Config
		works      bool
		want       string
	}{
		{"old caller", multiplex.Config{Version: 1}, multiplex.Config{}, true, ""},
		{"old callee", multiplex.Config{}, multiplex.Config{Version: 1}, true, ""},
		{"old caller, not wanted", multiplex.Config{Version: 1}, multiplex.Config{MinVersion: 2}, false, ""},
		{"old callee, not wanted", multiplex.Config{MinVersion: 2}, multiplex.Config{Version: 1}, false, "no hello"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork("memory")
				alice := n.newDevice(t, "alice", func(cfg *peerlink.Config) { cfg.Link = c.alice })
				bob := n.newDevice(t, "bob", func(cfg *peerlink.Config) { cfg.Link = c.bob })
				bob.echo(t, "*")
				s, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://", peerlink.ConnectOptions{})
				if !c.works {
					if err == nil || !strings.Contains(err.Error(), c.want) {
						t.Errorf("got %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				exchange(t, s, "hello")
				alice.ConnectivityChanged()
				time.Sleep(time.Minute) // no beacon is missed by a peer that has none
				exchange(t, s, "still here")
			})
		})
	}
}

func TestUnansweredOnICERequestIsARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		hang := make(chan struct{})
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.DecisionTimeout = 3 * time.Second
			c.OnICERequest = func(context.Context, identity.Peer) error { <-hang; return nil }
		})
		defer close(hang)
		began := time.Now()
		_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://", peerlink.ConnectOptions{})
		if !errors.Is(err, peerlink.ErrRefused) || errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		if r := bob.Metrics().Refused; r != 1 {
			t.Errorf("%d refusals counted", r)
		}
	})
}

// fault: B2
func TestFullListenerMakesOthersWaitAndThenSaysNo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		bob := n.newDevice(t, "bob", knows(alice))
		l, err := bob.Listen("*")
		if err != nil {
			t.Fatal(err)
		}
		errs := make(chan error, 400)
		for i := range cap(errs) {
			go func() {
				_, err := alice.ConnectDevice(background, bob.id.DeviceID(), fmt.Sprint("x://", i), peerlink.ConnectOptions{ChannelTimeout: time.Hour})
				errs <- err
			}()
		}
		synctest.Wait()
		if len(errs) != 128 {
			t.Errorf("%d were taken by a listener that accepts none", len(errs))
		}
		for range 100 {
			if _, err := l.Accept(); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if len(errs) != 228 {
			t.Errorf("%d were taken after 100 places were made", len(errs))
		}
		began := time.Now()
		declined := 0
		for range cap(errs) {
			if err := <-errs; errors.Is(err, peerlink.ErrDeclined) && strings.Contains(err.Error(), "too many channels wait") {
				declined++
			} else if err != nil {
				t.Error(err)
			}
		}
		if declined != cap(errs)-228 || time.Since(began) != 30*time.Second {
			t.Errorf("%d declined after %v", declined, time.Since(began))
		}
	})
}

// flaky is a listener that fails for a while.
type flaky struct {
	*port
	fails atomic.Int32
}

func (f *flaky) Accept(ctx context.Context) (net.Conn, identity.Peer, error) {
	if f.fails.Add(-1) >= 0 {
		return nil, identity.Peer{}, errors.New("accept: too many open files")
	}
	return f.port.Accept(ctx)
}

// fault: J2
func TestCarrierThatCannotAcceptForAWhileIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		var asked *flaky
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			asked = &flaky{port: c.Listeners[0].(*port)}
			asked.fails.Store(20)
			c.Listeners = []peerlink.Listener{asked}
		})
		bob.echo(t, "*")
		alice := n.newDevice(t, "alice", nil)
		began := time.Now()
		exchange(t, connect(t, alice, bob, "chat://"), "hello")
		if d := time.Since(began); d < time.Second || d > 20*time.Second {
			t.Errorf("20 failures took %v", d)
		}
	})
}

// lines counts what is logged.
type lines struct{ n atomic.Int32 }

func (l *lines) Write(p []byte) (int, error) {
	l.n.Add(1)
	return len(p), nil
}

// fault: J5
func TestHostileDeviceDoesNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		var log lines
		mallory, alice := n.newDevice(t, "mallory", nil), n.newDevice(t, "alice", nil)
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
			c.OnICERequest = func(context.Context, identity.Peer) error { return errors.New("no") }
		})
		for range 1000 {
			if _, err := mallory.ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{}); err == nil {
				t.Fatal("let in")
			}
		}
		synctest.Wait()
		loud := log.n.Load()
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{}); err == nil {
			t.Fatal("let in")
		}
		synctest.Wait()
		if loud > 120 || log.n.Load() == loud { // 10 at once and 1 a second; each refusal takes up to 0.1 s
			t.Errorf("%d lines about one device, then %d about another", loud, log.n.Load()-loud)
		}
	})
}
