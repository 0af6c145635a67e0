package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// case: S18
func TestAForwardIsForItsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can be another user")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Second))
	host, port, _ := net.SplitHostPort(l.Addr().String())
	from := func(uid uint32) net.Conn {
		t.Helper()
		cmd := exec.Command("bash", "-c", `exec 3<>"/dev/tcp/$0/$1"; read -r -u 3`, host, port)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	var said bytes.Buffer
	f := &forwarder{note: &said}
	take := f.ours(l)
	if _, ok := take(t.Context(), from(0)); !ok {
		t.Error("the user's own program is refused")
	}
	for range 3 {
		if _, ok := take(t.Context(), from(65534)); ok {
			t.Error("another user's program is taken")
		}
	}
	if got := said.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "user 65534") || !strings.Contains(got, "--all-users") {
		t.Errorf("said %q, want one line", got)
	}
	f.allUsers = true
	if f.ours(l) != nil {
		t.Error("--all-users refuses some")
	}
}
