package peerlink_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
)

// opened makes a device that is not started, and whose carrier Start is given.
func (n *network) opened(t *testing.T, name string) *device {
	t.Helper()
	id, err := identity.Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := peerlink.Open(peerlink.Config{Identity: id, Network: peerlink.IgnoreNetwork})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return &device{m, id, n.port(id)}
}

func (d *device) start() error {
	return d.Start([]peerlink.Dialer{d.port}, []peerlink.Listener{d.port})
}

// A program listens and sets its callbacks, which may use the manager, before its
// device is reachable; no caller is declined for want of a listener.
//
// case: E8
func TestListenComesBeforeStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		bob := n.opened(t, "bob")
		alice := n.newDevice(t, "alice", nil)
		back := alice.accepted(t, "back://")
		bob.echo(t, "chat://*")
		if err := bob.SetCallbacks(peerlink.Callbacks{
			OnChannelRequest: func(context.Context, identity.Peer, string) error { return nil },
			OnConnectionReady: func(p identity.Peer, s *channel.Socket) {
				defer s.Close()
				if c, err := bob.ConnectDevice(background, p.Device, "back://", peerlink.ConnectOptions{}); err != nil {
					t.Error(err)
				} else {
					_ = c.Close()
				}
			},
		}); err != nil {
			t.Fatal(err)
		}
		called := make(chan error, 1)
		go func() { // before it is there, and until it is
			ctx, cancel := within(time.Minute)
			defer cancel()
			s, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "chat://x", peerlink.ConnectOptions{})
			if err == nil {
				exchange(t, s, "hello")
			}
			called <- err
		}()
		time.Sleep(10 * time.Second)
		if err := bob.start(); err != nil {
			t.Fatal(err)
		}
		if err := <-called; err != nil {
			t.Error(err)
		}
		connect(t, alice, bob, "other://")
		<-back
		if err := bob.SetCallbacks(peerlink.Callbacks{}); !errors.Is(err, peerlink.ErrStarted) {
			t.Error("callbacks were set after Start:", err)
		}
	})
}

// What needs a started manager says that it is not, or is not any more, at once
// and by an error of its own.
//
// case: E8
func TestCallsBeforeStartAndAfterCloseSayWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.opened(t, "bob")
		calls := map[string]func() error{
			"ConnectDevice": func() error {
				_, err := bob.ConnectDevice(background, alice.id.DeviceID(), "x://", peerlink.ConnectOptions{})
				return err
			},
			"ConnectDevice, unique": func() error {
				_, err := bob.ConnectDevice(background, alice.id.DeviceID(), "x://", unique)
				return err
			},
			"ConnectAddr": func() error {
				_, err := bob.ConnectAddr(background, "127.0.0.1:1", alice.id.DeviceID())
				return err
			},
			"AddConn": func() error {
				a, b := net.Pipe()
				_, err := bob.AddConn(background, a, alice.id.Peer(), peerlink.Outbound)
				if _, far := b.Read(make([]byte, 1)); far != io.EOF {
					t.Errorf("the conn was left open: %v", far)
				}
				return err
			},
		}
		check := func(want ...error) {
			t.Helper()
			began := time.Now()
			for name, call := range calls {
				err := call()
				for _, w := range want {
					if !errors.Is(err, w) {
						t.Errorf("%s: %v, want %v", name, err, w)
					}
				}
			}
			if d := time.Since(began); d > 0 {
				t.Errorf("it took %v", d)
			}
		}
		check(peerlink.ErrNotStarted)
		if err := bob.start(); err != nil {
			t.Fatal(err)
		}
		if err := bob.start(); !errors.Is(err, peerlink.ErrStarted) || errors.Is(err, net.ErrClosed) {
			t.Errorf("started twice: %v", err)
		}
		alice.echo(t, "x://")
		exchange(t, connect(t, bob, alice, "x://"), "hello")
		if err := bob.Close(); err != nil {
			t.Error(err)
		}
		calls["Listen"] = func() error { _, err := bob.Listen("x://"); return err }
		calls["Start"] = bob.start
		calls["SetCallbacks"] = func() error { return bob.SetCallbacks(peerlink.Callbacks{}) }
		check(peerlink.ErrClosed, net.ErrClosed)
	})
}

// A manager that was never started gives its listeners back, and starts no more.
//
// case: E8
func TestCloseBeforeStart(t *testing.T) {
	for name, end := range map[string]func(*device) error{
		"Close":    func(d *device) error { return d.Close() },
		"Shutdown": func(d *device) error { return d.Shutdown(background) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork("memory")
				id, err := identity.Generate("bob")
				if err != nil {
					t.Fatal(err)
				}
				p := n.port(id)
				m, err := peerlink.Open(peerlink.Config{Identity: id, Listeners: []peerlink.Listener{p}})
				if err != nil {
					t.Fatal(err)
				}
				if err := end(&device{m, id, p}); err != nil {
					t.Error(err)
				}
				select {
				case <-p.closed:
				default:
					t.Error("the listener is open")
				}
				if err := m.Start(nil, nil); !errors.Is(err, peerlink.ErrClosed) {
					t.Errorf("started: %v", err)
				}
			})
		})
	}
}

// Any method at any time, from anywhere: nothing hangs, panics or is left behind.
//
// case: E7
// case: E8
func TestLifecycleInAnyOrder(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork("memory")
			alice, bob := n.newDevice(t, "alice", nil), n.opened(t, "bob")
			alice.echo(t, "*")
			soon := func() (context.Context, context.CancelFunc) {
				return within(time.Duration(rand.Int64N(int64(3 * time.Second))))
			}
			use := func(from, to *device) {
				ctx, cancel := soon()
				defer cancel()
				if s, err := from.ConnectDevice(ctx, to.id.DeviceID(), "x://", peerlink.ConnectOptions{UniqueName: rand.IntN(4) == 0}); err == nil {
					_ = s.SetDeadline(time.Now().Add(time.Second))
					_, _ = s.Write([]byte("hello"))
					_, _ = s.Read(make([]byte, 5))
					_ = s.Close()
				}
			}
			ops := []func(){
				func() { _ = bob.start() },
				func() { _ = bob.start() },
				func() { use(bob, alice) },
				func() { use(bob, alice) },
				func() { use(alice, bob) },
				func() { use(alice, bob) },
				func() {
					if l, err := bob.Listen("x://*"); err == nil {
						_, _ = l.Accept()
						_ = l.Close()
					}
				},
				func() { _ = bob.SetCallbacks(peerlink.Callbacks{OnNewDevice: func(identity.Peer) {}}) },
				bob.ConnectivityChanged,
				func() {
					ctx, cancel := soon()
					defer cancel()
					for range bob.Events(ctx) {
					}
				},
				func() {
					ctx, cancel := soon()
					defer cancel()
					_ = bob.Shutdown(ctx)
				},
				func() { _ = bob.Close() },
			}
			var all sync.WaitGroup
			for range 3 {
				for _, op := range ops {
					wait := time.Duration(rand.Int64N(int64(4 * time.Second)))
					all.Go(func() {
						time.Sleep(wait)
						op()
					})
				}
			}
			all.Wait()
			if err := bob.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
