package connectionmanager_test

import (
	"context"
	"errors"
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

// Both sides of a ban hear the same over every carrier: the banned device that it
// is refused, at once and not only when its time is up; the device that banned it
// that it did so itself.
//
// case: E11
func TestBanIsTheSameErrorOverEveryCarrier(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		for what, ban := range map[string]func(alice, bob *device) error{
			"device":  func(alice, bob *device) error { return alice.trust(bob.id.DeviceID(), identity.Banned) },
			"account": func(alice, bob *device) error { return alice.trust(bob.id.AccountID(), identity.Banned) },
			"revoked": func(alice, bob *device) error { return alice.revoke(bob.list(t, 1, bob.id.DeviceID())) },
		} {
			t.Run(what, func(t *testing.T) {
				alice, bob := w.device(t, "alice "+what, nil), w.device(t, "bob "+what, nil)
				if err := ban(alice, bob); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(background, patience)
				defer cancel()
				_, err := bob.ConnectDevice(ctx, alice.id.DeviceID(), "chat://", peerlink.ConnectOptions{})
				if !errors.Is(err, peerlink.ErrRefused) || errors.Is(err, identity.ErrNotTrusted) || ctx.Err() != nil {
					t.Errorf("the banned device: %v", err)
				}
				_, err = alice.ConnectDevice(background, bob.id.DeviceID(), "chat://", peerlink.ConnectOptions{})
				if !errors.Is(err, identity.ErrBanned) || !errors.Is(err, identity.ErrNotTrusted) {
					t.Errorf("the device that banned it: %v", err)
				}
			})
		}
	})
}
