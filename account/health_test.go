package account

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"peerlink/identity"
)

// fault: H6
func TestReloadKeepsTheOldSettingsAfterAnError(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	acc, err := Create(dir, Options{Name: "a", LocalDir: "off"})
	if err != nil {
		t.Fatal(err)
	}
	defer acc.Close()
	if err := acc.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, configFile), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bob, err := identity.Generate("bob")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"{\r\n\"lan\": \"yes\"\r\n}", "{\n\"peers\": {},\n\"pears\": {}}", "\xef\xbb\xbf{}", `{"lan": true`, "",
	} {
		write(bad)
		if applied, restart, err := acc.Reload(); err == nil || applied != nil || restart != nil || !strings.Contains(err.Error(), configFile+": line ") {
			t.Errorf("%q: applied %v, restart %v, %v", bad, applied, restart, err)
		}
	}
	good := `{"lan": true, "peers": {"` + bob.DeviceID().String() + `": ["127.0.0.1:9"]}}`
	for range 2 { // what waits for a restart is said again
		write(strings.ReplaceAll(good, " ", "\r\n"))
		applied, restart, err := acc.Reload()
		if err != nil || !slices.Equal(restart, []string{"lan"}) || len(acc.f.cfg.Peers) != 1 || acc.f.cfg.LAN {
			t.Fatalf("applied %v, restart %v, %v, peers %v", applied, restart, err, acc.f.cfg.Peers)
		}
	}
	if _, has := acc.DHT(); has {
		t.Error("an account without nodes has no DHT")
	}
}
