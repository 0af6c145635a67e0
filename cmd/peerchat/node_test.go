package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
