package tlssock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"peerlink/internal/route"
)

// fault: C7
func TestConnConforms(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	for name, pipe := range map[string]func() (net.Conn, net.Conn){
		"pipe": net.Pipe,
		"tcp":  func() (net.Conn, net.Conn) { return tcpPipe(t) },
	} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				c, s := pipe()
				caller, callee := linkOver(t, c, s, alice, bob)
				return caller, callee, func() { caller.Close(); callee.Close() }, nil
			})
		})
	}
}

func TestWriteDeadlineBreaksWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
		c, s := net.Pipe()
		caller, callee := linkOver(t, c, s, alice, bob)
		caller.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := caller.Write(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("write that nobody reads: %v, want a time-out", err)
		}
		caller.SetWriteDeadline(time.Time{})
		if _, err := caller.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write after a broken one: %v, want the same time-out", err)
		}
		go callee.Write([]byte("still here"))
		got := make([]byte, 10)
		if _, err := io.ReadFull(caller, got); err != nil || string(got) != "still here" {
			t.Errorf("read after a broken write: %q, %v", got, err)
		}
	})
}

// fault: C3
func TestEndWithoutCloseNotifyIsNotEOF(t *testing.T) {
	caller, callee := link(t, newIdentity(t, "alice"), newIdentity(t, "bob"))
	if _, err := callee.Write([]byte("half of it")); err != nil {
		t.Fatal(err)
	}
	callee.NetConn().Close()
	got, err := io.ReadAll(caller)
	if string(got) != "half of it" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %q, %v; want the bytes and io.ErrUnexpectedEOF", got, err)
	}
}

func TestCloseIsCleanEOFAtThePeer(t *testing.T) {
	caller, callee := link(t, newIdentity(t, "alice"), newIdentity(t, "bob"))
	if _, err := callee.Write([]byte("all of it")); err != nil {
		t.Fatal(err)
	}
	if err := callee.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(caller); string(got) != "all of it" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if err := callee.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	for op, f := range map[string]func([]byte) (int, error){"read": callee.Read, "write": callee.Write} {
		if _, err := f(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after Close: %v, want net.ErrClosed", op, err)
		}
	}
}

// A peer that takes no bytes can hold Close for a second, not for ever, and
// crypto/tls's five seconds are not used up.
//
// fault: C10
func TestCloseIsBoundedWhenPeerIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := net.Pipe()
		caller, _ := linkOver(t, c, s, newIdentity(t, "alice"), newIdentity(t, "bob"))
		readc := make(chan error, 1)
		go func() { _, err := caller.Read(make([]byte, 1)); readc <- err }()
		start := time.Now()
		if err := caller.Close(); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d != closeTimeout {
			t.Errorf("Close took %s, want %s", d, closeTimeout)
		}
		if err := <-readc; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the blocked read ended with %v, want net.ErrClosed", err)
		}
	})
}

// fault: C4
func TestCloseBreaksABlockedWriteAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := net.Pipe()
		caller, _ := linkOver(t, c, s, newIdentity(t, "alice"), newIdentity(t, "bob"))
		writec := make(chan error, 1)
		go func() { _, err := caller.Write(make([]byte, 100)); writec <- err }()
		synctest.Wait()
		start := time.Now()
		caller.Close()
		if err := <-writec; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the blocked write ended with %v, want net.ErrClosed", err)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("Close took %s", d)
		}
	})
}

func TestHalfCloseLetsTheOtherDirectionLive(t *testing.T) {
	caller, callee := link(t, newIdentity(t, "alice"), newIdentity(t, "bob"))
	if err := caller.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := callee.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("read after CloseWrite: %v, want io.EOF", err)
	}
	if _, err := callee.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	callee.Close()
	if got, err := io.ReadAll(caller); string(got) != "answer" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestPathNamesTheCarrier(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	caller, callee := link(t, alice, bob)
	want := "tcp " + caller.LocalAddr().String() + "→" + callee.LocalAddr().String()
	if caller.Path().String() != want {
		t.Errorf("over TCP: %q, want %q", caller.Path(), want)
	}
	c, s := net.Pipe()
	caller, _ = linkOver(t, c, s, alice, bob)
	if caller.Path() != (route.Path{}) || caller.NetConn() != c {
		t.Errorf("over a pipe: path %q, carrier %v", caller.Path(), caller.NetConn())
	}
	c, s = net.Pipe()
	caller, _ = linkOver(t, routed{c}, s, alice, bob)
	if caller.Path().Engine != "by hand" {
		t.Errorf("over a carrier that knows its path: %q", caller.Path())
	}
}

type routed struct{ net.Conn }

func (routed) Path() route.Path { return route.Path{Engine: "by hand"} }

// Records that were swapped, or changed in one bit, are noticed, and not taken
// for the end.
//
// fault: D9, A5
func TestTamperedRecordsAreRefused(t *testing.T) {
	record := func(b []byte) ([]byte, []byte) { // the first record and the rest
		n := 5 + int(b[3])<<8 + int(b[4])
		return b[:n], b[n:]
	}
	for name, tamper := range map[string]func([]byte) []byte{
		"swapped": func(b []byte) []byte {
			first, rest := record(b)
			second, _ := record(rest)
			return append(bytes.Clone(second), first...)
		},
		"repeated": func(b []byte) []byte { first, _ := record(b); return append(bytes.Clone(first), first...) },
		"one bit":  func(b []byte) []byte { b[7] ^= 1; return b },
		"left out": func(b []byte) []byte { _, rest := record(b); return rest },
	} {
		t.Run(name, func(t *testing.T) {
			c, s := tcpPipe(t)
			tap := &recorder{Conn: c}
			caller, callee := linkOver(t, tap, s, newIdentity(t, "alice"), newIdentity(t, "bob"))
			tap.on = true
			for _, m := range []string{"one", "two"} {
				if _, err := caller.Write([]byte(m)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := c.Write(tamper(tap.got)); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(callee)
			if err == nil || !strings.Contains(err.Error(), "bad record MAC") {
				t.Errorf("read %q, %v; want a bad record MAC", got, err)
			}
		})
	}
}

// recorder keeps what is written instead of sending it.
type recorder struct {
	net.Conn
	on  bool
	got []byte
}

func (r *recorder) Write(b []byte) (int, error) {
	if !r.on {
		return r.Conn.Write(b)
	}
	r.got = append(r.got, b...)
	return len(b), nil
}
