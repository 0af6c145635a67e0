//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// killed is a peerchat process that a test kills.
type killed struct {
	cmd  *exec.Cmd
	out  *bufio.Scanner
	done chan error
}

func spawn(t *testing.T, args ...string) *killed {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	k := &killed{cmd: exec.Command(exe, args...), done: make(chan error, 1)}
	k.cmd.Env = append(os.Environ(), runMainEnv+"=1", noDaemonEnv+"=1")
	k.cmd.Stderr = os.Stderr
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	k.out = bufio.NewScanner(out)
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.kill)
	return k
}

// kill is kill -9, and waits.
func (k *killed) kill() {
	if k.cmd.ProcessState == nil {
		_ = k.cmd.Process.Kill()
		_ = k.cmd.Wait()
	}
}

// step reads lines until one of that step.
func (k *killed) step(t *testing.T, step string) (line map[string]any) {
	t.Helper()
	for k.out.Scan() {
		line = nil
		if json.Unmarshal(k.out.Bytes(), &line) == nil && line["step"] == step {
			return line
		}
	}
	t.Fatalf("a process ended before it said %s", step)
	return nil
}

// fault: H2, I1
// Either side is killed ten times in the middle of a file, each time started
// again, and the file arrives whole. $PEERCHAT_KILL_MIB sets its size.
func TestKilledAtAnyMomentGoesOn(t *testing.T) {
	const kills = 10
	mib := killMiB()
	dir := t.TempDir()
	source, into := filepath.Join(dir, "large.bin"), filepath.Join(dir, "received")
	if _, err := makeFile(source, demoFile{"large.bin", int64(mib) << 20}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String() // the receiver's, each time
	l.Close()
	receive := func() *killed {
		return spawn(t, "receive", "--json", "--local", "off", "--tcp", addr, "--account", filepath.Join(dir, "bob"), into)
	}
	bob := receive()
	device := bob.step(t, "ready")["device"].(string)
	send := func() *killed {
		return spawn(t, "send", "--json", "--local", "off", "--account", filepath.Join(dir, "alice"), device+"@"+addr, source)
	}
	alice, began := send(), time.Now()
	seed := began.UnixNano()
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	for i := range kills {
		at := int64(mib) << 20 * int64(i) / (kills + 1)
		at += rng.Int64N(int64(mib) << 20 / (kills + 1) / 2)
		if !grown(t, into, at) {
			t.Fatalf("it was there before kill %d of %d (seed %d)", i, kills, seed)
		}
		if rng.IntN(2) == 0 {
			alice.kill()
			alice = send()
		} else {
			bob.kill()
			bob = receive()
		}
	}
	sent := alice.step(t, "sent")
	took := time.Since(began)
	if sent["ok"] != true {
		t.Fatalf("the sender ended with %v (seed %d)", sent, seed)
	}
	want, err := hashFile(source)
	if err != nil {
		t.Fatal(err)
	}
	got, err := hashFile(filepath.Join(into, "large.bin"))
	if err != nil || got.SHA256 != want.SHA256 {
		t.Fatalf("%v: it is %s, and was %s (seed %d)", err, got.SHA256, want.SHA256, seed)
	}
	if names, _ := os.ReadDir(into); len(names) != 1 {
		t.Errorf("there are %v (seed %d)", names, seed)
	}
	t.Logf("%d MiB with %d kills took %v, %.0f MB/s", mib, kills, took.Round(time.Millisecond), float64(mib)*1.048576/took.Seconds())
}

func killMiB() int {
	if mib, err := strconv.Atoi(os.Getenv("PEERCHAT_KILL_MIB")); err == nil {
		return mib
	}
	return 64
}

// grown waits until the incomplete file has so many bytes; false if it is
// complete.
func grown(t *testing.T, dir string, size int64) bool {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) { // another process writes it
		if _, err := os.Stat(filepath.Join(dir, "large.bin")); err == nil {
			return false
		}
		var there int64
		_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
			if err == nil && strings.HasPrefix(e.Name(), ".peerlink-part-") && !strings.HasSuffix(e.Name(), ".state") {
				if st, err := e.Info(); err == nil {
					there = st.Size()
				}
			}
			return nil
		})
		if there > size {
			return true
		}
	}
	t.Fatal("the file does not grow")
	return false
}
