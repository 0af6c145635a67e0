package ice

import (
	"context"
	"errors"
	"testing"
	"time"

	"peerlink/identity"
)

// A callee that bans the caller between its answer and the handshake ends the
// handshake, and the caller hears that at once, over either engine.
//
// fault: D5
func TestRefusalInTheHandshakeIsToldAtOnce(t *testing.T) {
	singleEngines(t, func(t *testing.T, name string) {
		x := newExchange()
		var trust identity.Trust
		a, b := x.newDevice(t, "a", engines(name)), x.newDevice(t, "b", engines(name), func(c *Config) { c.Trust = &trust })
		b.Decide(func(context.Context, identity.Peer) error { return trust.Set(a.id.DeviceID(), identity.Banned) })
		began := time.Now()
		_, _, err := a.Dial(limit(t, 20*time.Second), b.id.DeviceID())
		var lasting interface{ Permanent() bool }
		if !errors.As(err, &lasting) || !lasting.Permanent() || time.Since(began) > 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
