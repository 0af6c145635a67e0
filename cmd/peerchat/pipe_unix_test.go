//go:build linux || darwin

package main

import (
	"bufio"
	"bytes"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// joining is a pipe whose notes are read line by line.
type joining struct {
	cmd   *exec.Cmd
	notes *bufio.Reader
	out   bytes.Buffer
	in    io.Closer
}

// pipe begins a pipe, whose input stays open, and returns its first note.
func (h *house) pipe(name string, args ...string) (j *joining, first string) {
	h.t.Helper()
	j = &joining{cmd: h.command(name, append([]string{"pipe"}, args...)...)}
	j.cmd.Stdout = &j.out
	notes, err1 := j.cmd.StderrPipe()
	in, err2 := j.cmd.StdinPipe()
	if err1 != nil || err2 != nil {
		h.t.Fatal(err1, err2)
	}
	j.in, j.notes = in, bufio.NewReader(notes)
	if err := j.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if j.cmd.ProcessState == nil {
			_ = j.cmd.Process.Kill()
			_ = j.cmd.Wait()
		}
	})
	return j, j.note()
}

// note returns the next line of standard error, "" after the last one.
func (j *joining) note() string {
	line, _ := j.notes.ReadString('\n')
	return line
}

func TestAPipeThatListensSaysHowToJoinIt(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	h := newHouse(t)
	bob, _ := h.daemon("bob")
	alice, _ := h.daemon("alice")
	there, said := h.pipe("bob", "--listen", "--name", "log", "--from", alice)
	if want := "peerchat pipe --name log " + bob; !strings.Contains(said, want) {
		t.Fatalf("it says %q, want %q", said, want)
	}
	here, said := h.pipe("alice", "--name", "log", bob) // as it said
	if !strings.Contains(said, "joined to ") {
		t.Fatalf("the other one says %q", said)
	}
	_, _ = here.in.Close(), there.in.Close()
	if err := here.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if err := there.cmd.Wait(); err != nil || there.out.Len() > 0 {
		t.Errorf("%v; standard output has %q", err, &there.out)
	}
}

// The first device has the pipe even before the command takes it, so that the
// second one is never let in.
func TestTheSecondOfTwoThatJoinAPipeAtOnceIsToldSo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	h := newHouse(t)
	bob, _ := h.daemon("bob")
	_, _ = h.daemon("alice")
	_, _ = h.daemon("carol")
	there, _ := h.pipe("bob", "--listen", "--anyone")
	_ = there.cmd.Process.Signal(syscall.SIGSTOP)
	first, said := h.pipe("alice", bob)
	if !strings.Contains(said, "joined to ") {
		t.Fatalf("the first says %q", said)
	}
	second, said := h.pipe("carol", bob)
	if strings.Contains(said, "joined") || !strings.Contains(said, "already taken by another device") {
		t.Errorf("the second says %q", said)
	}
	if err := second.cmd.Wait(); err == nil || second.cmd.ProcessState.ExitCode() != exitFailure {
		t.Errorf("the second ends with %v", err)
	}
	_ = there.cmd.Process.Signal(syscall.SIGCONT)
	_, _ = first.in.Close(), there.in.Close()
	if err1, err2 := first.cmd.Wait(), there.cmd.Wait(); err1 != nil || err2 != nil {
		t.Errorf("the first ends with %v, the pipe with %v", err1, err2)
	}
}
