//go:build linux || darwin

package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// began is a command that has printed its first line.
type began struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
	end io.Closer // of its standard output, this side
	err bytes.Buffer

	first string // its first line
}

// begin starts a command of an account and waits for its first line.
func (h *house) begin(name string, args ...string) *began {
	h.t.Helper()
	b := &began{t: h.t, cmd: h.command(name, args...)}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	b.end, b.out, b.cmd.Stderr = out, bufio.NewReader(out), &b.err
	in, err := b.cmd.StdinPipe() // open, and silent
	if err == nil {
		err = b.cmd.Start()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		_ = in.Close()
		if b.cmd.ProcessState == nil {
			_ = b.cmd.Process.Kill()
			_ = b.cmd.Wait()
		}
	})
	if b.first, err = b.out.ReadString('\n'); err != nil {
		_ = b.cmd.Wait()
		h.t.Fatalf("%q printed %q, then %v; %s", args, b.first, err, &b.err)
	}
	return b
}

// ends waits for the end, and returns the status as a shell has it: that of exit,
// or 128 and the signal's number.
func (b *began) ends() int {
	b.t.Helper()
	late := time.AfterFunc(10*time.Second, func() {
		b.t.Errorf("%q does not end", b.cmd.Args[1:])
		_ = b.cmd.Process.Kill()
	})
	defer late.Stop()
	_, _ = io.Copy(io.Discard, b.out)
	err := b.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	ws := b.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return exitSignal + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// fault: H5
func TestSignalsEndCommandsAsDocumented(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	h := newHouse(t)
	bobID, _ := h.daemon("bob")
	_, _ = h.daemon("alice")
	for _, args := range [][]string{
		{"listen", "--json"},
		{"forward", "-L", "0:127.0.0.1:1", bobID},
		{"status", "--watch", "--json"},
	} {
		for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
			b := h.begin("alice", args...)
			if err := b.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if got := b.ends(); got != want || b.err.Len() > 0 {
				t.Errorf("%q ended with %d after %v, want %d; it said %q", args, got, sig, want, &b.err)
			}
		}
	}
	// The daemon itself, and one that is in a hurry: the second Ctrl-C ends it at
	// once if the first has not by then.
	carol := h.begin("carol", "run", "--json")
	_ = carol.cmd.Process.Signal(syscall.SIGINT)
	_ = carol.cmd.Process.Signal(syscall.SIGINT)
	if got := carol.ends(); got != 130 {
		t.Errorf("after two Ctrl-C: %d", got)
	}
	// What it held is free, whichever of the two ended it.
	if _, stop := h.daemon("carol"); true {
		stop()
	}
}

// The other end of a channel learns that the command has ended, and does not take
// that for a failure of this program.
func TestAHangUpEndsACommandAsOtherSignalsDo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	caught := make(chan os.Signal, 1) // what a test catches, its commands do not inherit as ignored, also under nohup
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	h := newHouse(t)
	_, _ = h.daemon("alice")
	for name, args := range map[string][]string{"listen": {"listen", "--json"}, "status": {"status", "--watch", "--json"}} {
		b := h.begin("alice", args...)
		_ = b.cmd.Process.Signal(syscall.SIGHUP)
		if got, exited := b.ends(), b.cmd.ProcessState.Exited(); got != exitSignal+int(syscall.SIGHUP) || !exited || b.err.Len() > 0 {
			t.Errorf("%s: %d, by itself: %v; it said %q", name, got, exited, &b.err)
		}
	}
	signal.Ignore(syscall.SIGHUP) // which a command inherits, as under nohup
	b := h.begin("alice", "listen", "--json")
	signal.Reset(syscall.SIGHUP)
	_ = b.cmd.Process.Signal(syscall.SIGHUP)
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	if got := b.ends(); got != exitSignal+int(syscall.SIGTERM) {
		t.Errorf("under nohup: %d", got)
	}
}

// fault: H5
func TestClosedOutputEndsACommandAndNotTheDaemon(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	h := newHouse(t)
	id, _ := h.daemon("alice")
	b := h.begin("alice", "status", "--watch", "--every", "100ms")
	_ = b.end.Close() // as head does
	if got, want := b.ends(), exitSignal+int(syscall.SIGPIPE); got != want || b.err.Len() > 0 {
		t.Errorf("it ended with %d, want %d as all programs; it said %q", got, want, &b.err)
	}
	if out := h.run("alice", "status"); !strings.Contains(out, id) {
		t.Errorf("the daemon says %q", out)
	}
}
