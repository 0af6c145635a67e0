package connectionmanager_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"peerlink"
	"peerlink/identity"
)

// list makes a device's account sign a revocation list.
func (d *device) list(t *testing.T, number uint64, who ...identity.Subject) *identity.RevocationList {
	t.Helper()
	l, err := d.id.RevocationList(number, who...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// keptOut tests that neither of two devices can connect to the other.
func keptOut(t *testing.T, a, b *device) {
	t.Helper()
	for _, d := range [][2]*device{{a, b}, {b, a}} {
		ctx, cancel := context.WithTimeout(background, 300*time.Millisecond)
		if _, err := d[0].ConnectDevice(ctx, d[1].id.DeviceID(), "chat://again", peerlink.ConnectOptions{}); err == nil {
			t.Error("connected in spite of a revocation")
		}
		cancel()
	}
}

// A revocation list that is taken while a device is connected ends its links
// within a second and keeps new ones from being made, whoever calls; so do both
// of two lists with one number. A list that is known already, one of another
// account and an older one change nothing, and a newer one forgives.
//
// fault: D5
// fault: D6
func TestS82_RevocationBitesAndIsKeptAsTold(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		for _, inbound := range []bool{false, true} {
			name := map[bool]string{false: " called", true: " calls"}[inbound]
			alice, bob := w.device(t, "alice"+name, nil), w.device(t, "bob"+name, nil)
			alice.echoing(t, "*")
			bob.echoing(t, "*")
			caller, callee := alice, bob
			if inbound {
				caller, callee = bob, alice
			}
			c := connect(t, caller, callee, "chat://1")
			exchange(t, c, "hello")
			revoked := identity.Subject(bob.id.DeviceID())
			for _, l := range []*identity.RevocationList{alice.list(t, 9, revoked), bob.list(t, 1), bob.list(t, 2, alice.id.DeviceID())} {
				if err := alice.revoke(l); err != nil {
					t.Fatal(err)
				}
			}
			exchange(t, c, "lists that do not concern this link")

			list := bob.list(t, 3, revoked)
			if err := alice.revoke(list); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_, err := c.Read(make([]byte, 1))
			if d := time.Since(began); err == nil || err == io.EOF || d > time.Second {
				t.Errorf("bob%s: read %v after %v", name, err, d)
			}
			eventually(t, "no link is left", func() bool { return len(alice.Connections())+len(bob.Connections()) == 0 })
			keptOut(t, alice, bob)

			for what, err := range map[string]error{
				"the same again":          alice.revoke(list),
				"another one of number 3": alice.revoke(bob.list(t, 3)),
			} {
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			keptOut(t, alice, bob) // both are kept: the first still counts
			if err := alice.revoke(bob.list(t, 2)); !errors.Is(err, identity.ErrOutdated) {
				t.Errorf("an older list: %v", err)
			}
			if err := alice.revoke(bob.list(t, 4)); err != nil {
				t.Fatal(err)
			}
			exchange(t, connect(t, caller, callee, "chat://2"), "forgiven")
		}
	})
}
