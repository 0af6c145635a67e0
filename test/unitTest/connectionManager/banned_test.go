package connectionmanager_test

import (
	"context"
	"testing"
	"time"

	"peerlink/identity"

	"peerlink"
)

// Who is banned or revoked is told so at once and not left to wait: it knows
// that the device is there. (A stranger, where only known devices are let in,
// may be met with silence.)
//
// fault: D5
func TestS01_S80_BannedCallerHearsAtOnce(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		for what, ban := range map[string]func() error{
			"banned":  func() error { return alice.trust(bob.id.AccountID(), identity.Banned) },
			"revoked": func() error { return alice.revoke(bob.list(t, 1, bob.id.DeviceID())) },
		} {
			if err := alice.trust(bob.id.AccountID(), identity.Undecided); err != nil {
				t.Fatal(err)
			}
			if err := ban(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(background, patience)
			began := time.Now()
			_, err := bob.ConnectDevice(ctx, alice.id.DeviceID(), "chat://again", peerlink.ConnectOptions{})
			if d := time.Since(began); err == nil || d > 5*time.Second {
				t.Errorf("%s: %v after %v", what, err, d)
			}
			cancel()
		}
	})
}
