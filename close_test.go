package peerlink_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/identity"
	"peerlink/multiplex"
	"peerlink/peerlinktest"
)

// fault: C10
func TestCloseReturnsInTimeInEveryState(t *testing.T) {
	type env struct {
		t                 *testing.T
		alice, bob, carol *device
		n                 *peerlinktest.Network
		asked             func() // when alice has called bob, before his hello
		pending           *sync.WaitGroup
	}
	connectTo := func(e *env, to *device) {
		e.pending.Go(func() {
			ctx, cancel := within(time.Hour)
			defer cancel()
			_, err := e.alice.ConnectDevice(ctx, to.id.DeviceID(), "x://", peerlink.ConnectOptions{})
			if !errors.Is(err, net.ErrClosed) {
				e.t.Errorf("a pending call got %v", err)
			}
		})
		synctest.Wait()
	}
	lost := map[string]bool{"a path that swallows everything": true} // what was written
	for name, reach := range map[string]func(e *env){
		"fresh": func(*env) {},
		"dialling": func(e *env) {
			e.alice.port.dials = func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
			connectTo(e, e.bob)
		},
		"dialling, and the dialer is slow to end": func(e *env) {
			e.alice.port.dials = func(ctx context.Context) error { <-ctx.Done(); time.Sleep(time.Second); return errNoWay }
			connectTo(e, e.bob)
		},
		"between rounds": func(e *env) {
			e.alice.dialsAt(never)
			connectTo(e, e.bob)
		},
		"waiting for hello": func(e *env) {
			e.asked = func() { e.n.Cut("alice", "bob") }
			connectTo(e, e.bob)
		},
		"waiting for the peer's decision": func(e *env) { connectTo(e, e.carol) },
		"a path that swallows everything": func(e *env) {
			s := connect(e.t, e.alice, e.bob, "x://")
			e.n.Silence("alice", "bob")
			_, _ = s.Write(make([]byte, 1000))
		},
		"sending to one who does not read": func(e *env) {
			s := connect(e.t, e.alice, e.bob, "sink://")
			go func() { _, _ = s.Write(make([]byte, 10<<20)) }()
			synctest.Wait()
		},
		"callbacks that wait for their context": func(e *env) {
			go func() {
				_, _ = e.bob.ConnectDevice(background, e.alice.id.DeviceID(), "hang://", peerlink.ConnectOptions{})
			}()
			synctest.Wait()
		},
		"renewing": func(e *env) {
			connect(e.t, e.alice, e.bob, "x://")
			e.n.Silence("alice", "bob")
			e.alice.ConnectivityChanged()
			time.Sleep(2001 * time.Millisecond)
		},
		"a unique call": func(e *env) {
			e.alice.dialsAt(never)
			e.pending.Go(func() {
				_, err := e.alice.ConnectDevice(background, e.bob.id.DeviceID(), "x://", unique)
				if err == nil {
					e.t.Error("no error")
				}
			})
			synctest.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := peerlinktest.New(t)
				hang := func(c *peerlink.Config) {
					c.OnChannelRequest = func(ctx context.Context, _ identity.Peer, _ string) error {
						<-ctx.Done()
						return ctx.Err()
					}
				}
				e := &env{t: t, n: n, pending: new(sync.WaitGroup), asked: func() {}, alice: on(n, "alice", hang), carol: on(n, "carol", hang)}
				e.bob = on(n, "bob", func(c *peerlink.Config) {
					c.OnICERequest = func(context.Context, identity.Peer) error {
						e.asked()
						return nil
					}
				})
				e.bob.echo(t, "x://*")
				e.bob.accepted(t, "sink://*")
				reach(e)
				began := time.Now()
				err := e.alice.Close()
				if _, cut := errors.AsType[*peerlink.ShutdownError](err); cut != lost[name] || !cut && err != nil {
					t.Error(err)
				}
				if d := time.Since(began); d >= 2*time.Second {
					t.Errorf("took %v", d)
				}
				if len(e.alice.Connections()) != 0 || e.alice.Close() != nil {
					t.Error("not closed")
				}
				if _, err := e.alice.ConnectDevice(background, e.bob.id.DeviceID(), "x://", peerlink.ConnectOptions{}); !errors.Is(err, net.ErrClosed) {
					t.Errorf("a later call: %v", err)
				}
				e.pending.Wait()
			})
		})
	}
}

func TestShutdownLetsChannelsFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob, carol := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil), n.newDevice(t, "carol", nil)
		carol.echo(t, "*")
		accepted := bob.accepted(t, "*")
		a := connect(t, alice, bob, "file://")
		b := <-accepted
		down := make(chan error, 1)
		began := time.Now()
		go func() {
			ctx, cancel := within(time.Minute)
			defer cancel()
			down <- bob.Shutdown(ctx)
		}()
		synctest.Wait()
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "late://", peerlink.ConnectOptions{}); err == nil {
			t.Error("a new channel during shutdown")
		}
		if _, err := bob.ConnectDevice(background, alice.id.DeviceID(), "late://", peerlink.ConnectOptions{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a new channel by the one who shuts down: %v", err)
		}
		if _, err := bob.ConnectDevice(background, carol.id.DeviceID(), "late://", peerlink.ConnectOptions{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a new link by the one who shuts down: %v", err)
		}
		_, err := carol.ConnectDevice(background, bob.id.DeviceID(), "late://", peerlink.ConnectOptions{})
		if !errors.Is(err, peerlink.ErrBusy) || errors.Is(err, peerlink.ErrRefused) {
			t.Errorf("a new link to the one who shuts down: %v", err)
		}
		if _, err := bob.Listen("late://*"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a new listener during shutdown: %v", err)
		}
		time.Sleep(20 * time.Second)
		go func() {
			_, _ = a.Write([]byte("the rest"))
			_ = a.Close()
		}()
		if got, err := io.ReadAll(b); err != nil || string(got) != "the rest" {
			t.Errorf("read %q, %v", got, err)
		}
		_ = b.Close()
		if err := <-down; err != nil || time.Since(began) < 20*time.Second || time.Since(began) > 21*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestShutdownCutsWhatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		accepted := bob.accepted(t, "*")
		a := connect(t, alice, bob, "file://")
		b := <-accepted
		ctx, cancel := within(3 * time.Second)
		defer cancel()
		began := time.Now()
		if err := alice.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(began); d < 3*time.Second || d > 5*time.Second {
			t.Errorf("took %v", d)
		}
		for _, s := range []net.Conn{a, b} {
			if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("a cut channel read %v", err)
			}
		}
	})
}

// fault: J1
func TestUnreadBytesOfAllLinksShareABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget = 4 << 20
		n := newNetwork("memory")
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) { c.Link.Budget = multiplex.NewBudget(budget) })
		bob.accepted(t, "sink://*") // and never read
		bob.echo(t, "chat://*")
		for i := range 5 {
			mallory := n.newDevice(t, fmt.Sprint("mallory ", i), nil)
			for k := range 10 {
				s, err := mallory.ConnectDevice(background, bob.id.DeviceID(), fmt.Sprint("sink://", k), peerlink.ConnectOptions{})
				if err != nil {
					continue // the budget is tight: declined
				}
				go func() { _, _ = s.Write(make([]byte, 1<<20)) }()
			}
		}
		synctest.Wait()
		var unread int64
		for c := range bob.Links() {
			unread += c.Unread
		}
		if unread > budget+5*256<<10 || unread < budget/4 {
			t.Errorf("%d bytes wait unread, of a budget of %d", unread, budget)
		}
		for c := range bob.Links() {
			if _, err := bob.ConnectDevice(background, c.Peer.Device, "x://", peerlink.ConnectOptions{Link: c.ID}); err != nil && !errors.Is(err, peerlink.ErrDeclined) {
				t.Errorf("a link was lost: %v", err)
			}
		}
	})
}
