package account

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
// never had a link to this device, and though the file is of a version that noted no
// homes.
//
// case: S1
func TestWhatOnesOwnAccountRevokedStaysOut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "alice")
	acc, err := Create(dir, Options{Name: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	phone, other := identity.DeviceID{1}, identity.DeviceID{2}
	if _, err := acc.Revoke(phone); err != nil {
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
		withoutHomes(t, dir)
		if acc, err = Open(dir, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := acc.Close(); err != nil {
		t.Fatal(err)
	}
}

// withoutHomes makes a trust file one that an older version has written.
func withoutHomes(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, trustFile))
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.DeleteFunc(strings.SplitAfter(string(text), "\n"), func(l string) bool { return strings.HasPrefix(l, "home ") || strings.HasPrefix(l, "past ") })
	if err := os.WriteFile(filepath.Join(dir, trustFile), []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
}
