package peerlink_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/identity"
)

// leaver is a carrier that takes its time to stop.
type leaver struct {
	*port
	stop func()
}

func (l leaver) StopAccepting() { l.stop() }

// A request that is being decided when its device begins to leave is to be asked
// again: that its listener is closed by then is no answer.
//
// case: E8
func TestAListenerThatClosesAsTheManagerLeavesIsNoRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		asked, decide := make(chan struct{}, 1), make(chan struct{})
		alice := n.newDevice(t, "alice", nil)
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.Listeners[0] = leaver{c.Listeners[0].(*port), func() {
				close(decide)
				time.Sleep(time.Second) // in the bubble: until the answer has come
			}}
		})
		if _, err := bob.ListenFunc("chat://", func(context.Context, identity.Peer, string) error {
			asked <- struct{}{}
			<-decide
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		failed := make(chan error)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "chat://", peerlink.ConnectOptions{})
			failed <- err
		}()
		<-asked
		if err := bob.Close(); err != nil {
			t.Error(err)
		}
		if err := <-failed; err == nil || errors.Is(err, peerlink.ErrDeclined) {
			t.Errorf("the caller is told %v", err)
		}
	})
}
