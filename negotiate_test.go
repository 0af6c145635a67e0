package peerlink_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
)

var errNoWay = errors.New("no way")

// dialling notes when a device's dialer was asked.
type dialling struct {
	mu sync.Mutex
	at []time.Duration
}

func (d *dialling) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.at)
}

// dialsAt makes a device's dialer fail until something changes.
func (d *device) dialsAt(until func(n int) bool) *dialling {
	began := time.Now()
	log := new(dialling)
	d.port.dials = func(context.Context) error {
		log.mu.Lock()
		defer log.mu.Unlock()
		log.at = append(log.at, time.Since(began))
		if until(len(log.at)) {
			return nil
		}
		return errNoWay
	}
	return log
}

func never(int) bool { return false }

func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(background, d)
}

func TestFailedConnectIsTriedAgainUntilTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		at := alice.dialsAt(never)
		ctx, cancel := within(time.Minute)
		defer cancel()
		began := time.Now()
		_, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "chat://bob", peerlink.ConnectOptions{})
		var ce *peerlink.ConnectError
		if !errors.As(err, &ce) || !errors.Is(err, errNoWay) || !errors.Is(err, context.DeadlineExceeded) || ce.Rounds != at.count() {
			t.Errorf("got %v, after %d dials", err, at.count())
		}
		if time.Since(began) != time.Minute {
			t.Errorf("gave up after %v", time.Since(began))
		}
		// Pauses grow from 0.25 s to 10 s, each a random half more or less.
		if at.count() < 7 || at.count() > 20 {
			t.Errorf("%d tries in a minute: %v", at.count(), at.at)
		}
		for i, d := range at.at {
			if i > 0 && d-at.at[i-1] > 15*time.Second {
				t.Errorf("a pause of %v", d-at.at[i-1])
			}
		}
		if alice.IsConnecting(bob.id.DeviceID()) {
			t.Error("still connecting, and nobody waits")
		}
	})
}

type lasting struct{ error }

func (lasting) Permanent() bool { return true }

// A carrier that says that it would fail again is not asked again, but others
// are tried, and asked again.
func TestPermanentFailureIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newNetwork("first"), newNetwork("second")
		alice := first.newDevice(t, "alice", func(c *peerlink.Config) { c.Dialers = append(c.Dialers, second.port(c.Identity)) })
		bob := second.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		alice.port.dials = func(context.Context) error { return lasting{errNoWay} }
		exchange(t, connect(t, alice, bob, "chat://bob"), "by the other carrier")

		carol := first.newDevice(t, "carol", nil)
		only := peerlink.ConnectOptions{Carriers: []string{"first"}}
		ctx, cancel := within(time.Minute)
		defer cancel()
		began := time.Now()
		_, err := alice.ConnectDevice(ctx, carol.id.DeviceID(), "chat://carol", only)
		if _, ok := errors.AsType[lasting](err); !ok || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestAttemptThatOverrunsItsRoundCountsAsFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		alice.port.dials = func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://bob", peerlink.ConnectOptions{})
		if m := alice.Metrics(); err == nil || m.Failed != 1 || m.Carriers["memory"].Failed != 1 {
			t.Errorf("%v: %+v", err, m)
		}
	})
}

func TestCallerWithoutADeadlineIsToldAtOnceThoughOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		at := alice.dialsAt(func(n int) bool { return n == 4 })
		patient := make(chan error, 1)
		ctx, cancel := within(time.Minute)
		defer cancel()
		go func() {
			_, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "chat://1", peerlink.ConnectOptions{})
			patient <- err
		}()
		synctest.Wait() // the first round has failed
		began := time.Now()
		_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://2", peerlink.ConnectOptions{})
		synctest.Wait()
		if !errors.Is(err, errNoWay) || time.Since(began) != 0 || at.count() != 2 {
			t.Errorf("got %v after %v, %d dials; want a round at once, and its failure", err, time.Since(began), at.count())
		}
		if err := <-patient; err != nil {
			t.Error(err)
		}
	})
}

// fault: C8
func TestReconnectKnowsNoOldPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		alice.dialsAt(func(n int) bool { return n >= 8 })
		ctx, cancel := within(2 * time.Minute)
		defer cancel()
		if _, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "chat://1", peerlink.ConnectOptions{}); err != nil {
			t.Fatal(err)
		}
		bob.CloseConnectionsWith(alice.id.DeviceID())
		synctest.Wait()
		began := time.Now()
		exchange(t, connect(t, alice, bob, "chat://2"), "again")
		if time.Since(began) != 0 {
			t.Errorf("connected again after %v", time.Since(began))
		}
	})
}

func TestChangedNetworkEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		var online atomic.Bool
		at := alice.dialsAt(func(int) bool { return online.Load() })
		ctx, cancel := within(time.Hour)
		defer cancel()
		done := make(chan error, 1)
		go func() {
			_, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "chat://1", peerlink.ConnectOptions{})
			done <- err
		}()
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		online.Store(true)
		began := time.Now()
		alice.ConnectivityChanged()
		if err := <-done; err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %v (%d tries)", err, time.Since(began), at.count())
		}
	})
}

func TestRefusalIsNotTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		dial error
		want error
	}{
		"said by the device":    {refused{}, peerlink.ErrRefused},
		"a TLS alert":           {&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, peerlink.ErrRefused},
		"not trusted here":      {fmt.Errorf("handshake: %w", identity.ErrNotTrusted), identity.ErrNotTrusted},
		"asked after the hello": {nil, peerlink.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork("memory")
				alice := n.newDevice(t, "alice", nil)
				bob := n.newDevice(t, "bob", func(cfg *peerlink.Config) {
					cfg.OnICERequest = func(context.Context, identity.Peer) error { return errors.New("not \"today\"") }
				})
				dials := 0
				alice.port.dials = func(context.Context) error { dials++; return c.dial }
				ctx, cancel := within(time.Minute)
				defer cancel()
				began := time.Now()
				_, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "chat://1", peerlink.ConnectOptions{})
				if !errors.Is(err, c.want) || dials != 1 || time.Since(began) > time.Second {
					t.Errorf("%d dials, %v after %v", dials, err, time.Since(began))
				}
				if c.dial == nil && !strings.Contains(err.Error(), `not \"today\"`) {
					t.Errorf("the reason is lost: %v", err)
				}
			})
		})
	}
}

// busy is a refusal for now, hearsay one of a far end that proved nothing.
type busy struct{ refused }

func (busy) Temporary() bool { return true }

type hearsay struct{ refused }

func (hearsay) Unproven() bool { return true }

// A device that has no room is asked again while the caller has time; a refusal of
// an end that is not proven leaves the other carriers.
func TestRefusalThatIsNotTheLastWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newNetwork("first"), newNetwork("second")
		alice := first.newDevice(t, "alice", func(c *peerlink.Config) { c.Dialers = append(c.Dialers, second.port(c.Identity)) })
		bob, carol := first.newDevice(t, "bob", nil), second.newDevice(t, "carol", nil)
		bob.echo(t, "*")
		carol.echo(t, "*")
		dials := 0
		alice.port.dials = func(context.Context) error {
			if dials++; dials > 3 {
				return nil
			}
			return busy{}
		}
		only := peerlink.ConnectOptions{Carriers: []string{"first"}}
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://1", only); !errors.Is(err, peerlink.ErrBusy) || errors.Is(err, peerlink.ErrRefused) || dials != 1 {
			t.Errorf("%d dials, %v", dials, err)
		}
		ctx, cancel := within(time.Minute)
		defer cancel()
		if _, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "chat://1", only); err != nil || dials != 4 {
			t.Errorf("%d dials, %v", dials, err)
		}
		alice.port.dials = func(context.Context) error { return hearsay{} }
		if _, err := alice.ConnectDevice(ctx, carol.id.DeviceID(), "chat://1", peerlink.ConnectOptions{}); err != nil {
			t.Errorf("past hearsay: %v", err)
		}
		if _, err := alice.ConnectDevice(ctx, first.newDevice(t, "dave", nil).id.DeviceID(), "chat://1", only); !errors.Is(err, peerlink.ErrRefused) || ctx.Err() != nil {
			t.Errorf("hearsay alone: %v", err)
		}
	})
}

// A forged alert on one path must not keep the others from trying.
func TestAlertOfOneCarrierLeavesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newNetwork("first"), newNetwork("second")
		alice := first.newDevice(t, "alice", func(c *peerlink.Config) { c.Dialers = append(c.Dialers, second.port(c.Identity)) })
		bob := second.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		alice.port.dials = func(context.Context) error {
			return &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}
		}
		exchange(t, connect(t, alice, bob, "chat://bob"), "hello")
	})
}

func TestManyPatientCallersShareTheRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		at := alice.dialsAt(func(n int) bool { return n == 5 })
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				ctx, cancel := within(time.Minute)
				defer cancel()
				s, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), fmt.Sprint("chat://", i), peerlink.ConnectOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				exchange(t, s, "hello")
			})
		}
		wg.Wait()
		if at.count() != 5 || len(alice.Connections()) != 1 {
			t.Errorf("%d dials, %d links for 64 callers", at.count(), len(alice.Connections()))
		}
	})
}

func TestCarriersAreTriedInTheOrderGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nets := []*network{newNetwork("a"), newNetwork("b"), newNetwork("c")}
		var order []string
		alice := nets[0].newDevice(t, "alice", func(c *peerlink.Config) {
			c.Dialers = nil
			for _, n := range nets {
				p := n.port(c.Identity)
				p.dials = func(context.Context) error { order = append(order, n.name); return errNoWay }
				c.Dialers = append(c.Dialers, p)
			}
		})
		stranger, err := identity.Generate("stranger")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range [][]string{{"c", "a"}, {"b"}, nil} {
			order = nil
			_, err := alice.ConnectDevice(background, stranger.DeviceID(), "x://", peerlink.ConnectOptions{Carriers: want})
			if want == nil {
				want = []string{"a", "b", "c"}
			}
			if err == nil || !slices.Equal(order, want) {
				t.Errorf("tried %v, want %v (%v)", order, want, err)
			}
		}
	})
}

func TestRequestLostWithItsLinkTwiceIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		calls := 0
		var bob *device
		bob = n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.OnChannelRequest = func(context.Context, identity.Peer, string) error {
				calls++
				bob.CloseConnectionsWith(alice.id.DeviceID())
				return nil
			}
		})
		_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://bob", peerlink.ConnectOptions{})
		if err == nil || calls != 2 || !strings.Contains(err.Error(), "peer closed the link") {
			t.Errorf("asked %d times: %v", calls, err)
		}
		if r := alice.Metrics().Retried; r != 1 {
			t.Errorf("%d retries counted", r)
		}
	})
}

func TestOneDeviceCannotTakeAllLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) { c.Capacity, c.PerDevice = 4, 2 })
		bob.echo(t, "*")
		greedy, modest := n.newDevice(t, "greedy", nil), n.newDevice(t, "modest", nil)
		for i := range 4 {
			_, err := greedy.ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{Mode: peerlink.NewLink})
			if (err == nil) != (i < 2) || i >= 2 && (!errors.Is(err, peerlink.ErrBusy) || errors.Is(err, peerlink.ErrRefused)) {
				t.Errorf("link %d: %v", i, err)
			}
		}
		exchange(t, connect(t, modest, bob, "x://"), "hello")
	})
}

func TestChosenLinkIsUsedAndNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob, carol := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil), n.newDevice(t, "carol", nil)
		bob.echo(t, "*")
		carol.echo(t, "*")
		connect(t, alice, bob, "chat://1")
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://2", peerlink.ConnectOptions{Mode: peerlink.NewLink}); err != nil {
			t.Fatal(err)
		}
		var s *channel.Socket
		ids := alice.Connections()
		for _, c := range ids {
			var err error
			if s, err = alice.ConnectDevice(background, bob.id.DeviceID(), "chat://"+c.ID.String(), peerlink.ConnectOptions{Link: c.ID}); err != nil {
				t.Fatal(err)
			}
			exchange(t, s, "hello")
		}
		for _, c := range alice.Connections() {
			if k := len(c.Channels); k != 2 || c.Channels[1].URI != "chat://"+c.ID.String() {
				t.Errorf("link %v has %+v", c.ID, c.Channels)
			}
		}
		if err := alice.CloseLink(ids[1].ID); err != nil {
			t.Fatal(err)
		}
		for _, o := range []struct {
			to   *device
			link peerlink.LinkID
		}{{bob, ids[1].ID}, {carol, ids[0].ID}} { // ended, and another device's
			if _, err := alice.ConnectDevice(background, o.to.id.DeviceID(), "x://", peerlink.ConnectOptions{Link: o.link}); !errors.Is(err, peerlink.ErrNotConnected) {
				t.Errorf("link %v to %v: %v", o.link, o.to.id.Peer(), err)
			}
		}
	})
}
