package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"peerlink"
	"peerlink/cmd/peerchat/internal/chatui"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
)

// house is a folder with the accounts and sockets of one test, and a terminal.
type house struct {
	t   *testing.T
	ctx context.Context // ends after everything that the test cleans up
	dir string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	dir, err := os.MkdirTemp("", "pc") // a socket's path is short, that of t.TempDir is not
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(func() {
		cancel()
		_ = os.RemoveAll(dir)
	})
	return &house{t, ctx, dir}
}

func (h *house) env() []string {
	return []string{
		runMainEnv + "=1", "XDG_RUNTIME_DIR=" + h.dir, "XDG_DATA_HOME=" + h.dir, "PEERCHAT_BOOTSTRAP=", noDaemonEnv + "=",
		"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "LC_ALL=C.UTF-8",
	}
}

func (h *house) account(name string) string { return filepath.Join(h.dir, name) }

func (h *house) command(name string, args ...string) *exec.Cmd {
	h.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.CommandContext(h.ctx, exe, append(args, "--account", h.account(name))...)
	cmd.Env = h.env()
	return cmd
}

// run runs a command of an account and returns what it printed.
func (h *house) run(name string, args ...string) string {
	h.t.Helper()
	out, err := h.command(name, args...).Output()
	if err != nil {
		h.t.Fatalf("%s: %q: %v", name, args, err)
	}
	return strings.TrimSpace(string(out))
}

// daemon starts one and waits until it serves; the function ends it.
func (h *house) daemon(name string) (device string, stop func()) {
	h.t.Helper()
	cmd := h.command(name, "run", "--json")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	h.t.Cleanup(stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	var ready struct{ Device string }
	if err == nil {
		err = json.Unmarshal([]byte(line), &ready)
	}
	if err != nil {
		h.t.Fatalf("the daemon of %s said %q: %v", name, line, err)
	}
	return ready.Device, stop
}

// pane is a terminal that runs a command of an account, and then tells its
// status.
type pane struct {
	h    *house
	name string
}

func (h *house) pane(name, line string) *pane {
	h.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	p := &pane{h, name}
	line = exe + " " + line + " --account " + h.account(name)
	args := append([]string{"-f", os.DevNull, "new-session", "-d", "-s", name, "-x", "80", "-y", "20", "env"}, h.env()...)
	p.tmux(append(args, "sh", "-c", line+`; echo status $?; stty -a | grep -o ' -*echo '; exec cat`)...)
	h.t.Cleanup(func() { _ = exec.Command("tmux", "-S", h.dir+"/tmux", "kill-session", "-t", name).Run() })
	return p
}

func (p *pane) tmux(args ...string) string {
	p.h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "tmux", append([]string{"-S", p.h.dir + "/tmux"}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TERM=xterm-256color")
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.h.t.Fatalf("tmux %q: %v: %s", args, err, out)
	}
	return string(out)
}

func (p *pane) says(text string) {
	p.tmux("send-keys", "-t", p.name, "-l", text)
	p.tmux("send-keys", "-t", p.name, "Enter")
}

// awaits waits until all of it is on the screen, and none of what begins with
// an exclamation mark.
func (p *pane) awaits(want ...string) string {
	p.h.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got, all := p.tmux("capture-pane", "-p", "-t", p.name), true
		for _, w := range want {
			not, gone := strings.CutPrefix(w, "!")
			all = all && (gone && !strings.Contains(got, not) || !gone && strings.Contains(got, w))
		}
		if all {
			return got
		}
		if time.Now().After(deadline) {
			p.h.t.Fatalf("%s: want %q on the screen:\n%s", p.name, want, got)
		}
		time.Sleep(20 * time.Millisecond) // another program draws it: there is nothing to wait on
	}
}

// signal signals the program of the pane.
func (p *pane) signal(name string) {
	p.h.t.Helper()
	shell := strings.TrimSpace(p.tmux("display-message", "-p", "-t", p.name, "#{pane_pid}"))
	out, err := exec.Command("pgrep", "-P", shell).Output()
	if err == nil {
		err = exec.Command("kill", "-"+name, strings.TrimSpace(string(out))).Run()
	}
	if err != nil {
		p.h.t.Fatalf("signal the program under %s: %v", shell, err)
	}
}

