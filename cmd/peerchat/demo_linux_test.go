package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startDemo runs the demo as a process of its own. These tests find its
// children by /proc, which only Linux has.
func startDemo(t *testing.T) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), demoTimeout)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], "demo", "--json")
	cmd.Env = append(os.Environ(), runMainEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// childrenOf returns the processes that a process started, by their arguments.
func childrenOf(t *testing.T, pid int) map[int]string {
	t.Helper()
	found := map[int]string{}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		for s := range strings.FieldsSeq(string(b)) {
			child, _ := strconv.Atoi(s)
			args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child))
			found[child] = string(bytes.ReplaceAll(args, []byte{0}, []byte{' '}))
		}
	}
	return found
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// awaitGone waits for processes that are not this one's to end.
func awaitGone(t *testing.T, pids map[int]string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for pid, args := range pids {
		for alive(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("still there: %d %s", pid, args)
			}
			time.Sleep(5 * time.Millisecond) // they are not our children: there is nothing to wait on
		}
	}
}

func TestDemoNamesTheStepThatABrokenPeerFails(t *testing.T) {
	cmd, out := startDemo(t)
	var last line
	var children map[int]string
	failed := ""
	for out.Scan() {
		if err := json.Unmarshal(out.Bytes(), &last); err != nil {
			t.Fatalf("%s: %v", out.Bytes(), err)
		}
		if last.Step == "bob up" {
			children = childrenOf(t, cmd.Process.Pid)
			for pid, args := range children {
				if strings.Contains(args, " listen ") {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
		if !last.OK && failed == "" {
			failed = last.Step + ": " + last.Error
		}
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitFailure {
		t.Errorf("ended with %v, want status 1", err)
	}
	if failed == "" || last.Step != "summary" || last.OK {
		t.Errorf("failed step %q, last line %+v", failed, last)
	}
	if len(children) == 0 {
		t.Fatal("no child was seen")
	}
	awaitGone(t, children)
}

func TestDemoLeavesNoProcessWhenItIsKilled(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			cmd, out := startDemo(t)
			var children map[int]string
			for out.Scan() {
				var l line
				_ = json.Unmarshal(out.Bytes(), &l)
				if l.Step == "bob up" {
					children = childrenOf(t, cmd.Process.Pid)
					_ = cmd.Process.Signal(sig)
				}
			}
			err := cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || (sig == syscall.SIGTERM && exit.ExitCode() != exitSignal+int(sig)) {
				t.Errorf("ended with %v", err)
			}
			if len(children) == 0 {
				t.Fatal("no child was seen")
			}
			awaitGone(t, children)
		})
	}
}
