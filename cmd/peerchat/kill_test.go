//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
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

// way carries a connection to a process that may be another one each time, and so
// many bytes to it in all that a test allows. Then it stands still, at the same
// byte however busy the machine is.
type way struct {
	l  net.Listener
	wg sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond
	to      string // the process there
	left    int64
	carried int64
	cuts    int // what was under way before the last one goes nowhere
	closed  bool
	spent   chan struct{} // left is 0
}

func newWay(t *testing.T) *way {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &way{l: l, spent: make(chan struct{}, 1)}
	w.changed = sync.NewCond(&w.mu)
	w.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.wg.Go(func() { w.carry(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.mu.Lock()
		w.closed = true
		w.mu.Unlock()
		w.changed.Broadcast()
		w.wg.Wait() // the processes are gone: their cleanups come first
	})
	return w
}

// carry ends with either side.
func (w *way) carry(c net.Conn) {
	defer c.Close()
	w.mu.Lock()
	to, cuts := w.to, w.cuts
	w.mu.Unlock()
	there, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer there.Close()
	w.wg.Go(func() {
		_, _ = io.Copy(c, there)
		_ = c.Close()
	})
	buf := make([]byte, 32<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		for b := buf[:n]; len(b) > 0; {
			k := w.take(len(b), cuts)
			if _, err := there.Write(b[:k]); err != nil || k == 0 {
				return
			}
			b = b[k:]
		}
	}
}

// take returns how many of n bytes may go on; it waits for one. 0: it is over,
// or was cut since.
func (w *way) take(n, cuts int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.left == 0 && !w.closed && cuts == w.cuts {
		w.changed.Wait()
	}
	if cuts != w.cuts {
		return 0
	}
	k := min(w.left, int64(n))
	w.carried += k
	if w.left -= k; w.left == 0 && k > 0 {
		w.spent <- struct{}{}
	}
	return int(k)
}

// allow has n more bytes carried.
func (w *way) allow(n int64) {
	w.mu.Lock()
	w.left += n
	w.mu.Unlock()
	w.changed.Broadcast()
}

// cut ends what is under way: bytes of a process that was killed would use up
// what the next one is allowed.
func (w *way) cut() {
	w.mu.Lock()
	w.cuts++
	w.mu.Unlock()
	w.changed.Broadcast()
}

// leads has the way lead to where a receiver listens.
func (w *way) leads(ready map[string]any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to = ready["tcp"].([]any)[0].(string)
}

// fault: H2, I1
// Either side is killed ten times in the middle of a file, each time started
// again, and the file arrives whole. $PEERCHAT_KILL_MIB sets its size.
func TestKilledAtAnyMomentGoesOn(t *testing.T) {
	const kills = 10
	size := int64(killMiB()) << 20
	dir := t.TempDir()
	source, into := filepath.Join(dir, "large.bin"), filepath.Join(dir, "received")
	if _, err := makeFile(source, demoFile{"large.bin", size}); err != nil {
		t.Fatal(err)
	}
	w := newWay(t)
	var device string
	receive := func() *killed {
		bob := spawn(t, "receive", "--json", "--accept", "always", "--local", "off", "--tcp", "127.0.0.1:0", "--account", filepath.Join(dir, "bob"), into)
		ready := bob.step(t, "ready")
		device = ready["device"].(string)
		w.leads(ready)
		return bob
	}
	bob := receive()
	send := func() *killed {
		return spawn(t, "send", "--json", "--local", "off", "--account", filepath.Join(dir, "alice"), device+"@"+w.l.Addr().String(), source)
	}
	alice, began := send(), time.Now()
	seed := began.UnixNano()
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	for i := range kills {
		// Always enough for both to agree, and never in all for the whole file.
		w.allow(1<<20 + rng.Int64N(size/(kills+1)-1<<20))
		select {
		case <-w.spent:
		case <-time.After(time.Minute):
			t.Fatalf("the file does not go on before kill %d of %d (seed %d)", i, kills, seed)
		}
		if rng.IntN(2) == 0 {
			alice.kill()
			w.cut()
			alice = send()
		} else {
			bob.kill()
			w.cut()
			bob = receive()
		}
	}
	if _, err := os.Lstat(filepath.Join(into, "large.bin")); err == nil {
		t.Errorf("it has its name before all has been sent (seed %d)", seed)
	}
	w.allow(1 << 50)
	if sent := alice.step(t, "sent"); sent["ok"] != true {
		t.Fatalf("the sender ended with %v (seed %d)", sent, seed)
	}
	took := time.Since(began)
	arrived(t, source, into, seed)
	w.mu.Lock()
	carried := w.carried
	w.mu.Unlock()
	t.Logf("%d MiB with %d kills took %v, %.0f MB/s; %d MiB were carried", size>>20, kills, took.Round(time.Millisecond), float64(size)/1e6/took.Seconds(), carried>>20)
}

// arrived checks that the file is there, whole and alone.
func arrived(t *testing.T, source, into string, seed int64) {
	t.Helper()
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
}

func killMiB() int {
	if mib, err := strconv.Atoi(os.Getenv("PEERCHAT_KILL_MIB")); err == nil {
		return mib
	}
	return 64
}
