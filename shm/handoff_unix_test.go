//go:build linux || darwin

package shm

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"peerlink/identity"
	"peerlink/internal/ring"
)

// sockets returns both ends of a Unix socket.
func sockets(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	loc := newLocal(t)
	a, _, err := loc.DialUnix(context.Background(), Service, someone)
	if err != nil {
		t.Fatal(err)
	}
	if b, _, err = loc.AcceptUnix(context.Background(), Service); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func defaults(t testing.TB) Config {
	t.Helper()
	cfg, err := Config{RegionSize: ring.MinSize}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// answerWith plays a callee that answers with bytes and descriptors of its own,
// and returns what the caller makes of it, and what it tells the callee.
func answerWith(t *testing.T, b []byte, fds ...int) (told string, err error) {
	t.Helper()
	x, y := sockets(t)
	toldc := make(chan string, 1)
	go func() {
		if _, err := io.ReadFull(y, make([]byte, headLen)); err != nil {
			toldc <- err.Error()
			return
		}
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		if _, _, err := y.WriteMsgUnix(b, rights, nil); err != nil {
			toldc <- err.Error()
			return
		}
		y.CloseWrite()
		said, _ := io.ReadAll(y)
		toldc <- string(said)
	}()
	regions, files := mappings()
	conn, err := defaults(t).ask(context.Background(), x, identity.Peer{})
	if err == nil {
		conn.Close()
	}
	if r, f := mappings(); r != regions || f > files {
		t.Errorf("%d regions and %d descriptors, %d and %d before", r, f, regions, files)
	}
	return <-toldc, err
}

// fault: G3, G5
func TestWhatACalleeSendsIsChecked(t *testing.T) {
	good := head{size: ring.MinSize}.encode()
	region, err := newRegion(ring.MinSize)
	if err != nil {
		t.Fatal(err)
	}
	defer region.Close()
	large, err := newRegion(2 * ring.MinSize)
	if err != nil {
		t.Fatal(err)
	}
	defer large.Close()
	unsealed, err := tempFile(t.TempDir(), ring.MinSize)
	if err != nil {
		t.Fatal(err)
	}
	defer unsealed.Close()
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fd := func(f *os.File) int { return int(f.Fd()) }
	flood := make([]int, 200)
	for i := range flood {
		flood[i] = fd(w)
	}
	for name, tt := range map[string]struct {
		bytes []byte
		fds   []int
		want  string
	}{
		"another protocol":    {[]byte("SSH-2.0-OpenSSH!"), nil, "does not speak"},
		"another version":     {append([]byte("PLSM\x00\x02"), good[6:]...), nil, "restart"},
		"no descriptors":      {good, nil, "0 descriptors"},
		"one descriptor":      {good, []int{fd(region)}, "1 descriptors"},
		"three descriptors":   {good, []int{fd(region), fd(theirs), fd(w)}, "more than 2 descriptors"},
		"a flood of them":     {good, flood, "more than 2 descriptors"},
		"a pipe for memory":   {good, []int{fd(r), fd(theirs)}, "no memory"},
		"a pipe for a socket": {good, []int{fd(region), fd(r)}, "no connected socket"},
		"another size":        {good, []int{fd(large), fd(theirs)}, "announced"},
		"more than asked":     {head{size: 2 * ring.MinSize}.encode(), []int{fd(large), fd(theirs)}, "asked for"},
		"huge":                {head{size: 1 << 40}.encode(), []int{fd(region), fd(theirs)}, "bytes announced"},
		"a long reason":       {head{reason: 201}.encode(), nil, "at most 200"},
		"a reason":            {append(head{reason: 7}.encode(), "no room"...), nil, `refused: "no room"`},
		"half an answer":      {good[:9], []int{fd(region), fd(theirs)}, "closed during the set-up"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := answerWith(t, tt.bytes, tt.fds...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q in it", err, tt.want)
			}
		})
	}
	if regionMayShrink {
		return
	}
	told, err := answerWith(t, good, fd(unsealed), fd(theirs))
	if err == nil || !strings.Contains(err.Error(), "seal") || !strings.Contains(told, "seal") {
		t.Errorf("unsealed memory: %v; the callee is told %q", err, told)
	}
}

// fault: G3
func TestOwnRegionCannotBeShrunk(t *testing.T) {
	if regionMayShrink {
		t.Skip("this system has no seals: see TestCutOffRegionIsAnError")
	}
	f, err := newRegion(ring.MinSize)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int64{0, ring.MinSize - 4096, ring.MinSize + 4096} {
		if err := f.Truncate(size); !errors.Is(err, unix.EPERM) {
			t.Errorf("truncate to %d: %v, want EPERM", size, err)
		}
	}
}

// A region without seals whose file is cut off under a running stream is an
// error of each call, not the end of the process.
//
// fault: G3
func TestCutOffRegionIsAnError(t *testing.T) {
	f, err := tempFile(t.TempDir(), ring.MinSize)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if es, _ := os.ReadDir(t.TempDir()); len(es) != 0 {
		t.Errorf("the file has a name: %v", es)
	}
	x1, y1 := sockets(t)
	x2, y2 := sockets(t)
	var ends [2]*Conn
	for i, s := range [][2]*net.UnixConn{{x1, x2}, {y2, y1}} {
		seg, err := mapSegment(f, ring.MinSize, true)
		if err != nil {
			t.Fatal(err)
		}
		if ends[i], err = assemble(seg, ring.Side(i), s[0], s[1], identity.Peer{}); err != nil {
			t.Fatal(err)
		}
	}
	a, b := ends[0], ends[1]
	if _, err := a.Write([]byte("before")); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 100)
	if n, err := b.Read(p); string(p[:n]) != "before" || err != nil {
		t.Fatalf("%q, %v", p[:n], err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(p); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Write: %v, want ErrCorrupt", err)
	}
	if _, err := b.Read(p); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Read: %v, want ErrCorrupt", err)
	}
	if _, err := a.WriteNow(p); !errors.Is(err, ErrCorrupt) {
		t.Errorf("WriteNow: %v, want ErrCorrupt", err)
	}
	if err := a.CloseWrite(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("CloseWrite: %v, want ErrCorrupt", err)
	}
	a.Close()
	b.Close()
}

