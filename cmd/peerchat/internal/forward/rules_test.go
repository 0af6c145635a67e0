package forward

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"peerlink/identity"
)

func mustAddr(t *testing.T, s string) Address {
	t.Helper()
	a, err := parse(s, toListen)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// fault: H8
func TestARuleIsForOneDeviceOneUseAndOneAddress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "forwards.json")
	r, err := OpenRules(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range []Rule{{bob, DoDial, "127.0.0.1:080"}, {bob, DoDial, "DB.lan:*"}, {bob, DoListen, "*:9000"}, {bob, DoDial, "/run/x.sock"}} {
		if err := errors.Join(r.Allow(rule), r.Allow(rule)); err != nil {
			t.Fatal(err)
		}
	}
	again, err := OpenRules(path) // as on disk
	if err != nil || len(again.List()) != 4 {
		t.Fatalf("%d rules, %v", len(again.List()), err)
	}
	for _, c := range []struct {
		allowed bool
		do      string
		addr    string
	}{
		{true, DoDial, "127.0.0.1:80"},
		{false, DoDial, "127.0.0.1:81"},
		{false, DoDial, "localhost:80"},
		{false, DoListen, "127.0.0.1:80"},
		{true, DoDial, "db.lan:1"},
		{false, DoDial, "db.lan.evil:1"},
		{true, DoListen, "*:9000"},
		{false, DoListen, "127.0.0.1:9000"},
		{true, DoDial, "/run/x.sock"},
		{false, DoDial, "/run/../run/x.sock"},
	} {
		if got := allows(again, bob, c.do, mustAddr(t, c.addr)); got != c.allowed {
			t.Errorf("%s %s: %v", c.do, c.addr, got)
		}
		if allows(again, alice, c.do, mustAddr(t, c.addr)) {
			t.Errorf("%s %s: another device may, too", c.do, c.addr)
		}
	}
	if err := again.Remove(Rule{bob, DoDial, "127.0.0.1:80"}); err != nil || allows(again, bob, DoDial, mustAddr(t, "127.0.0.1:80")) {
		t.Errorf("a removed rule holds: %v", err)
	}
	if err := again.Remove(Rule{bob, DoDial, "127.0.0.1:80"}); !errors.Is(err, ErrNoRule) {
		t.Errorf("removed twice: %v", err)
	}
	for _, rule := range []Rule{{alice, "eat", "a:1"}, {alice, DoDial, "*:80"}, {alice, DoDial, "a:"}, {Do: DoDial, Addr: "a:1"}} {
		if err := again.Allow(rule); err == nil {
			t.Errorf("%+v was taken", rule)
		}
	}
}

func TestRulesAreBounded(t *testing.T) {
	r, err := OpenRules(filepath.Join(t.TempDir(), "f.json"))
	if err != nil {
		t.Fatal(err)
	}
	_ = r.list.Change(func(now []Rule) ([]Rule, bool, error) {
		for i := range MaxRules {
			now = append(now, Rule{bob, DoDial, "h:" + strconv.Itoa(i+1)})
		}
		return now, false, nil
	})
	if err := r.Allow(Rule{bob, DoDial, "h:60000"}); err == nil || len(r.List()) != MaxRules {
		t.Errorf("rule %d was taken: %v", MaxRules+1, err)
	}
}

// fault: I1 H6
func TestDamagedRulesAllowNothingAndStay(t *testing.T) {
	for _, text := range []string{
		"", "{", `{"rules":[{}]}`, `{"rules":[],"x":1}`, `{"rules":[]} {}`, "\xef\xbb\xbf{}",
		`{"rules":[{"device":"` + bob.String() + `","do":"dial","addr":"*:80"}]}`, strings.Repeat(" ", maxFile+1),
	} {
		path := filepath.Join(t.TempDir(), "forwards.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := OpenRules(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%.40q: %v, %v", text, r, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%.40q was changed", text)
		}
	}
}

func FuzzParseRules(f *testing.F) {
	f.Add([]byte(`{"rules":[{"device":"` + bob.String() + `","do":"dial","addr":"a:1"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		rules, err := parseRules(text)
		for _, r := range rules {
			if same, err2 := r.check(); err == nil && (err2 != nil || same != r) {
				t.Errorf("%+v is %+v, %v", r, same, err2)
			}
		}
	})
}

func TestARuleForPipesIsAboutPipesOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "forwards.json")
	r, err := OpenRules(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Allow(Rule{bob, DoPipe, "log"}), r.Allow(Rule{bob, DoPipe, "127.0.0.1:80"}), r.Allow(Rule{alice, DoPipe, AnyPipe})); err != nil {
		t.Fatal(err)
	}
	again, err := OpenRules(path)
	if err != nil || len(again.List()) != 3 {
		t.Fatalf("%v, %v", again.List(), err)
	}
	if allows(again, bob, DoDial, mustAddr(t, "127.0.0.1:80")) || allows(again, bob, DoPipe, mustAddr(t, "127.0.0.1:80")) {
		t.Error("a rule for a pipe lets connections through")
	}
	if (Rule{bob, DoDial, "log"}).CoversPipe("log") {
		t.Error("a rule for connections lets into a pipe")
	}
	for _, c := range []struct {
		rule, name string
		want       bool
	}{{"log", "log", true}, {"log", "logs", false}, {"log", "", false}, {AnyPipe, "log", true}, {AnyPipe, "default", true}} {
		if got := (Rule{bob, DoPipe, c.rule}).CoversPipe(c.name); got != c.want {
			t.Errorf("a rule for %q covers %q: %v", c.rule, c.name, got)
		}
	}
	for _, bad := range []string{"", "a/b", "a*", "**", "x\x1b[2J", "a\u202eb", "a\xff", strings.Repeat("n", 65)} {
		if err := r.Allow(Rule{bob, DoPipe, bad}); err == nil {
			t.Errorf("a rule for the pipe %q", bad)
		}
	}
}

// allows asks the rules as a server without contacts does.
func allows(r *Rules, device identity.DeviceID, do string, a Address) bool {
	return NewServer(Config{Rules: r}).allows(identity.Peer{Device: device}, do, a)
}
