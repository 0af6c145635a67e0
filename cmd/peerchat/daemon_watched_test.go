//go:build linux || darwin

package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dashboardNames are the metrics that the packaged dashboard asks for.
func dashboardNames(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../packaging/grafana/peerlink.json")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`peerlink_[a-z_]+`).FindAllString(string(text), -1)
	slices.Sort(names)
	if names = slices.Compact(names); len(names) < 15 {
		t.Fatalf("the dashboard has only %q", names)
	}
	return names
}

// What the dashboard shows is what a daemon with a link and a DHT serves, under
// the same names.
func TestMetricsAreServedUnderTheDashboardsNames(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	h := newHouse(t)
	node := h.begin("node", "node", "--listen", "/ip4/127.0.0.1/tcp/0", "--data", h.account("data"))
	bob, _ := h.daemon("bob")
	b := h.begin("alice", "run", "--json", "--metrics", ":0", "--bootstrap", strings.TrimSpace(node.first), "--loopback")
	var ready struct{ Metrics string }
	if err := json.Unmarshal([]byte(b.first), &ready); err != nil || !strings.HasPrefix(ready.Metrics, "http://127.0.0.1:") {
		t.Fatalf("%s: %v", b.first, err)
	}
	chat := h.command("alice", "chat", "--plain", bob)
	chat.Stdin = strings.NewReader("hello\n")
	if out, err := chat.CombinedOutput(); err != nil { // and so there is a link
		t.Fatalf("%v: %s", err, out)
	}
	scrape := func() string {
		res, err := http.Get(ready.Metrics) //nolint:noctx // a server of this machine
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
			t.Fatalf("%s, %s, %v", res.Status, res.Header, err)
		}
		return string(text)
	}
	// A round trip is known once the first beacon is back.
	for deadline := time.Now().Add(time.Minute); !strings.Contains(scrape(), "\npeerlink_round_trip_seconds{"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no round trip is measured")
		}
	}
	text := scrape()
	for _, name := range dashboardNames(t) {
		if name == "peerlink_dht_dropped_total" && !strings.Contains(text, name) {
			continue // only once something was
		}
		if !regexp.MustCompile(`(?m)^` + name + `(\{.*\})? [0-9.e+-]+$`).MatchString(text) {
			t.Errorf("%s is not served", name)
		}
	}
	if !regexp.MustCompile(`(?m)^peerlink_links\{carrier="(shm|unix)",direction="outbound"\} 1$`).MatchString(text) {
		t.Errorf("of the link there is only\n%s", regexp.MustCompile(`(?m)^peerlink_links.*$`).FindAllString(text, -1))
	}
	if res, err := http.Get(strings.TrimSuffix(ready.Metrics, "metrics")); err != nil || res.Body.Close() != nil || res.StatusCode != http.StatusNotFound { //nolint:noctx // as above
		t.Errorf("something else is served: %v, %v", res, err)
	}
}

func TestStatusIsWatchedOnATerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("starts tmux and daemons")
	}
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("NOT TESTED: status --watch on a real terminal needs tmux")
	}
	h := newHouse(t)
	alice, _ := h.daemon("alice")
	bob, stop := h.daemon("bob")
	h.run("alice", "contacts", "add", "robert", bob)
	p := h.pane("alice", "status --watch --every 100ms")
	p.awaits("device     "+alice[:40], "no links")
	chat := h.command("alice", "chat", "--plain", bob)
	chat.Stdin = strings.NewReader("hello\n")
	if out, err := chat.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := p.awaits("robert", "CARRIER", "!no links")
	if n := strings.Count(got, "daemon     process"); n > 1 {
		t.Errorf("it is there %d times:\n%s", n, got)
	}
	stop()
	p.awaits("no links", "!robert")
	p.signal("INT")
	p.awaits("status 130", " echo")
}

// notices is a socket on which systemd would listen.
func notices(t *testing.T, path string) func(want string) {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return func(want string) {
		t.Helper()
		buf := make([]byte, 4096)
		_ = l.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := l.Read(buf)
		if err != nil || !slices.Contains(strings.Split(string(buf[:n]), "\n"), want) {
			t.Fatalf("systemd is told %q, %v, want %s", buf[:n], err, want)
		}
	}
}

func TestSystemdIsToldOfEachState(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	h := newHouse(t)
	path := filepath.Join(h.dir, "notify")
	told := notices(t, path)
	cmd := h.command("alice", "run")
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	told("READY=1")
	if out := h.run("alice", "status"); !strings.Contains(out, "device ") {
		t.Errorf("it is ready and says %q", out)
	}
	_ = cmd.Process.Signal(syscall.SIGHUP)
	told("RELOADING=1")
	told("READY=1")
	_ = cmd.Process.Signal(syscall.SIGTERM)
	told("STOPPING=1")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 143 {
		t.Errorf("it ended with %v", err)
	}
}
