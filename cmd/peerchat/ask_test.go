package main

import (
	"os/exec"
	"strings"
	"testing"
)

// A code is asked for on a terminal, with Tab for the rest of a word, and the
// terminal is as before after it, be it that nothing was typed.
//
// fault: H5
func TestACodeIsAskedForOnATerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("starts tmux and a daemon")
	}
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("NOT TESTED: a code that is typed on a real terminal needs tmux")
	}
	h := newHouse(t)
	_, _ = h.daemon("alice")
	p := h.pane("alice", "contacts accept")
	p.awaits("Code:")
	p.tmux("send-keys", "-t", "alice", "-l", "7-ambi")
	p.tmux("send-keys", "-t", "alice", "Tab")
	p.awaits("Code: 7-ambient-")
	p.says("mango")
	p.awaits("Code: 7-ambient-mango", "invite codes need nodes", "status 1", " echo", "! -echo")

	p = h.pane("bob", "device sign") // without a daemon, and none is started
	p.awaits("Code:")
	p.tmux("send-keys", "-t", "bob", "C-c")
	p.awaits("no code was typed", "status 1", " echo", "! -echo")
	if out, err := h.command("bob", "status").CombinedOutput(); err == nil || !strings.Contains(string(out), "no daemon runs") {
		t.Errorf("after that the status is %q, %v", out, err)
	}
}

// The doctor's drawing has colours where there is a terminal, and nowhere else.
func TestTheDoctorDrawsInColourOnATerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("starts tmux and daemons")
	}
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("NOT TESTED: the doctor on a real terminal needs tmux")
	}
	h := newHouse(t)
	_, _ = h.daemon("alice")
	bob, _ := h.daemon("bob")
	p := h.pane("alice", "doctor "+bob)
	p.awaits("● this device", "status 0")
	const green = "\x1b[32m●"
	if got := p.tmux("capture-pane", "-e", "-p", "-S", "-", "-t", "alice"); strings.Count(got, green) != 2 {
		t.Errorf("on a terminal it is\n%q", got)
	}
	if got := h.run("alice", "doctor", bob); !strings.Contains(got, "● this device") || strings.Contains(got, "\x1b") {
		t.Errorf("elsewhere it is\n%q", got)
	}
}
