//go:build linux || darwin

package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lasting are commands that go on until something ends them.
func lasting(bob, into string) map[string][]string {
	return map[string][]string{
		"receive": {"receive", "--json", into},
		"forward": {"forward", "-L", "0:127.0.0.1:1", bob},
		"serve":   {"serve", "--json", "--anyone", into},
		"browse":  {"browse", "--json", bob},
		"status":  {"status", "--json", "--watch", "--every", "100ms"},
	}
}

// Whatever follows the daemon says that it has ended and what to do, and ends
// with the status for that.
func TestCommandsEndWithTheDaemonAndSayWhy(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	h := newHouse(t)
	bob, _ := h.daemon("bob")
	for how, want := range map[syscall.Signal]string{syscall.SIGTERM: "as it was told to", syscall.SIGKILL: "as if killed"} {
		_, _ = h.daemon("alice")
		var pid int
		if _, err := fmt.Sscanf(h.run("alice", "status", "--json"), `{"pid":%d`, &pid); err != nil {
			t.Fatal(err)
		}
		running := map[string]*began{}
		for name, args := range lasting(bob, t.TempDir()) {
			if how == syscall.SIGTERM || name == "receive" { // what is not said is the same for all
				running[name] = h.begin("alice", args...)
			}
		}
		// A pipe prints nothing on standard output.
		pipe := h.command("alice", "pipe", "--listen", "--anyone")
		var said strings.Builder
		pipe.Stderr = &said
		if err := pipe.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); !strings.Contains(h.run("alice", "status"), "pipe://"); {
			if time.Now().After(deadline) {
				t.Fatal("no pipe listens")
			}
		}
		if err := syscall.Kill(pid, how); err != nil {
			t.Fatal(err)
		}
		for name, b := range running {
			if got := b.ends(); got != exitDaemon || !strings.Contains(b.err.String(), "the daemon has ended") || strings.Contains(b.err.String(), "EOF") {
				t.Errorf("%v: %s ended with %d, want %d: %s", how, name, got, exitDaemon, &b.err)
			}
			if name != "status" && !strings.Contains(b.err.String(), want) {
				t.Errorf("%v: %s says %s", how, name, &b.err)
			}
		}
		_ = pipe.Wait()
		if got := pipe.ProcessState.ExitCode(); got != exitDaemon || !strings.Contains(said.String(), want) {
			t.Errorf("%v: pipe ended with %d: %s", how, got, &said)
		}
	}
}

// A forward from there is asked for again when the other daemon was away.
func TestAForwardFromThereComesBack(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	h := newHouse(t)
	alice, _ := h.daemon("alice")
	bob, stop := h.daemon("bob")
	h.run("bob", "forward", "allow", "--listen", alice, "127.0.0.1:*")
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	go func() {
		for {
			c, err := web.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "from the web")
			_ = c.Close()
		}
	}()
	f := h.begin("alice", "forward", "-R", "127.0.0.1:0:"+web.Addr().String(), bob)
	at, _, _ := strings.Cut(f.first, " at ")
	answers(t, at)

	stop()
	_, _ = h.daemon("bob")
	line, err := f.out.ReadString('\n') // it says so when it is there again
	again, _, told := strings.Cut(line, " at ")
	if err != nil || !told {
		t.Fatalf("it says %q, %v", line, err)
	}
	answers(t, again) // the same one as a rule, but any program may have taken that meanwhile
	_ = f.cmd.Process.Signal(syscall.SIGTERM)
	if got := f.ends(); got != 143 || !strings.Contains(f.err.String(), "listens on "+at+" no more") {
		t.Errorf("it ended with %d, and said %s", got, &f.err)
	}
}

func answers(t *testing.T, at string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", at, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if got, err := io.ReadAll(c); err != nil || string(got) != "from the web" {
		t.Fatalf("%s answers %q, %v", at, got, err)
	}
}
