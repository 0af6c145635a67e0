package account_test

import (
	"errors"
	"path/filepath"
	"testing"

	"peerlink"
	"peerlink/account"
	"peerlink/identity"
	"peerlink/tlssock"
)

// moved is the same device under another account.
func moved(t *testing.T, id *identity.Identity) *identity.Identity {
	t.Helper()
	work, err := identity.Generate("work")
	if err != nil {
		t.Fatal(err)
	}
	chain, err := work.SignDevice(id.Peer(), "phone")
	if err != nil {
		t.Fatal(err)
	}
	if id, err = id.Adopt(chain); err != nil {
		t.Fatal(err)
	}
	return id
}

// A device that was allowed by its id, and has been linked, is revoked by its account,
// signs itself into another one, and calls: it is out, also after a restart in between.
//
// case: S1
func TestARevokedDeviceIsNotLetInUnderAnotherAccount(t *testing.T) {
	ctx, dir := t.Context(), filepath.Join(t.TempDir(), "alice")
	opts := account.Options{Listen: []string{"127.0.0.1:0"}, LocalDir: "off"}
	acc, err := account.Create(dir, opts)
	alice := direct(t, acc, err)
	owner, err := identity.Generate("bob")
	if err != nil {
		t.Fatal(err)
	}
	phone, err := owner.IssueDevice("phone")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(alice.SetPolicy(identity.RefuseUndecided), alice.SetTrust(phone.DeviceID(), identity.Allowed)); err != nil {
		t.Fatal(err)
	}
	calls := func(id *identity.Identity) error {
		m, err := peerlink.Open(peerlink.Config{Identity: id, Network: peerlink.IgnoreNetwork})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		d := &tlssock.Dialer{Config: tlssock.Config{Identity: id}}
		if err := d.Learn(alice.Identity().DeviceID(), alice.Addrs()...); err != nil {
			t.Fatal(err)
		}
		if err := m.Start([]peerlink.Dialer{d}, nil); err != nil {
			t.Fatal(err)
		}
		_, err = m.ConnectDevice(ctx, alice.Identity().DeviceID(), "nothing://", peerlink.ConnectOptions{})
		if errors.Is(err, peerlink.ErrNoListener) {
			return nil // there is a link
		}
		return err
	}
	if err := calls(phone); err != nil {
		t.Fatal(err)
	}
	again := func() {
		t.Helper()
		if err := alice.Close(); err != nil {
			t.Fatal(err)
		}
		acc, err := account.Open(dir, opts)
		alice = direct(t, acc, err)
	}
	again()
	thief := moved(t, phone)
	if err := calls(thief); err == nil {
		t.Error("the grant went along to another account")
	}
	l, err := owner.RevocationList(1, phone.DeviceID())
	if err != nil {
		t.Fatal(err)
	}
	text, _ := l.MarshalText()
	if _, err := alice.ImportRevocations(text); err != nil {
		t.Fatal(err)
	}
	if err := alice.SetPolicy(identity.AllowUndecided); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, id := range []*identity.Identity{phone, thief, moved(t, phone)} {
			if err := calls(id); err == nil {
				t.Errorf("%v of account %s is in", id.Peer(), id.AccountID().Short())
			}
		}
		again()
	}
	other, err := owner.IssueDevice("tablet")
	if err != nil {
		t.Fatal(err)
	}
	if err := calls(other); err != nil {
		t.Errorf("a device that was not revoked: %v", err)
	}
}
