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

// direct starts an account that is reached over direct TCP alone.
func direct(t *testing.T, acc *account.Account, err error) *account.Account {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = acc.Close() })
	if err := acc.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return acc
}

// fault: D5
func TestBanClosesLiveLinksAndSurvivesARestart(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	onLoopback := account.Options{Listen: []string{"127.0.0.1:0"}, LocalDir: "off"}
	acc, err := account.Create(filepath.Join(dir, "bob"), onLoopback)
	bob := direct(t, acc, err)
	acc, err = account.Create(filepath.Join(dir, "alice"), account.Options{LocalDir: "off"})
	alice := direct(t, acc, err)
	dial := func(bob *account.Account) (io.Reader, error) {
		if err := alice.Learn(bob.Identity().DeviceID(), bob.Addrs()...); err != nil {
			t.Fatal(err)
		}
		if _, err := bob.ConnectionManager().Listen("chat://*"); err != nil {
			t.Log("listens already:", err)
		}
		return alice.ConnectionManager().ConnectDevice(ctx, bob.Identity().DeviceID(), "chat://bob", peerlink.ConnectOptions{})
	}
	chat, err := dial(bob)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	who := alice.Identity().AccountID()
	if err := bob.SetTrust(who, identity.Banned); err != nil {
		t.Fatal(err)
	}
	if _, err := chat.Read(make([]byte, 1)); err == nil || err == io.EOF || time.Since(began) > time.Second {
		t.Errorf("a banned account's channel read %v after %v", err, time.Since(began))
	}
	if err := bob.Close(); err != nil {
		t.Fatal(err)
	}
	acc, err = account.Open(filepath.Join(dir, "bob"), onLoopback)
	bob = direct(t, acc, err)
	if d := bob.Trusted(who); d != identity.Banned {
		t.Errorf("after a restart the account is %v", d)
	}
	if _, err := dial(bob); err == nil {
		t.Error("a banned account connected after a restart")
	}
	if err := errors.Join(bob.SetTrust(who, identity.Undecided), bob.SetPolicy(identity.RefuseUndecided)); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(bob); err == nil {
		t.Error("an unknown account connected where only known ones are let in")
	}
	if err := bob.SetTrust(who, identity.Allowed); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(bob); err != nil {
		t.Errorf("an allowed account could not connect: %v", err)
	}
}
