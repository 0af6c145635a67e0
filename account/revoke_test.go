package account_test

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"peerlink"
	"peerlink/account"
	"peerlink/identity"
)

// fault: D5
// fault: D6
func TestRevocationClosesLiveLinksAndSurvivesARestart(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	onLoopback := account.Options{Listen: []string{"127.0.0.1:0"}, LocalDir: "off"}
	acc, err := account.Create(filepath.Join(dir, "bob"), onLoopback)
	bob := direct(t, acc, err)
	acc, err = account.Create(filepath.Join(dir, "alice"), account.Options{LocalDir: "off"})
	alice := direct(t, acc, err)
	dial := func() (io.Reader, error) {
		if err := alice.Learn(bob.Identity().DeviceID(), bob.Addrs()...); err != nil {
			t.Fatal(err)
		}
		if _, err := bob.ConnectionManager().Listen("chat://*"); err != nil {
			t.Log("listens already:", err)
		}
		return alice.ConnectionManager().ConnectDevice(ctx, bob.Identity().DeviceID(), "chat://bob", peerlink.ConnectOptions{})
	}
	chat, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := identity.Generate("stranger")
	if err != nil {
		t.Fatal(err)
	}
	forged, err := stranger.RevocationList(9, alice.Identity().DeviceID())
	if err != nil {
		t.Fatal(err)
	}
	text, _ := forged.MarshalText()
	if _, err := bob.ImportRevocations(text); err != nil { // it is the stranger's to make, and means nothing for alice
		t.Error(err)
	}
	if cs := bob.ConnectionManager().Connections(); len(cs) != 1 {
		t.Fatalf("%d links after a stranger's list", len(cs))
	}
	list, err := alice.Revoke(alice.Identity().DeviceID())
	if err != nil {
		t.Fatal(err)
	}
	text, _ = list.MarshalText()
	began := time.Now()
	if _, err := bob.ImportRevocations(text); err != nil {
		t.Fatal(err)
	}
	if _, err := chat.Read(make([]byte, 1)); err == nil || err == io.EOF || time.Since(began) > time.Second {
		t.Errorf("a revoked device's channel read %v after %v", err, time.Since(began))
	}
	if err := bob.Close(); err != nil {
		t.Fatal(err)
	}
	acc, err = account.Open(filepath.Join(dir, "bob"), onLoopback)
	bob = direct(t, acc, err)
	if n := len(bob.Revocations()); n != 2 {
		t.Errorf("%d lists after a restart", n)
	}
	if _, err := dial(); err == nil {
		t.Error("a revoked device connected after a restart")
	}
}

// fault: D6
func TestRevokeContinuesTheListsOfItsAccount(t *testing.T) {
	acc, err := account.Create(filepath.Join(t.TempDir(), "alice"), account.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer acc.Close()
	phone, tablet := identity.DeviceID{1}, identity.DeviceID{2}
	first, err := acc.Revoke(phone)
	if err != nil || first.Number() != 1 || !first.Revokes(phone) {
		t.Fatalf("%v, %v", first, err)
	}
	second, err := acc.Revoke(tablet)
	if err != nil || second.Number() != 2 || !second.Revokes(phone) || !second.Revokes(tablet) {
		t.Fatalf("%v, %v", second, err)
	}
	old, _ := first.MarshalBinary()
	if _, err := acc.ImportRevocations(old); !errors.Is(err, identity.ErrOutdated) {
		t.Errorf("rolled back: %v", err)
	}
	if _, err := acc.ImportRevocations(old[:40]); !errors.Is(err, identity.ErrRevocations) {
		t.Errorf("damaged: %v", err)
	}
	if ls := acc.Revocations(); len(ls) != 1 || ls[0].Digest() != second.Digest() {
		t.Errorf("held: %v", ls)
	}
}
