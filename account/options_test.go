package account

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"peerlink"
	"peerlink/dht"
	"peerlink/identity"
)

// Whatever config.json can say, a program can, and its word counts.
//
// case: E19
func TestEverySettingIsAnOption(t *testing.T) {
	full := reflect.ValueOf(fullConfig())
	var mine Options
	mine.fill(fullConfig())
	for key, f := range settings() {
		if got := reflect.ValueOf(mine).FieldByIndex(f.Index); !reflect.DeepEqual(got.Interface(), full.FieldByIndex(f.Index).Interface()) {
			t.Errorf("%s is %v, as if config.json had not set it", key, got)
		}
	}
	a := newAccount(&folder{cfg: fullConfig()}, Options{Servers: []string{"turn:192.0.2.9"}, TURNUser: "me", TURNPassword: "mine", TURNSecret: "ours"})
	if got, err := a.servers(); err != nil || len(got) != 1 || got[0].Username != "me" || got[0].Password != "mine" || got[0].Secret != "ours" {
		t.Errorf("%+v, %v", got, err)
	}
}

// nowhere puts the test where each folder that a program may think of is an empty
// one, and returns it.
func nowhere(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"HOME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"} {
		t.Setenv(name, dir)
	}
	return dir
}

// Two devices without folders meet in a private network, one of them a server of
// its DHT, and decide whatever can be decided; no file comes into being.
//
// case: E19
func TestAnAccountWithoutAFolderWritesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	key := strings.Repeat("0f", networkKeyLen)
	raw, _ := networkKey(key)
	node, err := dht.Start(ctx, dht.Config{Mode: dht.Server, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NetworkKey: raw})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	dir := nowhere(t)
	start := func(opts Options) *Account {
		opts.Bootstrap, opts.NetworkKey, opts.Loopback = node.Addrs(), key, true
		opts.Listen, opts.Servers = []string{"127.0.0.1:0"}, []string{"none"}
		acc, err := New(opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = acc.Close() })
		if err := acc.Start(ctx); err != nil {
			t.Fatal(err)
		}
		return acc
	}
	bob := start(Options{Name: "bob", DHTListen: []string{"/ip4/127.0.0.1/tcp/0"}})
	l, err := bob.ConnectionManager().Listen("chat://*")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.WriteString(c, "hello")
			_ = c.Close()
		}
	}()
	if err := bob.Ready(ctx); err != nil {
		t.Fatal("the network key is not used:", err)
	}
	alice := start(Options{Name: "alice", Peers: map[identity.DeviceID][]string{bob.Identity().DeviceID(): bob.Addrs()}})
	c, err := alice.ConnectionManager().ConnectDevice(ctx, bob.Identity().DeviceID(), "chat://bob", peerlink.ConnectOptions{Carriers: []string{"tcp"}})
	if err != nil {
		t.Fatal("the option Peers is not used:", err)
	}
	if word, err := io.ReadAll(c); err != nil || string(word) != "hello" {
		t.Errorf("%q, %v", word, err)
	}
	if err := alice.Ready(ctx); err != nil {
		t.Error(err)
	}
	mallory := identity.DeviceID{7}
	_, _, signErr := alice.SignDevice(bob.Identity().Peer(), "phone")
	_, revokeErr := alice.Revoke(mallory)
	if err := errors.Join(signErr, revokeErr, alice.SetTrust(identity.DeviceID{8}, identity.Banned), alice.SetPolicy(identity.RefuseUndecided)); err != nil {
		t.Error(err)
	}
	if alice.Trusted(identity.DeviceID{8}) != identity.Banned || len(alice.Revocations()) != 1 || alice.Devices() == nil || alice.TakesStrangers() || alice.Dir() != "" || alice.Here() {
		t.Error("what was decided does not hold")
	}
	_, _, reloadErr := alice.Reload()
	for _, err := range []error{reloadErr, alice.Adopt(nil, nil)} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("what needs a folder: %v", err)
		}
	}
	if err := errors.Join(alice.Close(), alice.Close(), bob.Close()); err != nil {
		t.Error(err)
	}
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && path != dir {
			t.Errorf("%s was written", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// case: E19
func TestAnAccountIsMadeForAnIdentity(t *testing.T) {
	id, err := identity.Generate("alice")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "alice")
	acc, err := Create(dir, Options{Identity: id})
	if err != nil {
		t.Fatal(err)
	}
	_ = acc.Close()
	acc, err = Open(dir, Options{Identity: id, LocalDir: localOff})
	if err != nil {
		t.Fatal(err)
	}
	if got := acc.Identity(); got.DeviceID() != id.DeviceID() || got.AccountID() != id.AccountID() || !got.HoldsAccount() {
		t.Errorf("the folder has %v", got.Peer())
	}
	_ = acc.Close()
	other, err := New(Options{Name: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := Open(dir, Options{Identity: other.Identity()}); err == nil || !strings.Contains(err.Error(), id.DeviceID().Short()) {
		t.Errorf("opened as another device: %v", err)
	}
	if acc, err = Open(dir, Options{}); err != nil {
		t.Fatal("the folder stays locked:", err)
	}
	_ = acc.Close()
	same, err := New(Options{Identity: id})
	if err != nil || same.Identity().DeviceID() != id.DeviceID() {
		t.Error(err)
	}
	_ = same.Close()
	if _, err := New(Options{Name: "two\nlines"}); err == nil {
		t.Error("a name of two lines")
	}
}
