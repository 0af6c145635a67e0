package dht

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestConfigThatCannotWorkIsRefused(t *testing.T) {
	id := newIdentity(t, "alice")
	for want, cfg := range map[string]Config{
		"neither Client, Server nor Auto": {Identity: id, Mode: 7},
		"without an identity":             {},
		"a client listens nowhere":        {Identity: id, Listen: []string{loopback}},
		"bootstrap address":               {Identity: id, Bootstrap: []string{"192.0.2.1:4001"}},
		"want something like":             {Identity: id, Bootstrap: []string{"/ip4/192.0.2.1/tcp/4001"}},
		"negative":                        {Identity: id, MaxStored: -1},
		"start libp2p on":                 {Mode: Server, Listen: []string{"/ip4/127.0.0.1/tcp/99999"}},
	} {
		n, err := Start(context.Background(), cfg)
		if err == nil {
			_ = n.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestNodeKeyFileKeepsTheAddress(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	path := filepath.Join(dir, nodeKeyFile)
	first := start(t, Config{Mode: Server, DataDir: dir})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st, err)
	}
	addr := first.Addrs()
	second := start(t, Config{Mode: Server, DataDir: dir})
	if second.host.ID() != first.host.ID() {
		t.Errorf("%v became %v", addr, second.Addrs())
	}
	third := start(t, Config{Mode: Server})
	if third.host.ID() == first.host.ID() {
		t.Error("a node without a folder has the same key")
	}
}

// fault: D10
func TestDamagedNodeKeyIsNeverReplaced(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"cut":      func(p string) error { return os.WriteFile(p, []byte("short"), 0o600) },
		"long":     func(p string) error { return os.WriteFile(p, make([]byte, 33), 0o600) },
		"readable": func(p string) error { return os.WriteFile(p, make([]byte, 32), 0o644) },
		"folder":   func(p string) error { return os.Mkdir(p, 0o700) },
		"link":     func(p string) error { return os.Symlink("elsewhere", p) },
	} {
		if runtime.GOOS == "windows" && (name == "readable" || name == "link") {
			continue
		}
		dir := t.TempDir()
		path := filepath.Join(dir, nodeKeyFile)
		if err := damage(path); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(path)
		n, err := Start(context.Background(), Config{Mode: Server, Listen: []string{loopback}, DataDir: dir})
		if err == nil {
			_ = n.Close()
			t.Errorf("%s: taken", name)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: the error does not name the file: %v", name, err)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Errorf("%s: overwritten", name)
		}
	}
}

// A client's libp2p id tells nothing about its device, and changes.
func TestClientsHostIsNotItsDevice(t *testing.T) {
	id := newIdentity(t, "alice")
	a, b := start(t, Config{Identity: id}), start(t, Config{Identity: id})
	if a.host.ID() == b.host.ID() {
		t.Error("the same id at two starts")
	}
	pub, err := a.host.ID().ExtractPublicKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := pub.Raw()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(id.Peer().Chain()[0], raw) {
		t.Error("the host's key is the device's")
	}
	if len(a.Addrs()) != 0 {
		t.Errorf("a client listens on %v", a.Addrs())
	}
}
