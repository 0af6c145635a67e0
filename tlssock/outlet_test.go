package tlssock

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
)

// fault: A10
func TestWriteNowTakesWhatFitsAndNeverWaits(t *testing.T) {
	c, s := tcpPipe(t)
	_ = c.(*net.TCPConn).SetWriteBuffer(64 << 10)
	_ = s.(*net.TCPConn).SetReadBuffer(64 << 10)
	caller, callee := linkOver(t, c, s, newIdentity(t, "alice"), newIdentity(t, "bob"))
	p := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	want := sha256.New()
	sent := 0
	next := func() { // until the system's buffers are full: nobody reads yet
		for rest := p; ; {
			n, err := caller.WriteNow(rest)
			want.Write(rest[:n])
			sent += n
			rest = rest[n:]
			if errors.Is(err, syscall.EAGAIN) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				t.Fatal("took nothing, and nothing waits")
			}
			if len(rest) == 0 {
				rest = p
			}
		}
	}
	next()
	if n, err := caller.WriteNow(p); n != 0 || !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("while something waits: %d, %v", n, err)
	}
	got := make(chan []byte)
	go func() {
		h := sha256.New()
		_, _ = io.Copy(h, callee)
		got <- h.Sum(nil)
	}()
	for range 5 {
		if n, err := caller.Write(nil); n != 0 || err != nil { // waits for what is left
			t.Fatal(n, err)
		}
		next()
	}
	if n, err := caller.Write(p); n != len(p) || err != nil {
		t.Fatal(n, err)
	}
	want.Write(p)
	_ = caller.Close()
	if !bytes.Equal(<-got, want.Sum(nil)) {
		t.Errorf("other bytes arrived than the %d that were taken", sent)
	}
}

func TestWriteNowOverACarrierThatCanOnlyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := net.Pipe()
		caller, callee := linkOver(t, c, s, newIdentity(t, "alice"), newIdentity(t, "bob"))
		if n, err := caller.WriteNow([]byte("x")); n != 0 || !errors.Is(err, syscall.EAGAIN) {
			t.Errorf("%d, %v", n, err)
		}
		go caller.Write([]byte("x"))
		if _, err := io.ReadFull(callee, make([]byte, 1)); err != nil {
			t.Error(err)
		}
	})
}

// counting counts the calls that reach the carrier.
type counting struct {
	net.Conn
	writes int
}

func (c *counting) Write(p []byte) (int, error) {
	c.writes++
	return c.Conn.Write(p)
}

func TestSixteenRecordsTakeOneCall(t *testing.T) {
	c, s := tcpPipe(t)
	count := &counting{Conn: c}
	caller, callee := linkOver(t, count, s, newIdentity(t, "alice"), newIdentity(t, "bob"))
	before := count.writes
	go io.Copy(io.Discard, callee)
	if _, err := caller.Write(make([]byte, 15*16384)); err != nil {
		t.Fatal(err)
	}
	if n := count.writes - before; n != 1 {
		t.Errorf("%d calls for 15 records", n)
	}
}

// A record that comes in the middle of a gathered write, as the answer to a key
// update does, leaves with it; one that comes alone leaves at once.
func TestRecordsOutsideAWriteLeaveAtOnce(t *testing.T) {
	c, s := net.Pipe()
	defer c.Close()
	defer s.Close()
	o := outlet{conn: c}
	got := make(chan string, 3)
	go func() {
		buf := make([]byte, 10)
		for {
			n, err := s.Read(buf)
			if err != nil {
				return
			}
			got <- string(buf[:n])
		}
	}()
	_, _ = o.Write([]byte("alone"))
	if b := <-got; b != "alone" {
		t.Errorf("%q", b)
	}
	o.gather()
	_, _ = o.Write([]byte("one,"))
	_, _ = o.Write([]byte("two"))
	select {
	case b := <-got:
		t.Errorf("%q left before the end", b)
	default:
	}
	if err := o.send(); err != nil {
		t.Fatal(err)
	}
	if b := <-got; b != "one,two" {
		t.Errorf("%q", b)
	}
}