// A peer that scribbles on the control block of a running stream gets
// ErrCorrupt, or its own bytes wrong; it stops nothing else.
//
// fault: G3
func TestScribblingPeerIsCorrupt(t *testing.T) {
	a, b := link(t, Config{RegionSize: ring.MinSize})
	for i := range 256 {
		b.seg.mem[i] = 0xa5
	}
	if _, err := a.Read(make([]byte, 10)); !errors.Is(err, ErrCorrupt) && err != io.EOF {
		t.Errorf("Read: %v", err)
	}
	if _, err := a.Write(make([]byte, 1<<20)); !errors.Is(err, ErrCorrupt) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write: %v", err)
	}
}

// A peer that rings all the time makes no deadline late and hides no end.
//
// fault: G3
func TestRingingPeerDelaysNothing(t *testing.T) {
	a, b := link(t, Config{RegionSize: ring.MinSize})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				b.out.bell.ring()
			}
		}
	}()
	a.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	start := time.Now()
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v, want a time-out", err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("the time-out came after %s", d)
	}
	close(stop)
	<-stopped
	a.SetReadDeadline(time.Time{})
	b.Close()
	if _, err := a.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v, want io.EOF", err)
	}
}

// offerWithoutRoom is a callee to which the system gives no memory: files may
// have 4 KiB at most.
func offerWithoutRoom(cfg Config, raw *net.UnixConn) error {
	signal.Ignore(syscall.SIGXFSZ)
	limit := unix.Rlimit{Cur: 4096, Max: 4096}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	_, err := cfg.offer(context.Background(), raw, identity.Peer{})
	if err == nil {
		return errors.New("there was room")
	}
	return stand("refused")
}

// fault: G4
func TestCallerLearnsThatThereIsNoRoom(t *testing.T) {
	loc := newLocal(t)
	h := startHelper(t, "poor", loc.path)
	raw, peer, err := loc.AcceptUnix(t.Context(), Service)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = defaults(t).ask(t.Context(), raw, peer); err == nil || !strings.Contains(err.Error(), "refused") || !strings.Contains(err.Error(), "shared memory") {
		t.Errorf("%v, want the callee's reason", err)
	}
	h.expect(t, "refused")
}

// fault: G4
func TestTemporaryFileNeedsAFolder(t *testing.T) {
	if _, err := tempFile(t.TempDir()+"/missing", ring.MinSize); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("%v, want an error that names the folder", err)
	}
}

// fault: G5
func TestCallerOfOtherVersionIsTold(t *testing.T) {
	x, y := sockets(t)
	go func() { defaults(t).offer(context.Background(), y, identity.Peer{}) }()
	x.Write([]byte("PLSM\x00\x09\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00"))
	_, _, err := receiveRegion(x)
	if err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("%v, want what to do", err)
	}
}

func TestSilentPeersTimeOut(t *testing.T) {
	cfg := defaults(t)
	cfg.HandshakeTimeout = 20 * time.Millisecond
	x, _ := sockets(t)
	if _, err := cfg.ask(context.Background(), x, identity.Peer{}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("caller: %v", err)
	}
	_, y := sockets(t)
	if _, err := cfg.offer(context.Background(), y, identity.Peer{}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("callee: %v", err)
	}
	cfg.HandshakeTimeout = -1
	ctx, cancel := context.WithCancel(context.Background())
	x, y = sockets(t)
	go func() {
		io.ReadFull(y, make([]byte, headLen))
		cancel()
	}()
	if _, err := cfg.ask(ctx, x, identity.Peer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func FuzzHead(f *testing.F) {
	f.Add(head{size: ring.MinSize}.encode())
	f.Add(head{reason: 7}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHead(b)
		if err != nil {
			return
		}
		if h.reason == 0 && (h.size < ring.MinSize || h.size > ring.MaxSize) || h.reason > maxReason {
			t.Fatalf("taken: %+v", h)
		}
		if again := h.encode(); string(again) != string(b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}
