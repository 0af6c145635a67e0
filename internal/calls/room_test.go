package calls

import (
	"testing"
	"testing/synctest"
	"time"

	"peerlink/identity"
)

// A hundred throw-away keys take all places of strangers, wait for Accept, are being
// refused, and fill what is remembered. A member's call takes as long as without
// them, and comes out first; then all is given back.
//
// case: S24
func TestStrangersDoNotKeepMembersFromCalling(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		trust := new(identity.Trust)
		b, member := w.device(t, func(c *Config) { c.Trust = trust }), w.device(t)
		if err := trust.Set(member.id.AccountID(), identity.Allowed); err != nil {
			t.Fatal(err)
		}
		call := func() (took time.Duration) {
			began := time.Now()
			conn, _, err := member.Dial(t.Context(), b.id.DeviceID())
			if err != nil {
				t.Fatal(err)
			}
			took = time.Since(began)
			time.Sleep(time.Second) // until its other end waits for Accept, too
			in := <-b.acceptLater(t.Context())
			if in.peer.Device != member.id.DeviceID() {
				t.Errorf("%s comes first", in.peer.Device.Short())
			}
			conn.Close()
			in.conn.Close()
			return took
		}
		alone := call()

		waiting := w.device(t) // a stranger with a stream that nobody accepts
		conn, _, err := waiting.Dial(t.Context(), b.id.DeviceID())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		b.box.Alter = func(to identity.DeviceID, msg []byte) ([]byte, error) { // they read no refusals
			if to != member.id.DeviceID() {
				time.Sleep(10 * time.Second)
			}
			return msg, nil
		}
		for range 100 {
			from := newIdentity(t)
			w.Join(from)
			for range seenKept / 100 * 2 {
				b.handle(from.Peer(), Offer, NewID(), "")
				b.handle(from.Peer(), More, NewID(), "")
			}
		}
		synctest.Wait()
		if _, strangers := b.places.Used(); strangers != 8 || len(b.rooms[0].refusec) != maxRefusals {
			t.Errorf("%d places, %d refusals of strangers", strangers, len(b.rooms[0].refusec))
		}
		if flooded := call(); flooded != alone {
			t.Errorf("a member's call took %v among strangers, %v alone", flooded, alone)
		}
		id := NewID()
		if err := b.handle(member.id.Peer(), More, id, "early"); err != nil {
			t.Error(err)
		}
		if err := b.handle(member.id.Peer(), Offer, id, ""); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if side := b.Side(id, true).(*side); len(side.told) != 1 {
			t.Error("the member's early candidates are lost")
		}
		time.Sleep(b.cfg.Timeout + time.Second)
		(<-b.acceptLater(t.Context())).conn.Close()
		if !b.idle() || len(b.rooms[0].refusec) != 0 {
			members, strangers := b.places.Used()
			t.Errorf("%d and %d places, %d refusals after the flood", members, strangers, len(b.rooms[0].refusec))
		}
		connect(t, w.device(t), b)
	})
}

// What a stranger's place was is a member's once the stranger is one, and an offer
// that was served is not served again.
func TestAStrangerThatBecomesAMemberIsServedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		trust := new(identity.Trust)
		b, caller := w.device(t, func(c *Config) { c.Trust = trust }), newIdentity(t)
		w.Join(caller)
		id := NewID()
		if err := b.handle(caller.Peer(), Offer, id, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(b.cfg.Timeout + time.Second)
		if err := trust.Set(caller.DeviceID(), identity.Allowed); err != nil {
			t.Fatal(err)
		}
		if err := b.handle(caller.Peer(), Offer, id, ""); err == nil || !b.idle() {
			t.Errorf("served again: %v", err)
		}
	})
}
