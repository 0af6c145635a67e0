package shm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// fault: C7
func TestConnConforms(t *testing.T) {
	for _, cfg := range []Config{{}, {RegionSize: 64 << 10}} {
		nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
			a, b := link(t, cfg)
			return a, b, func() { a.Close(); b.Close() }, nil
		})
	}
}

func TestHalfCloseLeavesTheOtherHalf(t *testing.T) {
	a, b := link(t, Config{})
	if _, err := a.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); string(got) != "question" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a write after CloseWrite: %v", err)
	}
	if _, err := a.WriteNow([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("WriteNow after CloseWrite: %v", err)
	}
	b.Write([]byte("answer"))
	b.Close()
	if got, err := io.ReadAll(a); string(got) != "answer" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	a.Close()
	if err := a.CloseWrite(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("CloseWrite after Close: %v", err)
	}
}

// The end that closes has said its last; what it wrote before is read, and who
// writes to it is told.
func TestCloseEndsBothHalves(t *testing.T) {
	a, b := link(t, Config{RegionSize: 64 << 10})
	full := make([]byte, a.writer.Cap())
	if _, err := a.Write(full); err != nil {
		t.Fatal(err)
	}
	werr := make(chan error, 1)
	go func() {
		_, err := b.Write(make([]byte, 2*len(full))) // waits for room
		werr <- err
	}()
	for b.sleeps.Load() == 0 {
		runtime.Gosched()
	}
	a.Close()
	if err := <-werr; !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the waiting writer: %v, want EPIPE", err)
	}
	if got, err := io.ReadAll(b); len(got) != len(full) || err != nil {
		t.Errorf("%d of %d bytes, %v", len(got), len(full), err)
	}
	if n, err := a.Read(full); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: %d, %v", n, err)
	}
	if err := a.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("deadline after Close: %v", err)
	}
}

