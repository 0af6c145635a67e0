package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fault: G1
func TestBenchLeavesNothingWhenItIsKilled(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			dir, err := os.MkdirTemp("", "b") // short, as a socket's path must be
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			cmd := exec.Command(os.Args[0], "bench", "--json", "--carrier", "shm", "--only", "raw-64KiB|raw-trip-p50", "--seconds", "0.01", "--rounds", "1000")
			cmd.Env = append(os.Environ(), runMainEnv+"=1", "TMPDIR="+dir)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			kill := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
			defer kill.Stop()
			var children map[int]string
			for deadline := time.Now().Add(20 * time.Second); len(children) == 0 && time.Now().Before(deadline); {
				children = childrenOf(t, cmd.Process.Pid)
				for pid, args := range children {
					if !strings.Contains(args, "bench far-end") { // not yet what it is to be
						delete(children, pid)
					}
				}
			}
			if len(children) != 1 {
				t.Fatalf("children: %v", children)
			}
			_ = cmd.Process.Signal(sig)
			for s := bufio.NewScanner(out); s.Scan(); {
			}
			err = cmd.Wait()
			if sig != syscall.SIGKILL && cmd.ProcessState.ExitCode() != exitSignal+int(sig) {
				t.Errorf("ended with %v", err)
			}
			awaitGone(t, children)
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}
