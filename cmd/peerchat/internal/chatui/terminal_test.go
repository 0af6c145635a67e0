package chatui

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tmux is a real terminal, with a server of its own.
type tmux struct {
	t      *testing.T
	socket string
}

// inTmux runs this test binary as a chat in a terminal of some size.
func inTmux(t *testing.T, width, height string, env ...string) *tmux {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("needs tmux")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	x := &tmux{t, filepath.Join(t.TempDir(), "s")}
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", x.socket, "kill-server").Run() })
	args := []string{"-f", os.DevNull, "new-session", "-d", "-x", width, "-y", height, "env", programEnv + "=1"}
	args = append(args, env...)
	x.do(append(args, "sh", "-c", exe+` -test.run='^$'; echo status $?; stty -a | grep -o '.echo '; exec cat`)...)
	return x
}

func (x *tmux) do(args ...string) string {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "tmux", append([]string{"-S", x.socket}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TERM=xterm-256color")
	out, err := cmd.CombinedOutput()
	if err != nil {
		x.t.Fatalf("tmux %q: %v: %s", args, err, out)
	}
	return string(out)
}

// keys presses keys by tmux's names.
func (x *tmux) keys(names ...string) { x.do(append([]string{"send-keys"}, names...)...) }

// awaits waits until all of it is on the screen, and none of what begins with
// an exclamation mark.
func (x *tmux) awaits(want ...string) string {
	x.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got, all := x.do("capture-pane", "-p"), true
		for _, w := range want {
			not, gone := strings.CutPrefix(w, "!")
			all = all && (gone && !strings.Contains(got, not) || !gone && strings.Contains(got, w))
		}
		if all {
			return got
		}
		if time.Now().After(deadline) {
			x.t.Fatalf("want %q on the screen:\n%s", want, got)
		}
		time.Sleep(20 * time.Millisecond) // another program draws it: there is nothing to wait on
	}
}

// fault: H5 H9
func TestChatOnARealTerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("starts tmux")
	}
	x := inTmux(t, "80", "24")
	x.awaits("● alice", "running it now")
	x.keys("-l", "ping one")
	x.keys("Enter")
	x.awaits("alice: pong one")
	// Several lines, pasted: sent only by a key.
	x.do("set-buffer", "ping two\nlines")
	x.do("paste-buffer", "-p")
	x.awaits("› ping two", "lines")
	x.keys("Enter")
	x.awaits("alice: pong two", "!› ping two")
	// 10 MB with escape sequences: the next answer comes, the window has its name.
	x.keys("-l", "hostile")
	x.keys("Enter")
	x.awaits("bytes shown]")
	x.keys("-l", "ping three")
	x.keys("Enter")
	x.awaits("alice: pong three")
	if title := x.do("display-message", "-p", "#{pane_title}"); strings.Contains(title, "owned") {
		t.Errorf("a stranger has named the window %q", title)
	}
	// Down to one column and back.
	for _, size := range [][2]string{{"1", "3"}, {"30", "5"}, {"80", "24"}} {
		x.do("resize-window", "-x", size[0], "-y", size[1])
	}
	x.awaits("○ bob", "alice: pong three")
	x.keys("C-n")
	x.awaits("I booked the table by the window ·")
	x.keys("C-c")
	x.awaits("left", "status 0", " echo", "!○ bob")
}

// fault: H5
func TestATerminalIsRestoredAfterASignal(t *testing.T) {
	if testing.Short() {
		t.Skip("starts tmux")
	}
	x := inTmux(t, "60", "20")
	x.awaits("running it now")
	x.keys("-l", "a draft")
	x.awaits("a draft")
	shell := strings.TrimSpace(x.do("display-message", "-p", "#{pane_pid}"))
	out, err := exec.Command("pgrep", "-P", shell).Output()
	if err != nil {
		t.Fatalf("the program under %s: %v", shell, err)
	}
	if err := exec.Command("kill", "-TERM", strings.TrimSpace(string(out))).Run(); err != nil {
		t.Fatal(err)
	}
	x.awaits("stopped", "status 143", " echo", "!○ bob")
}
