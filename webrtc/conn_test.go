package webrtc

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

func TestConnConforms(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "alice"), x.newDevice(t, "bob")
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		c, s := connect(t, a, b)
		return c, s, func() { c.Close(); s.Close() }, nil
	})
}

// Bulk in both directions at once arrives whole, and each side's end is clean
// while the other still sends.
func TestBulkBothWaysThenHalfClose(t *testing.T) {
	x := newExchange()
	c, s := connect(t, x.newDevice(t, "alice"), x.newDevice(t, "bob"))
	const size = 4 << 20
	var wg sync.WaitGroup
	var sent, got [2][sha256.Size]byte
	for i, conn := range []net.Conn{c, s} {
		data := make([]byte, size+i)
		rand.NewChaCha8([32]byte{byte(i)}).Read(data)
		sent[i] = sha256.Sum256(data)
		wg.Go(func() {
			if _, err := conn.Write(data); err != nil {
				t.Errorf("write: %v", err)
			}
			if err := conn.(*Conn).CloseWrite(); err != nil {
				t.Errorf("half-close: %v", err)
			}
			if _, err := conn.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("write after CloseWrite: %v", err)
			}
		})
		wg.Go(func() {
			all, err := io.ReadAll(conn)
			if err != nil {
				t.Errorf("read: %v", err)
			}
			got[1-i] = sha256.Sum256(all)
		})
	}
	wg.Wait()
	if sent != got {
		t.Error("what arrived is not what was sent")
	}
}

// A Write waits when the peer does not read: what is buffered on both ends
// together is bounded.
func TestWriteWaitsForReader(t *testing.T) {
	x := newExchange()
	c, s := connect(t, x.newDevice(t, "alice"), x.newDevice(t, "bob"))
	c.SetWriteDeadline(time.Now().Add(2 * time.Second))
	n, err := c.Write(make([]byte, 32<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("wrote %d bytes to a peer that does not read: %v", n, err)
	}
	const most = sendHigh + 2*maxMessage + inboxLimit + 2<<20 // SCTP's windows
	if n > most {
		t.Errorf("%d bytes were taken, want at most %d", n, most)
	}
	// Nothing of it is lost.
	if err := c.(*Conn).CloseWrite(); err != nil {
		t.Error(err)
	}
	if m, err := io.Copy(io.Discard, s); err != nil || int(m) != n {
		t.Errorf("read %d bytes of %d: %v", m, n, err)
	}
}

// What was written before Close arrives, with a clean end.
func TestCloseDelivers(t *testing.T) {
	x := newExchange()
	c, s := connect(t, x.newDevice(t, "alice"), x.newDevice(t, "bob"))
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<15)
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	c.Close()
	all, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(all, data) {
		t.Errorf("read %d bytes of %d: %v", len(all), len(data), err)
	}
}

// The far end's Close wakes a writer, and reading after it ends cleanly.
func TestWriterLearnsOfClose(t *testing.T) {
	x := newExchange()
	// It is the farewell that tells: silence would not, for an hour.
	long := func(c *Config) { c.silence = time.Hour }
	c, s := connect(t, x.newDevice(t, "alice", long), x.newDevice(t, "bob", long))
	c.SetWriteDeadline(time.Now().Add(patience))
	s.Close()
	var err error
	for err == nil {
		_, err = c.Write(make([]byte, 1<<10))
	}
	if !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write ended with %v", err)
	}
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("read ended with %v, want a clean end", err)
	}
}

// A peer that vanishes without a word is no clean end, and is noticed within
// the silence that is allowed.
func TestSilentPeerIsLost(t *testing.T) {
	x := newExchange()
	// Long enough for a machine that is busy while they connect.
	short := func(c *Config) { c.silence = 3 * time.Second }
	c, s := connect(t, x.newDevice(t, "alice", short), x.newDevice(t, "bob"))
	c.SetReadDeadline(time.Now().Add(patience))
	// Without its socket the far end neither sends nor says goodbye.
	s.(*Conn).owner.dtls.ICETransport().Stop()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read ended with %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write ended with %v", err)
	}
}
