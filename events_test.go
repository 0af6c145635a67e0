package peerlink_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/identity"
)

// told collects the events that have come so far.
func told(next func() (peerlink.Event, bool), n int) (es []peerlink.Event) {
	for range n {
		e, ok := next()
		if !ok {
			break
		}
		es = append(es, e)
	}
	return es
}

func kinds(es []peerlink.Event) (ks []string) {
	for _, e := range es {
		ks = append(ks, e.Kind.String())
	}
	return ks
}

// Row 67.
func TestEventsTellEveryChangeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		ctx, cancel := context.WithCancel(background)
		defer cancel()
		next, stop := iter.Pull(alice.Events(ctx))
		defer stop()
		alice.dialsAt(func(n int) bool { return n != 1 && n != 3 })
		patient, done := within(time.Minute)
		defer done()
		if _, err := alice.ConnectDevice(patient, bob.id.DeviceID(), "chat://1", peerlink.ConnectOptions{}); err != nil {
			t.Fatal(err)
		}
		id := alice.Connections()[0].ID
		bob.CloseConnectionsWith(alice.id.DeviceID())
		synctest.Wait()
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://2", peerlink.ConnectOptions{}); !errors.Is(err, errNoWay) {
			t.Fatal(err)
		}
		es := told(next, 6)
		want := []string{"connecting", "retrying", "link up", "link down", "connecting", "connect failed"}
		if !slices.Equal(kinds(es), want) {
			t.Fatalf("told %v, want %v", kinds(es), want)
		}
		if up, down := es[2], es[3]; up.Link != id || down.Link != id || up.Carrier != "memory" || up.Direction != peerlink.Outbound || down.Err == nil || up.Peer.Name != "bob" || down.At.Before(up.At) {
			t.Errorf("up %+v, down %+v", up, down)
		}
		if !errors.Is(es[1].Err, errNoWay) || !errors.Is(es[5].Err, errNoWay) || es[5].Peer.Device != bob.id.DeviceID() {
			t.Errorf("failures: %+v, %+v", es[1], es[5])
		}
		cancel()
		if e, ok := next(); ok {
			t.Errorf("after the end: %+v", e)
		}
	})
}

func TestEventsBeginWithWhatThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		connect(t, alice, bob, "chat://1")
		hang := make(chan struct{})
		alice.port.dials = func(ctx context.Context) error { <-hang; return errNoWay }
		go func() {
			_, _ = alice.ConnectDevice(background, bob.id.DeviceID(), "chat://2", peerlink.ConnectOptions{Mode: peerlink.NewLink})
		}()
		synctest.Wait()
		next, stop := iter.Pull(alice.Events(background))
		defer stop()
		es := told(next, 2)
		if !slices.Equal(kinds(es), []string{"link up", "connecting"}) || !es[0].Initial || !es[1].Initial {
			t.Errorf("told %+v", es)
		}
		close(hang)
		if es := told(next, 1); es[0].Kind != peerlink.ConnectFailed || es[0].Initial {
			t.Errorf("then %+v", es)
		}
		if err := alice.Close(); err != nil {
			t.Error(err)
		}
		if es := told(next, 2); !slices.Equal(kinds(es), []string{"link down"}) {
			t.Errorf("at the end %v, and the iterator must end with the manager", kinds(es))
		}
	})
}

func TestSlowReaderOfEventsIsToldWhatItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		slow, fast := alice.Events(background), alice.Events(background)
		next, stop := iter.Pull(fast)
		defer stop()
		connect(t, alice, bob, "chat://1")
		stranger, err := identity.Generate("stranger")
		if err != nil {
			t.Fatal(err)
		}
		for range 1000 { // two events each
			if _, err := alice.ConnectDevice(background, stranger.DeviceID(), "x://", peerlink.ConnectOptions{}); err == nil {
				t.Fatal("connected to nobody")
			}
			if es := told(next, 2); len(es) != 2 || es[0].Kind == peerlink.Missed {
				t.Fatalf("the fast reader was told %+v", es)
			}
		}
		for e := range slow {
			if e.Kind != peerlink.Missed || e.Lost != 2002 {
				t.Errorf("first: %+v, want that 2002 are missed", e)
			}
			break
		}
		for e := range slow {
			t.Errorf("a loop that was left goes on with %+v", e)
			break
		}
		_ = fmt.Sprint(peerlink.EventKind(99), peerlink.EventKind(-1))
	})
}
