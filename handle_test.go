package peerlink_test

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/multiplex"
	"peerlink/peerlinktest"
)

// A handle shows its link from the beginning to after the end, on both sides, and
// never a link that comes later.
//
// case: E21
func TestALinkIsHeldByItsID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		accepted := bob.accepted(t, "*")
		a := connect(t, alice, bob, "x://")
		b := <-accepted
		near, err := alice.Link(alice.Connections()[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		far, err := bob.Link(bob.Connections()[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		if c := near.Connection(); c.Peer.Device != bob.id.DeviceID() || len(c.Channels) != 1 || near.LocalAddr() != c.LocalAddr || near.RemoteAddr().Network() != "pipe" {
			t.Errorf("the link is %+v between %v and %v", c, near.LocalAddr(), near.RemoteAddr())
		}
		if near.State() != peerlink.LinkOpen || near.Err() != nil {
			t.Errorf("%v, %v", near.State(), near.Err())
		}
		if err := far.Close(); err != nil {
			t.Error(err)
		}
		<-near.Done()
		<-far.Done()
		if err := near.Err(); !isGoingAway(err) || near.State() != peerlink.LinkEnded {
			t.Errorf("the peer closed the link: %v, %v", near.State(), err)
		}
		if err := far.Err(); !errors.Is(err, net.ErrClosed) || far.State() != peerlink.LinkEnded {
			t.Errorf("closed here: %v, %v", far.State(), err)
		}
		id := near.Connection().ID
		if _, err := alice.Link(id); !errors.Is(err, peerlink.ErrNotConnected) {
			t.Errorf("an ended link: %v", err)
		}
		if _, err := alice.Link(peerlink.LinkID{}); !errors.Is(err, peerlink.ErrNotConnected) {
			t.Errorf("no link: %v", err)
		}
		synctest.Wait()
		_ = connect(t, alice, bob, "y://")
		if c := near.Connection(); near.State() != peerlink.LinkEnded || c.ID != id || len(c.Channels) != 0 || c.Opened != 1 {
			t.Errorf("the handle shows %v, %+v", near.State(), c)
		}
		if err := near.Close(); err != nil || len(alice.Connections()) != 1 {
			t.Errorf("closed again: %v, %d links", err, len(alice.Connections()))
		}
		for _, c := range []*channel.Socket{a, b} {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("a channel outlived its link")
			}
		}
	})
}

func isGoingAway(err error) bool {
	_, is := errors.AsType[*multiplex.GoingAwayError](err)
	return is
}

// case: E21
func TestTheStateOfALinkFollowsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peerlinktest.New(t)
		alice, bob := on(n, "alice", nil), on(n, "bob", nil)
		accepted := bob.accepted(t, "*")
		_ = connect(t, alice, bob, "x://")
		<-accepted
		l, err := alice.Link(alice.Connections()[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		n.Cut("alice", "bob")
		alice.ConnectivityChanged()
		time.Sleep(3 * time.Second) // the bubble's: ProbeTimeout and some
		if l.State() != peerlink.LinkSilent {
			t.Errorf("without an answer: %v", l.State())
		}
		n.Heal("alice", "bob")
		synctest.Wait()
		if l.State() != peerlink.LinkOpen {
			t.Errorf("after the answer: %v", l.State())
		}
		n.Cut("alice", "bob")
		closed := make(chan error, 1)
		go func() { closed <- l.Close() }()
		synctest.Wait()
		if l.State() != peerlink.LinkEnding {
			t.Errorf("while it is closed: %v", l.State())
		}
		if err := <-closed; err != nil || l.State() != peerlink.LinkEnded {
			t.Errorf("closed: %v, %v", l.State(), err)
		}
	})
}

// case: E21
func TestCapacityTellsWhatIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", func(c *peerlink.Config) { c.Capacity = 2 })
		bob := n.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		is := func(want int) {
			t.Helper()
			if most, taken := alice.Capacity(); most != 2 || taken != want {
				t.Errorf("%d of %d places are taken, want %d of 2", taken, most, want)
			}
		}
		is(0)
		_ = connect(t, alice, bob, "x://")
		is(1)
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{Mode: peerlink.NewLink}); err != nil {
			t.Fatal(err)
		}
		is(2)
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{Mode: peerlink.NewLink}); !errors.Is(err, peerlink.ErrCapacity) {
			t.Errorf("with no place free: %v", err)
		}
		alice.CloseConnectionsWith(bob.id.DeviceID())
		is(0)
		if most, _ := bob.Capacity(); most != 4096 {
			t.Errorf("the default is %d", most)
		}
	})
}
