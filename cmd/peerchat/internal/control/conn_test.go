//go:build linux

package control

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"peerlink/channel"
	"peerlink/identity"
)

func conns(t testing.TB) (*Conn, *Conn) {
	a, b := pair(t)
	return newConn(newWire(a), "chat://x", identity.Peer{}, identity.Peer{}), newConn(newWire(b), "chat://x", identity.Peer{}, identity.Peer{})
}

func TestConnConforms(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := conns(t)
		return a, b, func() { _, _ = a.Close(), b.Close() }, nil
	})
}

func TestEachDirectionEndsByItself(t *testing.T) {
	a, b := conns(t)
	defer a.Close()
	defer b.Close()
	if _, err := io.WriteString(a, "all I say"); err != nil {
		t.Fatal(err)
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); err != nil || string(got) != "all I say" {
		t.Fatalf("read %q, %v", got, err)
	}
	if _, err := io.WriteString(b, "and I"); err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	if got, err := io.ReadAll(a); err != nil || string(got) != "and I" {
		t.Fatalf("read %q, %v", got, err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after CloseWrite: %v", err)
	}
}

func TestResetKeepsItsCodeAndComesAfterTheData(t *testing.T) {
	a, b := conns(t)
	defer b.Close()
	if _, err := io.WriteString(a, "before"); err != nil {
		t.Fatal(err)
	}
	a.Fail(&channel.ResetError{Code: channel.CodeUser + 7, Remote: true})
	got, err := io.ReadAll(b)
	var reset *channel.ResetError
	if string(got) != "before" || !errors.As(err, &reset) || reset.Code != channel.CodeUser+7 || !reset.Remote {
		t.Fatalf("read %q, %v", got, err)
	}
	if _, err := b.Write([]byte("x")); !errors.As(err, &reset) || reset.Code != channel.CodeUser+7 {
		t.Errorf("write after a reset: %v", err)
	}
	c, d := conns(t)
	defer d.Close()
	c.Fail(errors.New("the link is gone"))
	if _, err := io.ReadAll(d); err == nil || errors.As(err, &reset) || !bytes.Contains([]byte(err.Error()), []byte("the link is gone")) {
		t.Errorf("a failure in words became %v", err)
	}
}

// A process that is killed says nothing: that is no end.
// fault: G1
func TestConnectionThatWasCutOffIsNotAnEnd(t *testing.T) {
	a, b := conns(t)
	if _, err := io.WriteString(a, "half"); err != nil {
		t.Fatal(err)
	}
	_ = a.w.conn.Close()
	got, err := io.ReadAll(b)
	if string(got) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("read %q, %v", got, err)
	}
}

func TestWritesFailOnceTheOtherEndHasStopped(t *testing.T) {
	a, b := conns(t)
	defer a.Close()
	defer b.Close()
	go b.Stop(&channel.ResetError{Code: channel.CodeUser + 3, Remote: true})
	var err error
	for err == nil { // ends: the socket takes no more
		_, err = a.Write(make([]byte, 1024))
	}
	var reset *channel.ResetError
	if !errors.As(err, &reset) || !reset.Remote {
		t.Fatalf("write: %v", err)
	}
	_ = a.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("reading goes on, and there is nothing: %v", err)
	}
	if _, err := a.Write([]byte("x")); !errors.As(err, &reset) || reset.Code != channel.CodeUser+3 {
		t.Errorf("write, once the word was read: %v", err)
	}
}

func TestWriteThatADeadlineCutOffGoesOn(t *testing.T) {
	a, b := conns(t)
	defer a.Close()
	defer b.Close()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB: more than a socket holds
	_ = a.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	n, err := a.Write(sent)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == len(sent) {
		t.Fatalf("wrote %d, %v", n, err)
	}
	_ = a.SetWriteDeadline(time.Time{})
	go func() {
		_, _ = a.Write(sent[n:])
		_ = a.CloseWrite()
	}()
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes of %d arrived, %v", len(got), len(sent), err)
	}
}

// Whatever comes over the socket, reading ends with bytes or an error and takes
// no more memory than has arrived.
// fault: A1
func FuzzFrames(f *testing.F) {
	f.Add([]byte{1, 0, 0, 2, 'h', 'i', 2, 0, 0, 0}, 1024)
	f.Add([]byte{0, 0xff, 0xff, 0xff}, 1024)
	f.Add([]byte{4, 0, 0, 5, 0, 0, 1, 0, 1}, 1024)
	f.Add([]byte{1, 4, 0, 0}, 1024)
	f.Fuzz(func(t *testing.T, in []byte, most int) {
		c := newConn(newWire(readOnly{bytes.NewReader(in)}), "x", identity.Peer{}, identity.Peer{})
		got, err := io.ReadAll(c)
		if len(got) > len(in) {
			t.Fatalf("%d bytes became %d", len(in), len(got))
		}
		if err == nil && !bytes.ContainsAny(in, "\x02\x03") {
			t.Fatalf("a clean end that nobody said: %x", in)
		}
		var v any
		_ = newWire(readOnly{bytes.NewReader(in)}).readMessage(most&0xffff, &v)
	})
}

// readOnly is a conn that ends after its bytes.
type readOnly struct{ io.Reader }

func (readOnly) Write(p []byte) (int, error)      { return len(p), nil }
func (readOnly) Close() error                     { return nil }
func (readOnly) LocalAddr() net.Addr              { return nil }
func (readOnly) RemoteAddr() net.Addr             { return nil }
func (readOnly) SetDeadline(time.Time) error      { return nil }
func (readOnly) SetReadDeadline(time.Time) error  { return nil }
func (readOnly) SetWriteDeadline(time.Time) error { return nil }

func TestACauseIsNotCutInsideACharacter(t *testing.T) {
	want := strings.Repeat("é", maxReset/2)
	got := parseReset(encodeReset(errors.New(want))).Error()
	if len(got) < maxReset-8 || !strings.HasPrefix(want, got) {
		t.Errorf("%d bytes, the end is %q", len(got), got[len(got)-8:])
	}
}
