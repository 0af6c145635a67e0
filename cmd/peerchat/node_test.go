package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// fault: D10, H7
func TestNetworkKeyFileIsReadStrictly(t *testing.T) {
	digits := strings.Repeat("5e", 32)
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		want string // of the error; empty: none
	}{
		"a key":            {digits, 0o600, ""},
		"with a line feed": {digits + "\n", 0o600, ""},
		"for all to read":  {digits, 0o644, "chmod 600"},
		"too short":        {digits[2:], 0o600, "64 hex digits"},
		"no hex":           {strings.Repeat("x", 64), 0o600, "64 hex digits"},
		"empty":            {"", 0o600, "64 hex digits"},
		"long":             {strings.Repeat(digits, 100), 0o600, "6400 bytes"},
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		key, err := readNetworkKey(path)
		switch {
		case c.want == "" && (err != nil || !bytes.Equal(key, bytes.Repeat([]byte{0x5e}, 32))):
			t.Errorf("%s: %x, %v", name, key, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		case err != nil && strings.Contains(err.Error(), "5e5e"):
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
	if key, err := readNetworkKey(""); key != nil || err != nil {
		t.Errorf("%x, %v", key, err)
	}
	if _, err := readNetworkKey(filepath.Join(t.TempDir(), "nothing")); err == nil {
		t.Error("a file that is not there was read")
	}
}

// What is asked of the relay is done, or refused with the reason before the node
// starts; a line tells what is done.
// case: S25
func TestTheRelayDoesWhatWasAskedOrSaysWhyNot(t *testing.T) {
	const loopback = "/ip4/127.0.0.1/tcp/0"
	for _, c := range []struct {
		flags string
		want  string // of the error, or else of the line
		fails bool
	}{
		{"--relay", "STUN and TURN on 127.0.0.1:1\nrelays for all: 8.0 MiB a second each, 64 MiB a second in all\n", false},
		{"", "STUN on 127.0.0.1:1\n", false},
		{"--relay --listen " + loopback + " --stun 127.0.0.1:0", "relays for all", false},
		{"--relay --relay-for contacts,./friends --relay-rate none --relay-rate-all 1MiB", "relays for contacts, ./friends: no limit each, 1.0 MiB a second in all\n", false},
		{"--relay --relay-rate-all 2MiB", "2.0 MiB a second each, 2.0 MiB a second in all", false},
		{"--relay --relay-rate 99MiB --relay-rate-all none", "99 MiB a second each, no limit in all", false},
		{"--relay --relay-rate 8MiB --relay-rate-all 8MiB", "8.0 MiB a second each, 8.0 MiB a second in all", false},
		{"--relay --relay-rate 65MiB", "--relay-rate 65MiB is above --relay-rate-all 64MiB", true},
		{"--relay --stun off", "--stun off", true},
		{"--relay --listen " + loopback, "loopback addresses only", true},
		{"--relay-for contacts", "--relay-for is for --relay", true},
		{"--relay-rate 1MiB", "--relay-rate is for --relay", true},
		{"--relay-rate-all 1MiB", "--relay-rate-all is for --relay", true},
		{"--relay-address 192.0.2.1", "--relay-address is for --relay", true},
		{"--relay-private", "--relay-private is for --relay", true},
		{"--relay=false --relay-rate 1MiB", "--relay-rate is for --relay", true},
	} {
		var r reflector
		var listen []string
		f := pflag.NewFlagSet("node", pflag.ContinueOnError)
		f.StringSliceVar(&listen, "listen", []string{"/ip4/0.0.0.0/tcp/4001"}, "")
		r.register(f, &options{})
		if err := f.Parse(strings.Fields(c.flags)); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		err := r.check(f.Changed, listen)
		if err != nil {
			said.WriteString(err.Error())
		} else {
			r.tell(&said, netip.MustParseAddrPort("127.0.0.1:1"))
		}
		if (err != nil) != c.fails || !strings.Contains(said.String(), c.want) {
			t.Errorf("%q: %q (%v), want %q", c.flags, said.String(), err, c.want)
		}
	}
}