func TestWriteNowNeverWaits(t *testing.T) {
	a, b := link(t, Config{RegionSize: 64 << 10})
	size := a.writer.Cap()
	p := bytes.Repeat([]byte("x"), size+100)
	if n, err := a.WriteNow(p); n != size || err != nil {
		t.Errorf("%d, %v, want %d", n, err, size)
	}
	if n, err := a.WriteNow(p); n != 0 || err != nil {
		t.Errorf("into a full ring: %d, %v", n, err)
	}
	if _, err := io.ReadFull(b, p[:size]); err != nil {
		t.Fatal(err)
	}
	if n, err := a.WriteNow([]byte("word")); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := b.Read(p); string(p[:n]) != "word" || err != nil {
		t.Errorf("%q, %v", p[:n], err)
	}
	a.SetWriteDeadline(time.Unix(1, 0))
	if _, err := a.WriteNow([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	b.Close()
	a.SetWriteDeadline(time.Time{})
	if _, err := a.WriteNow(p[:1]); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("to a closed peer: %v", err)
	}
}

func TestStagedBytesGoWithTheNextWrite(t *testing.T) {
	a, b := link(t, Config{RegionSize: 64 << 10})
	p := bytes.Repeat([]byte("x"), a.writer.Cap())
	if a.Stage(p, p[:1]) || !a.Stage([]byte("he"), []byte("llo")) {
		t.Error("staged more than fits, or not what does")
	}
	if b.reader.Ready() {
		t.Error("the peer sees what is only staged")
	}
	for _, write := range []func([]byte) (int, error){a.WriteNow, a.Write} {
		if n, err := write(nil); n != 0 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if n, err := b.Read(p); string(p[:n]) != "hello" || err != nil {
			t.Errorf("%q, %v", p[:n], err)
		}
		if !a.Stage([]byte("he"), []byte("llo")) {
			t.Error("not staged")
		}
	}
	if err := a.CloseWrite(); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(b); string(got) != "hello" || err != nil {
		t.Errorf("before the end: %q, %v", got, err)
	}
	b.SetWriteDeadline(time.Unix(1, 0))
	if a.Stage(nil, p[:1]) || b.Stage(nil, p[:1]) {
		t.Error("staged after CloseWrite, or after the deadline")
	}
	b.SetWriteDeadline(time.Time{})
	a.Close()
	if a.Stage(nil, p[:1]) || b.Stage(nil, p[:1]) {
		t.Error("staged after Close, or for who has closed")
	}
}

// A Read that waits is woken by what was staged.
func TestStagedBytesWake(t *testing.T) {
	a, b := link(t, Config{})
	got := make(chan string, 1)
	go func() {
		p := make([]byte, 9)
		n, err := b.Read(p)
		got <- fmt.Sprint(string(p[:n]), err)
	}()
	for b.sleeps.Load() == 0 {
		runtime.Gosched()
	}
	if !a.Stage([]byte("h"), []byte("i")) {
		t.Error("not staged")
	}
	if n, err := a.WriteNow(nil); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if s := <-got; s != "hi<nil>" {
		t.Error(s)
	}
}

func TestNothingIsAllocatedOnTheWay(t *testing.T) {
	a, b := link(t, Config{})
	p, q := make([]byte, 4096), make([]byte, 8192)
	if n := testing.AllocsPerRun(1000, func() {
		a.Stage(p[:4], p[4:])
		a.Write(p)
		io.ReadFull(b, q)
	}); n != 0 {
		t.Errorf("%.1f allocations for a write and a read", n)
	}
}

// Both ends within one process: bytes of all sizes in both directions.
func TestBothDirectionsAtOnce(t *testing.T) {
	a, b := link(t, Config{RegionSize: 64 << 10})
	var wg sync.WaitGroup
	for _, way := range []struct{ from, to *Conn }{{a, b}, {b, a}} {
		wg.Go(func() { pour(t, way.from, 8<<20); way.from.CloseWrite() })
		wg.Go(func() {
			if n := drink(t, way.to); n != 8<<20 {
				t.Errorf("%d bytes came", n)
			}
		})
	}
	wg.Wait()
}

// pour writes total bytes of a known pattern in pieces of changing sizes.
func pour(t testing.TB, w io.Writer, total int) {
	p := make([]byte, 100<<10)
	for sent, step := 0, 1; sent < total; step++ {
		n := min(step*step*7919%len(p)+1, total-sent)
		for i := range n {
			p[i] = byte((sent + i) * 31 >> 4)
		}
		if _, err := w.Write(p[:n]); err != nil {
			t.Errorf("after %d bytes: %v", sent, err)
			return
		}
		sent += n
	}
}

// drink reads what pour wrote until the end and returns how much it was.
func drink(t testing.TB, r io.Reader) (got int) {
	p := make([]byte, 30<<10)
	for step := 1; ; step++ {
		n, err := r.Read(p[:step*104729%len(p)+1])
		for i, c := range p[:n] {
			if c != byte((got+i)*31>>4) {
				t.Errorf("byte %d is wrong", got+i)
				return got
			}
		}
		got += n
		if err != nil {
			if err != io.EOF {
				t.Errorf("after %d bytes: %v", got, err)
			}
			return got
		}
	}
}

func TestSizesAreNegotiated(t *testing.T) {
	loc := newLocal(t)
	l, err := Listen(Config{RegionSize: 1 << 20}, loc)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for want, cfg := range map[string]Config{
		"shm (1024 KiB)": {},
		"shm (64 KiB)":   {RegionSize: 65 << 10}, // whole pages
	} {
		a, b := linkOver(t, l, &Dialer{Local: loc, Config: cfg})
		if a.Path().String() != want || b.Path() != a.Path() || a.FrameSize() != 65535 {
			t.Errorf("%s and %s, want %s", a.Path(), b.Path(), want)
		}
	}
	for _, bad := range []int{-1, 1, 1<<30 + 1} {
		if _, err := Listen(Config{RegionSize: bad}, loc); err == nil {
			t.Errorf("a region of %d bytes was taken", bad)
		}
	}
}

func TestSpinningHasToPay(t *testing.T) {
	never, always := func() bool { return false }, func() bool { return true }
	s := spinner{cores: 2}
	for range 40 {
		s.wait(always, 0)
	}
	if s.budget != maxBudget {
		t.Errorf("after hits the budget is %s", s.budget)
	}
	for range 20 {
		s.parks = 1 // no probe
		if s.wait(never, 0) {
			t.Fatal("a miss was a hit")
		}
	}
	if s.budget != 0 {
		t.Errorf("after misses the budget is %s", s.budget)
	}
	if s.parks = 1; s.wait(always, 0) {
		t.Error("spun without a budget")
	}
	if s.parks = 0; !s.wait(always, 0) {
		t.Error("no probe")
	}
	s.parks = 0
	if start := time.Now(); !s.wait(always, time.Millisecond) || time.Since(start) < time.Millisecond {
		t.Error("looked before the pause was over")
	}
	spinning.Add(1)
	defer spinning.Add(-1)
	if s.parks = 0; s.wait(always, 0) {
		t.Error("more goroutines spin than may")
	}
	if (&spinner{cores: 1}).wait(always, 0) {
		t.Error("spun with one core")
	}
}

// case: E21
func TestBothEndsNameTheirRegion(t *testing.T) {
	a, b := link(t, Config{RegionSize: 128 << 10})
	c, _ := link(t, Config{RegionSize: 64 << 10})
	if a.Name() == "" || a.Name() != b.Name() || a.Name() == c.Name() {
		t.Errorf("two ends of one region are %q and %q, another one is %q", a.Name(), b.Name(), c.Name())
	}
	if runtime.GOOS == "linux" {
		maps, err := os.ReadFile("/proc/self/maps")
		if inode := strings.TrimPrefix(a.Name(), "inode "); err != nil || !strings.Contains(string(maps), " "+inode+" ") {
			t.Errorf("no mapping has the inode %s, %v", inode, err)
		}
	}
	if a.RegionSize() != 128<<10 || b.RegionSize() != 128<<10 || a.Closed() {
		t.Errorf("%d and %d bytes, closed: %v", a.RegionSize(), b.RegionSize(), a.Closed())
	}
	a.Close()
	if !a.Closed() || b.Closed() || a.RegionSize() != 128<<10 {
		t.Errorf("after Close: %v, %v, %d bytes", a.Closed(), b.Closed(), a.RegionSize())
	}
}
