package peerlink_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/identity"
)

// Row 60: what is being made counts, before anything is dialled for another.
func TestCapacityCountsLinksBeingMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", func(c *peerlink.Config) { c.Capacity = 1 })
		bob, carol := n.newDevice(t, "bob", nil), n.newDevice(t, "carol", nil)
		bob.echo(t, "*")
		carol.echo(t, "*")
		release, dials := make(chan struct{}), 0
		alice.port.dials = func(context.Context) error { dials++; <-release; return nil }
		first := make(chan error, 1)
		go func() {
			_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://", peerlink.ConnectOptions{})
			first <- err
		}()
		synctest.Wait()
		if _, err := alice.ConnectDevice(background, carol.id.DeviceID(), "chat://", peerlink.ConnectOptions{}); !errors.Is(err, peerlink.ErrCapacity) || dials != 1 {
			t.Errorf("past the capacity: %v after %d dials", err, dials)
		}
		close(release)
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
}

// Streams that come at the same moment all find room at first; only as many
// become links as there may be.
func TestStreamsThatComeAtOnceDoNotPassTheBounds(t *testing.T) {
	for name, bound := range map[string]func(*peerlink.Config){
		"all in all": func(c *peerlink.Config) { c.Capacity = 3 },
		"one device": func(c *peerlink.Config) { c.PerDevice = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork("memory")
				n.latency = 50 * time.Millisecond // of the hellos
				bob := n.newDevice(t, "bob", bound)
				bob.echo(t, "*")
				alice := n.newDevice(t, "alice", nil)
				errs := make(chan error, 8)
				for range cap(errs) {
					go func() {
						_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{Mode: peerlink.NewLink})
						errs <- err
					}()
				}
				up := 0
				for range cap(errs) {
					if err := <-errs; err == nil {
						up++
					}
				}
				synctest.Wait()
				if m := bob.Metrics(); up != 3 || m.Opened != 3 || len(bob.Connections()) != 3 {
					t.Errorf("%d calls succeeded, %d links came up, %d are there; want 3", up, m.Opened, len(bob.Connections()))
				}
			})
		})
	}
}

// A device whose calls wait for a decision, all of them, keeps nobody else's
// from being heard, and asks the application 8 times at most.
//
// fault: J3
func TestUndecidedCallsOfOneDeviceDelayNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		mallory, carol := n.newDevice(t, "mallory", nil), n.newDevice(t, "carol", nil)
		asked := 0
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.OnICERequest = func(ctx context.Context, p identity.Peer) error {
				if p.Name == "mallory" {
					asked++
					<-ctx.Done()
				}
				return ctx.Err()
			}
		})
		bob.echo(t, "*")
		for i := range 300 { // more than may be on the way in all
			go func() {
				_, _ = mallory.ConnectDevice(background, bob.id.DeviceID(), fmt.Sprint("x://", i), peerlink.ConnectOptions{Mode: peerlink.NewLink})
			}()
			synctest.Wait()
		}
		began := time.Now()
		exchange(t, connect(t, carol, bob, "chat://"), "hello")
		if d := time.Since(began); d != 0 || asked != 8 {
			t.Errorf("carol waited %v, and bob was asked %d times about the other", d, asked)
		}
	})
}

// A device that is full is no device that refuses: a caller with time gets its link
// as soon as there is room.
func TestAFullDeviceIsAskedAgain(t *testing.T) {
	for name, bound := range map[string]func(*peerlink.Config){
		"all in all": func(c *peerlink.Config) { c.Capacity = 1 },
		"one device": func(c *peerlink.Config) { c.PerDevice = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork("memory")
				alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", bound)
				bob.echo(t, "*")
				connect(t, alice, bob, "chat://")
				one := peerlink.ConnectOptions{Mode: peerlink.NewLink}
				if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "x://", one); !errors.Is(err, peerlink.ErrBusy) || errors.Is(err, peerlink.ErrRefused) || errors.Is(err, peerlink.ErrCapacity) {
					t.Errorf("no room there: %v", err)
				}
				time.AfterFunc(5*time.Second, func() { bob.CloseConnectionsWith(alice.id.DeviceID()) })
				ctx, cancel := within(time.Minute)
				defer cancel()
				began := time.Now()
				sock, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "x://", one)
				if d := time.Since(began); err != nil || d < 5*time.Second || d > 20*time.Second {
					t.Fatalf("%v after %v", err, d)
				}
				exchange(t, sock, "hello")
			})
		})
	}
}

// trickle is a carrier whose bytes come one by one, a millisecond apart: a link is
// up for a while before it hears more.
type trickle struct{ *port }

func (d trickle) Dial(ctx context.Context, to identity.DeviceID) (net.Conn, identity.Peer, error) {
	conn, peer, err := d.port.Dial(ctx, to)
	if err != nil {
		return nil, peer, err
	}
	return drops{conn}, peer, nil
}

type drops struct{ net.Conn }

func (c drops) Read(p []byte) (int, error) {
	time.Sleep(time.Millisecond) // in the bubble
	return c.Conn.Read(p[:min(1, len(p))])
}

// It makes no difference that a link was up already when the no came.
func TestAFullDeviceIsAskedAgainWhereItsNoComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", func(c *peerlink.Config) { c.Dialers[0] = trickle{c.Dialers[0].(*port)} })
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) { c.PerDevice = 1 })
		bob.echo(t, "*")
		connect(t, alice, bob, "chat://")
		one := peerlink.ConnectOptions{Mode: peerlink.NewLink}
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "x://", one); !errors.Is(err, peerlink.ErrBusy) {
			t.Errorf("without a deadline: %v", err)
		}
		ctx, cancel := within(time.Minute)
		defer cancel()
		if _, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "x://", one); !errors.Is(err, peerlink.ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without room until the deadline: %v", err)
		}
		time.AfterFunc(30*time.Second, func() { bob.CloseConnectionsWith(alice.id.DeviceID()) })
		ctx, cancel = within(time.Minute)
		defer cancel()
		sock, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "x://", one)
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, sock, "hello")
	})
}
