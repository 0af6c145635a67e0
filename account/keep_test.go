package account

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"peerlink/identity"
)

// What links show is on disk some seconds later, without a Close, and is not written
// again and again.
//
// case: S1
func TestWhatLinksShowReachesTheDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "alice")
	synctest.Test(t, func(t *testing.T) {
		acc, err := Create(dir, Options{Name: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		defer acc.Close()
		read := func() *identity.Trust {
			text, err := os.ReadFile(filepath.Join(dir, trustFile))
			if err != nil {
				t.Fatal(err)
			}
			tr := new(identity.Trust)
			if err := tr.UnmarshalText(text); err != nil {
				t.Fatal(err)
			}
			return tr
		}
		for i := range 3 {
			p := identity.Peer{Device: identity.DeviceID{1, byte(i)}, Account: identity.AccountID{2}}
			if err := errors.Join(acc.SetTrust(p.Device, identity.Allowed), acc.Trust().Admit(p)); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), keepEvery)
			<-ctx.Done()
			cancel()
			synctest.Wait()
			p.Account = identity.AccountID{3}
			if tr := read(); tr.AtHome(p) {
				t.Errorf("device %d: its account is not on disk", i)
			}
		}
	})
}

// A phone that its own account has revoked stays out under any other one, though it
// never had a link to this device. A device that never was the account's does not.
//
// case: S1
func TestWhatOnesOwnAccountRevokedStaysOut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "alice")
	acc, err := Create(dir, Options{Name: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	joining, err := identity.Generate("phone")
	if err != nil {
		t.Fatal(err)
	}
	phone, other := joining.DeviceID(), identity.DeviceID{2}
	if _, _, err := acc.SignDevice(joining.Peer(), "phone"); err != nil {
		t.Fatal(err)
	}
	if _, err := acc.Revoke(phone, other); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := acc.Trust().Check(identity.Peer{Device: phone, Account: identity.AccountID{3}}); !errors.Is(err, identity.ErrRevoked) {
			t.Errorf("start %d: %v", i, err)
		}
		if err := acc.Trust().Check(identity.Peer{Device: other, Account: identity.AccountID{3}}); err != nil {
			t.Errorf("start %d, another device: %v", i, err)
		}
		if err := acc.Close(); err != nil {
			t.Fatal(err)
		}
		if acc, err = Open(dir, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := acc.Close(); err != nil {
		t.Fatal(err)
	}
}
