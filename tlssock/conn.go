package tlssock

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/identity"
)

// closeTimeout bounds Close: after it, a peer that takes no bytes goes without
// its close_notify. crypto/tls itself would wait for 5 s.
const closeTimeout = time.Second

// Conn is a TLS connection whose far end is a proven device. It is a complete
// net.Conn: a Read and a Write may run concurrently, deadlines match
// os.ErrDeadlineExceeded, Close wakes both with an error that matches
// net.ErrClosed. io.EOF is returned only when the peer said close_notify; a
// carrier that ends without it is io.ErrUnexpectedEOF.
type Conn struct {
	*tls.Conn
	carrier *carrier
	peer    identity.Peer
	heard   atomic.Bool // the peer has sent application data
	closed  atomic.Bool
	closing sync.Once
}

// Peer returns the device at the far end, as the handshake proved it.
func (c *Conn) Peer() identity.Peer { return c.peer }

// NetConn returns the connection beneath TLS.
func (c *Conn) NetConn() net.Conn { return c.carrier.Conn }

// Path describes the way the bytes take, for people: "tcp local→remote" over
// TCP, what the carrier's own Path method says where it has one, otherwise "".
func (c *Conn) Path() string {
	switch raw := c.carrier.Conn.(type) {
	case interface{ Path() string }:
		return raw.Path()
	case *net.TCPConn:
		return fmt.Sprintf("tcp %s→%s", raw.LocalAddr(), raw.RemoteAddr())
	default:
		return ""
	}
}

// Read reads decrypted bytes. An alert from a peer that has not said anything
// yet matches ErrRefused.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.heard.Load() {
		c.heard.Store(true)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = c.explain(err)
	}
	return n, err
}

// Write encrypts and sends p, in records of 16 KiB. It blocks while the
// carrier does.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		err = c.explain(err)
	}
	return n, err
}

func (c *Conn) explain(err error) error {
	switch {
	case c.closed.Load() && !errors.Is(err, net.ErrClosed):
		return fmt.Errorf("tls with %s: %w", c.RemoteAddr(), net.ErrClosed)
	case !c.heard.Load() && isAlert(err):
		return fmt.Errorf("tls with %s: %w: %w", c.RemoteAddr(), ErrRefused, err)
	default:
		return err
	}
}

// isAlert tells whether the far end ended the connection with a fatal alert.
func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// Close sends close_notify, for 1 s at most, and closes the carrier. Where a
// Write is running it sends nothing and breaks that Write. It may be called
// from anywhere and more than once; each call returns when the carrier is
// closed, with the error of closing it.
func (c *Conn) Close() error {
	c.closing.Do(func() {
		c.closed.Store(true)
		cut := time.AfterFunc(closeTimeout, func() { _ = c.carrier.Close() })
		defer cut.Stop()
		// Its error says whether close_notify could be sent, which is no news
		// to anybody who closes.
		_ = c.Conn.Close()
	})
	return c.carrier.Close()
}

// maxHandshakeBytes is what a peer may send until the handshake is complete: an
// honest one needs three certificates of at most 2 KiB and about 2 KiB for the
// rest. crypto/tls alone would take, and parse, 256 KiB of certificates from
// anybody. quic-go has the same bound of its own.
const maxHandshakeBytes = 16 << 10

// errTruncated must not be io.ErrUnexpectedEOF itself: crypto/tls turns that,
// at the end of a record, into a clean io.EOF.
var errTruncated = fmt.Errorf("connection ended without close_notify: %w", io.ErrUnexpectedEOF)

// carrier is the connection beneath TLS, with the bound on what an unproven
// peer may send and with an end that cannot be mistaken for a clean one.
type carrier struct {
	net.Conn
	proven bool // set by the handshaking goroutine before the Conn exists
	read   int  // bytes read until then

	closing  sync.Once
	closeErr error
}

// Read reads, until the peer is proven, no more than maxHandshakeBytes in all.
func (c *carrier) Read(p []byte) (int, error) {
	if !c.proven {
		left := maxHandshakeBytes - c.read
		if left <= 0 {
			return 0, fmt.Errorf("more than %d bytes before the handshake was complete", maxHandshakeBytes)
		}
		p = p[:min(len(p), left)]
	}
	n, err := c.Conn.Read(p)
	if !c.proven {
		c.read += n
	}
	if errors.Is(err, io.EOF) {
		err = errTruncated
	}
	return n, err
}

// Close closes the connection once and returns what that returned.
func (c *carrier) Close() error {
	c.closing.Do(func() { c.closeErr = c.Conn.Close() })
	return c.closeErr
}
