package account_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink"
	"peerlink/account"
)

// Without any DHT a device that was reached once is reached again by a process
// that was told nothing of it.
//
// fault: E5
func TestAddressThatWorkedIsRememberedOverARestart(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	acc, err := account.Create(filepath.Join(dir, "bob"), account.Options{Listen: []string{"127.0.0.1:0"}, LocalDir: "off"})
	bob := direct(t, acc, err)
	if _, err := bob.ConnectionManager().Listen("chat://*"); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "alice")
	acc, err = account.Create(home, account.Options{LocalDir: "off"})
	alice := direct(t, acc, err)
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	who := bob.Identity().DeviceID()
	if err := alice.Learn(who, dead.Addr().String(), bob.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	connect := func(alice *account.Account) error {
		_, err := alice.ConnectionManager().ConnectDevice(ctx, who, "chat://bob", peerlink.ConnectOptions{})
		return err
	}
	if err := connect(alice); err != nil {
		t.Fatal(err)
	}
	if err := alice.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(home, "direct.json"))
	if err != nil || !strings.Contains(string(raw), bob.Addrs()[0]) || strings.Contains(string(raw), dead.Addr().String()) {
		t.Errorf("%s, %v", raw, err)
	}
	acc, err = account.Open(home, account.Options{LocalDir: "off"})
	alice = direct(t, acc, err)
	if err := connect(alice); err != nil {
		t.Fatalf("after a restart: %v", err)
	}
	if err := alice.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "direct.json"), raw[:len(raw)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	acc, err = account.Open(home, account.Options{LocalDir: "off"})
	alice = direct(t, acc, err)
	if err := connect(alice); err == nil {
		t.Error("an address was read from half a file")
	}
	if err := alice.Learn(who, bob.Addrs()...); err != nil {
		t.Fatal(err)
	}
	if err := connect(alice); err != nil {
		t.Errorf("over a damaged file: %v", err)
	}
}