// Two people at two terminals, each with a daemon: presence, messages both
// ways, one who was away, and a terminal as it was before.
//
// fault: H5
func TestTwoPeopleChatOnTerminals(t *testing.T) {
	if testing.Short() {
		t.Skip("starts tmux and daemons")
	}
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("NOT TESTED: the chat on a real terminal needs tmux")
	}
	h := newHouse(t)
	aliceID, _ := h.daemon("alice")
	bobID, stopBob := h.daemon("bob")
	h.run("alice", "contacts", "add", "bob", bobID)
	h.run("bob", "contacts", "add", "alice", aliceID)

	alice, bob := h.pane("alice", "chat bob"), h.pane("bob", "chat")
	alice.awaits("○ bob")
	bob.awaits("alice")
	alice.says("hello from her")
	bob.awaits("● alice", "alice: hello from her")
	alice.awaits("● bob", "hello from her ✓")
	bob.says("and from him")
	alice.awaits("bob: and from him")

	// He goes away, his screen stays; what she says meanwhile comes once.
	stopBob()
	alice.awaits("○ bob")
	bob.awaits("no news, trying again")
	alice.says("when you are back")
	alice.awaits("when you are back ·")
	_, _ = h.daemon("bob")
	got := bob.awaits("alice: when you are back")
	alice.awaits("when you are back ✓")
	if n := strings.Count(got, "when you are back"); n != 1 {
		t.Errorf("it is on his screen %d times:\n%s", n, got)
	}

	alice.signal("TERM")
	alice.awaits("status 143", " echo", "!○ bob", "!● bob")
	bob.signal("HUP")
	bob.awaits("status 129", " echo", "!● alice")
}

// On a terminal, too, lines are lines where they are asked for.
func TestAPlainChatDrawsNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts tmux and daemons")
	}
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("NOT TESTED: plain lines on a real terminal need tmux")
	}
	h := newHouse(t)
	_, _ = h.daemon("alice")
	bobID, _ := h.daemon("bob")
	p := h.pane("alice", "chat --plain "+bobID)
	p.says("hello")
	p.tmux("send-keys", "-t", "alice", "C-d")
	p.awaits("hello", "status 0")
	if got := h.run("bob", "contacts"); got != "" {
		t.Errorf("bob has contacts: %s", got)
	}
	p = h.pane("bob", "chat --plain")
	p.awaits("name a device to chat with", "status 2")
}

func TestTheScreenIsToldWhatHasChanged(t *testing.T) {
	f := &feed{shown: map[string]chatui.Contact{}}
	bob := chatui.Contact{ID: "b", Name: "bob", Presence: chatui.Away}
	eve := chatui.Contact{ID: "e", Name: "eve"}
	if got := f.changes([]chatui.Contact{bob, eve}); len(got) != 2 || *got[0].Contact != bob || *got[1].Contact != eve {
		t.Fatalf("at first %v", got)
	}
	if got := f.changes([]chatui.Contact{bob, eve}); len(got) != 0 {
		t.Fatalf("of what has not changed: %v", got)
	}
	bob.Presence, bob.Unread = chatui.Online, 3
	got := f.changes([]chatui.Contact{bob})
	if len(got) != 2 || *got[0].Contact != bob || got[1].Gone != "e" {
		t.Fatalf("then %v", got)
	}
}

func TestOfSeveralLinksTheQuickestIsShown(t *testing.T) {
	var bob, eve identity.DeviceID
	bob[0], eve[0] = 1, 2
	link := func(carrier, way string, rtt time.Duration) control.Link {
		return control.Link{Connection: peerlink.Connection{Peer: identity.Peer{Device: bob}, Carrier: carrier, RTT: rtt}, Way: way}
	}
	for _, c := range []struct {
		links []control.Link
		want  string
	}{
		{[]control.Link{link("tcp", "", 0)}, "tcp"},
		{[]control.Link{link("tcp", "", 0), link("ice", "relay", 48*time.Millisecond)}, "relay, 48ms"},
		{[]control.Link{link("ice", "relay", 48*time.Millisecond), link("tcp", "", 12*time.Millisecond), link("x", "", 0)}, "tcp, 12ms"},
		{[]control.Link{link("shm", "", 20*time.Microsecond)}, "shm, <1ms"},
	} {
		all := []chatui.Contact{{ID: bob.String(), Presence: chatui.Away, Detail: "banned"}, {ID: eve.String(), Presence: chatui.Away}}
		present(all, c.links)
		if all[0].Presence != chatui.Online || all[0].Detail != c.want || all[1].Presence != chatui.Away {
			t.Errorf("%v: %+v, want %q", c.links, all, c.want)
		}
	}
}
