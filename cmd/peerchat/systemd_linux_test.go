package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A socket that systemd holds starts the daemon with the first connection, and
// outlives it.
func TestSystemdsSocketStartsTheDaemon(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	activate, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("NOT TESTED: socket activation needs systemd-socket-activate")
	}
	h := newHouse(t)
	device := strings.Fields(h.run("alice", "init"))[0]
	path := filepath.Join(h.dir, "control.sock")
	run := h.command("alice", "run")
	args := []string{"--listen=" + path}
	for _, v := range run.Env {
		args = append(args, "--setenv="+v)
	}
	cmd := exec.CommandContext(h.ctx, activate, append(args, run.Args...)...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	var conn net.Conn
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { // another process makes it
		if conn, err = net.Dial("unix", path); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	defer conn.Close()
	// It was started by that, and says where its socket is.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if where, err := os.ReadFile(filepath.Join(h.account("alice"), "control")); err == nil && strings.TrimSpace(string(where)) == path {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no daemon was started")
		}
	}
	if out := h.run("alice", "status"); !strings.Contains(out, device) {
		t.Errorf("it says %q", out)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM) // it is the daemon by now
	<-ended
	if got := cmd.ProcessState.ExitCode(); got != 143 {
		t.Errorf("it ended with %d: %s", got, &said)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("systemd's socket is gone: %v", err)
	}
}

func TestSystemdFindsNothingWrongWithTheUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("NOT TESTED: the units need systemd-analyze to be verified")
	}
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	units, err := filepath.Glob("../../packaging/systemd/peerchat.*")
	if err != nil || len(units) != 2 {
		t.Fatalf("%q, %v", units, err)
	}
	args := []string{"verify", "--user", "--man=no"}
	for _, u := range units {
		text, err := os.ReadFile(u)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(u, ".service") && !bytes.Contains(text, []byte("\nExecStart=/usr/bin/peerchat ")) {
			t.Fatalf("%s starts something else", u)
		}
		text = bytes.ReplaceAll(text, []byte("/usr/bin/peerchat"), []byte(exe)) // which is not installed here
		to := filepath.Join(dir, filepath.Base(u))
		if err := os.WriteFile(to, text, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, to)
	}
	cmd := exec.Command(analyze, args...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir, "HOME="+dir)
	if out, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}
