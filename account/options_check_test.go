package account_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink"
	"peerlink/account"
)

// Options that cannot work are found at once, before there is a folder, and
// secrets among them are not shown.
//
// case: E12
func TestOptionsAreCheckedFirst(t *testing.T) {
	for _, c := range []struct {
		opts account.Options
		want string
	}{
		{account.Options{Engines: []string{"tcp", "pigeon"}}, "Options.Engines, number 2"},
		{account.Options{Engines: []string{"udp", "udp"}}, "twice"},
		{account.Options{Listen: []string{"localhost"}}, "Listen"},
		{account.Options{Bootstrap: []string{"192.0.2.1:4001"}}, "Bootstrap"},
		{account.Options{DHTListen: []string{"4001"}}, "DHTListen"},
		{account.Options{Servers: []string{"192.0.2.1"}}, "Servers"},
		{account.Options{NetworkKey: "hush"}, "NetworkKey"},
		{account.Options{Manager: peerlink.Config{Capacity: -1}}, "Capacity"},
	} {
		dir := filepath.Join(t.TempDir(), "bob")
		_, err := account.New(c.opts)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("New: %v, want %q in it", err, c.want)
		}
		if c.opts.Manager.Capacity < 0 {
			continue
		}
		if _, err := account.Create(dir, c.opts); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Create: %v, want %q in it", err, c.want)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: there is a folder", c.want)
		}
		acc, err := account.Create(dir, account.Options{})
		if err != nil {
			t.Fatal(err)
		}
		_ = acc.Close()
		if _, err := account.Open(dir, c.opts); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open: %v, want %q in it", err, c.want)
		}
	}
}
