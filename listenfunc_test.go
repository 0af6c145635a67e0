package peerlink_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"peerlink"
	"peerlink/identity"
	"peerlink/multiplex"
)

// A listener's decision comes before the channel is accepted: a device that may
// not have one never holds one.
//
// case: E15
func TestAListenerDecidesBeforeItAccepts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob, carol := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil), n.newDevice(t, "carol", nil)
		l, err := bob.ListenFunc("pipe://*", func(_ context.Context, peer identity.Peer, uri string) error {
			switch {
			case uri == "pipe://broken":
				panic("decide")
			case peer.Device != alice.id.DeviceID():
				return errors.New("only alice may")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = carol.ConnectDevice(background, bob.id.DeviceID(), "pipe://x", peerlink.ConnectOptions{})
		var declined *multiplex.DeclinedError
		if !errors.As(err, &declined) || declined.Reason != "only alice may" || errors.Is(err, peerlink.ErrNoListener) {
			t.Errorf("carol: %v", err)
		}
		if _, err = alice.ConnectDevice(background, bob.id.DeviceID(), "pipe://broken", peerlink.ConnectOptions{}); !errors.Is(err, peerlink.ErrDeclined) {
			t.Errorf("a decision that panics: %v", err)
		}
		connect(t, alice, bob, "pipe://x")
		if c, err := l.AcceptChannel(background); err != nil || c.URI() != "pipe://x" {
			t.Fatal(c, err)
		}
		synctest.Wait() // a decline is counted once it is sent
		if s := bob.Metrics(); s.Accepted != 1 || s.Declined != 2 {
			t.Errorf("%d channels were accepted, %d declined", s.Accepted, s.Declined)
		}
	})
}
