package tlssock

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"peerlink/identity"
	"peerlink/internal/route"
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

// Path is the way that the bytes take: over TCP its two addresses, what the
// carrier's own Path method says where it has one, otherwise the zero value.
func (c *Conn) Path() route.Path {
	switch raw := c.carrier.Conn.(type) {
	case interface{ Path() route.Path }:
		return raw.Path()
	case *net.TCPConn:
		return route.Between("tcp", "", raw.LocalAddr(), raw.RemoteAddr())
	default:
		return route.Path{}
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

// Write encrypts p in records of 16 KiB and sends up to 16 of them with one
// system call. It blocks until the carrier has taken all of it. On an error n
// is what surely went out.
func (c *Conn) Write(p []byte) (int, error) {
	c.carrier.out.gather()
	n, err := c.Conn.Write(p)
	if ferr := c.carrier.out.send(); err == nil && ferr != nil {
		n, err = 0, ferr
	}
	if err != nil {
		err = c.explain(err)
	}
	return n, err
}

// WriteNow encrypts as much of p as may go out at once, 256 KiB at most, hands
// the carrier what it takes without waiting, and returns how much was
// encrypted. It never blocks. If something has to wait, the error is
// syscall.EAGAIN: then Write must be called next, with the rest of p or with
// nothing, and waits until all is sent. Over a carrier that is not a socket of
// the system that is always so, with n = 0. Calls of Write and WriteNow must
// not run at once.
func (c *Conn) WriteNow(p []byte) (int, error) {
	out := &c.carrier.out
	if !out.gatherEager() {
		return 0, syscall.EAGAIN
	}
	p = p[:min(len(p), outCap)]
	n, err := c.Conn.Write(p)
	if err == nil {
		err = out.trySend()
	}
	if err != nil && err != syscall.EAGAIN {
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
		if c.carrier.out.idle() {
			// Its error says whether close_notify could be sent, which is no news
			// to a program that closes.
			_ = c.Conn.Close()
		}
	})
	return c.carrier.Close()
}
