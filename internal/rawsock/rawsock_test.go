//go:build unix

package rawsock

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// pair makes the two ends of a Unix stream socket.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a, b
}

func TestNothingWaits(t *testing.T) {
	a, b := pair(t)
	s, far := New(a), New(b)
	start := time.Now()
	buf := make([]byte, 1<<20)
	if n := far.Read(buf); n != 0 {
		t.Errorf("%d bytes were read from an empty socket", n)
	}
	sent := 0
	for {
		n, err := s.Write(buf)
		if err != nil {
			t.Fatal(err)
		}
		if sent += n; n == 0 {
			break // it is full
		}
	}
	if sent == 0 {
		t.Error("an empty socket took nothing")
	}
	for got := 0; got < sent; {
		n := far.Read(buf)
		if n == 0 {
			t.Fatalf("%d of %d bytes have come", got, sent)
		}
		got += n
	}
	if n, err := s.Write(nil); n != 0 || err != nil {
		t.Errorf("no bytes: %d, %v", n, err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestAClosedSocketIsAnErrorOfWritesAndNothingToRead(t *testing.T) {
	a, b := pair(t)
	s := New(a)
	b.Close()
	_, err := s.Write([]byte("x"))
	for err == nil {
		_, err = s.Write([]byte("x"))
	}
	a.Close()
	if n, err := s.Write([]byte("x")); n != 0 || err == nil {
		t.Errorf("after Close: %d, %v", n, err)
	}
	if n := s.Read(make([]byte, 1)); n != 0 {
		t.Errorf("%d bytes were read after Close", n)
	}
	if p, q := net.Pipe(); New(p) != nil || p.Close() != nil || q.Close() != nil {
		t.Error("a pipe within the process is no socket")
	}
}

func TestACallAllocatesNothing(t *testing.T) {
	a, b := pair(t)
	s, far := New(a), New(b)
	p := []byte("x")
	if n := testing.AllocsPerRun(100, func() {
		_, _ = s.Write(p)
		far.Read(p)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
