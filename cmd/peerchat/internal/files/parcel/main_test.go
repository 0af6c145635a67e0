package parcel

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"peerlink/cmd/peerchat/internal/files/inbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var alice = Peer{ID: "alice"}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b)
	return b
}

// files writes files below a new folder and returns it.
func files(t testing.TB, content map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range content {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// listing is what there is below a folder: nil for a folder.
func listing(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	got := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if got[filepath.ToSlash(name)] = nil; e.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path)
		got[filepath.ToSlash(name)] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// holds checks that a folder has these files, and but for folders nothing else.
func holds(t testing.TB, dir string, want map[string][]byte) {
	t.Helper()
	got := listing(t, dir)
	for name, b := range want {
		if have, there := got[name]; !there || !bytes.Equal(have, b) {
			t.Errorf("%q has %d bytes (there: %v), want %d", name, len(have), there, len(b))
		}
	}
	for name, b := range got {
		if _, wanted := want[name]; !wanted && b != nil {
			t.Errorf("%q is there, too", name)
		}
	}
}

// receiver is a Receiver in a folder, with what it was told.
type receiver struct {
	*Receiver
	t      testing.TB
	dir    string
	memory string // file of the folder's memory

	mu     sync.Mutex
	events []Event
	conns  []net.Conn
	wg     sync.WaitGroup
	errs   []error
	// link makes the two ends of a channel; nil: net.Pipe.
	link func() (net.Conn, net.Conn)
}

func newReceiver(t testing.TB, cfg Config) *receiver {
	t.Helper()
	r := &receiver{t: t, dir: t.TempDir(), memory: filepath.Join(t.TempDir(), "received")}
	r.start(cfg)
	t.Cleanup(r.stop)
	return r
}

// start opens the folder, as after a restart of the process.
func (r *receiver) start(cfg Config) {
	folder, err := inbox.Open(r.dir)
	if err == nil {
		err = folder.Remember(r.memory)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	cfg.Folder = folder
	r.Receiver = NewReceiver(cfg)
}

func (r *receiver) watch(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) < 10_000 {
		r.events = append(r.events, e)
	}
}

// stop ends all channels and waits.
func (r *receiver) stop() {
	r.mu.Lock()
	for _, c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
	r.cfg.Folder.Close()
}

// open is a SendConfig.Open.
func (r *receiver) open(context.Context, string) (net.Conn, error) { return r.openAs(alice) }

// openAs opens a channel of a peer.
func (r *receiver) openAs(from Peer) (net.Conn, error) {
	link := r.link
	if link == nil {
		link = net.Pipe
	}
	a, b := link()
	if b == nil {
		return nil, errors.New("no way to the device")
	}
	r.mu.Lock()
	r.conns = append(r.conns, b)
	r.mu.Unlock()
	r.wg.Go(func() {
		_, err := r.Serve(context.Background(), b, from, r.watch)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.errs = append(r.errs, err)
	})
	return a, nil
}

func (r *receiver) of(k EventKind) (es []Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Kind == k {
			es = append(es, e)
		}
	}
	return es
}

// cutting is an end of a channel that dies after so many bytes, both ways added.
type cutting struct {
	net.Conn
	left *atomic.Int64
}

var errCut = errors.New("cut by the test")

func (c cutting) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && c.left.Add(-int64(n)) < 0 {
		c.Close()
		return 0, errCut
	}
	return n, err
}

func (c cutting) Write(p []byte) (int, error) {
	if left := c.left.Add(-int64(len(p))); left < 0 {
		n, _ := c.Conn.Write(p[:max(0, int64(len(p))+left)])
		c.Close()
		return n, errCut
	}
	return c.Conn.Write(p)
}

func cutAfter(n int64) func() (net.Conn, net.Conn) {
	return func() (net.Conn, net.Conn) {
		a, b := net.Pipe()
		left := &atomic.Int64{}
		left.Store(n)
		return cutting{a, left}, b
	}
}
