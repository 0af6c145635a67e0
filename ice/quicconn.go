package ice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"

	"peerlink/internal/route"
)

// Codes that end a QUIC connection.
const (
	codeDone    quic.ApplicationErrorCode = 0 // both sides have what they wanted
	codeRefused quic.ApplicationErrorCode = 1 // no negotiation, or a failed greeting
	codeGone    quic.ApplicationErrorCode = 2 // the transport was closed
	codeLost    quic.ApplicationErrorCode = 3 // the other side did not take the rest in time
	codeSilent  quic.ApplicationErrorCode = 4 // nothing was heard of the other side
)

// Codes that end a stream.
const (
	streamUnread quic.StreamErrorCode = 0 // nobody reads any more
	streamCut    quic.StreamErrorCode = 1 // closed in the middle of a write
)

const (
	// lingerTimeout is how long a closed stream waits for the peer to have read
	// what was written; lingerAfterClose is the same once the Transport closes.
	lingerTimeout    = 5 * time.Second
	lingerAfterClose = time.Second
)

// quicConn is a stream, alone on its QUIC connection, as a net.Conn.
//
// QUIC drops what was not read when a connection is closed, so the two sides
// have to agree on the end. Whoever needs no more bytes of the other, because
// it has read the end of the stream or was closed, says so by opening an empty
// unidirectional stream. A side that is closed itself and hears this closes
// the connection with codeDone.
type quicConn struct {
	t      *Transport
	conn   *quic.Conn
	stream *quic.Stream
	path   route.Path

	datagrams datagrams
	engine    *udpEngine

	sated   sync.Once // tells the peer that we need no more
	closing sync.Once
	closed  atomic.Bool
	ended   atomic.Bool  // io.EOF was read
	silent  atomic.Int64 // the silence in ns that has ended the connection

	deadlines sync.Mutex // keeps SetDeadline from undoing what Close set

	writing sync.Mutex // held by Write and CloseWrite
	halved  bool       // CloseWrite was called
	cut     bool       // Close broke a Write
}

func newQUICConn(b *base, conn *quic.Conn, stream *quic.Stream, path route.Path, r role) *quicConn {
	c := &quicConn{t: b.e.t, conn: conn, stream: stream, path: path, engine: b.e}
	c.datagrams.open(conn)
	b.watch(conn, r, func(silence time.Duration) {
		c.silent.Store(int64(silence))
		conn.CloseWithError(codeSilent, "")
	})
	return c
}

// Path is the way that the bytes take.
func (c *quicConn) Path() route.Path { return c.path }

// LocalAddr returns the UDP socket's address.
func (c *quicConn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr returns the selected address.
func (c *quicConn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// Read returns io.EOF only after the peer's orderly end; any other end matches
// io.ErrUnexpectedEOF.
func (c *quicConn) Read(p []byte) (int, error) {
	switch {
	case c.closed.Load():
		return 0, c.opError("read", net.ErrClosed)
	case c.ended.Load():
		return 0, io.EOF
	}
	n, err := c.stream.Read(p)
	switch err {
	case nil:
		return n, nil
	case io.EOF:
		c.ended.Store(true)
		c.satisfied()
		return n, io.EOF
	default:
		return n, c.explain("read", err)
	}
}

// Write returns when all of p is on its way or in QUIC's buffer.
func (c *quicConn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	switch {
	case c.closed.Load():
		return 0, c.opError("write", net.ErrClosed)
	case c.halved:
		return 0, c.opError("write", fmt.Errorf("after CloseWrite: %w", io.ErrClosedPipe))
	}
	n, err := c.stream.Write(p)
	if err != nil {
		c.cut = c.cut || c.closed.Load()
		err = c.explain("write", err)
	}
	return n, err
}

// CloseWrite ends the stream for the peer's reader; ours goes on.
func (c *quicConn) CloseWrite() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closed.Load() {
		return c.opError("close", net.ErrClosed)
	}
	if c.halved {
		return nil
	}
	c.halved = true
	if err := c.stream.Close(); err != nil {
		return c.explain("close", err)
	}
	return nil
}

// Close wakes readers and writers and returns at once. What was written before
// still reaches the peer, within lingerTimeout; a Write that Close interrupts
// makes the peer's reader fail, as its data are not whole.
func (c *quicConn) Close() error {
	c.closing.Do(func() {
		c.deadlines.Lock()
		c.closed.Store(true)
		c.stream.SetWriteDeadline(time.Unix(1, 0))
		c.deadlines.Unlock()
		c.datagrams.end()
		c.stream.CancelRead(streamUnread)

		c.writing.Lock()
		if c.cut {
			c.stream.CancelWrite(streamCut)
		} else {
			// Its error tells that the peer does not read any more.
			_ = c.stream.Close()
		}
		c.writing.Unlock()
		c.satisfied()
		if !c.t.board.Go(c.linger) {
			c.conn.CloseWithError(codeGone, "")
		}
	})
	return nil
}

// satisfied tells the peer, once, that nothing more is needed of it.
func (c *quicConn) satisfied() {
	c.sated.Do(func() {
		// It fails on a connection that has ended, where it is not needed.
		if s, err := c.conn.OpenUniStream(); err == nil {
			s.Close()
		}
	})
}

// linger ends the connection when the peer needs no more of it.
func (c *quicConn) linger(closing context.Context) {
	ctx, cancel := context.WithTimeout(context.Background(), lingerTimeout)
	defer cancel()
	defer context.AfterFunc(closing, func() {
		timer := time.AfterFunc(lingerAfterClose, cancel)
		context.AfterFunc(ctx, func() { timer.Stop() })
	})()
	if _, err := c.conn.AcceptUniStream(ctx); err != nil {
		c.conn.CloseWithError(codeLost, "")
		return
	}
	c.conn.CloseWithError(codeDone, "")
}

// SetDeadline bounds reads and writes.
func (c *quicConn) SetDeadline(t time.Time) error { return c.setDeadline(t, c.stream.SetDeadline) }

// SetReadDeadline bounds reads, also those under way.
func (c *quicConn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(t, c.stream.SetReadDeadline)
}

// SetWriteDeadline bounds writes, also those under way.
func (c *quicConn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(t, c.stream.SetWriteDeadline)
}

func (c *quicConn) setDeadline(t time.Time, set func(time.Time) error) error {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if c.closed.Load() {
		return c.opError("set", net.ErrClosed)
	}
	return set(t)
}

// explain turns an error of QUIC into what callers of a net.Conn expect.
// quic-go's own errors match net.ErrClosed even where the peer died.
func (c *quicConn) explain(op string, err error) error {
	var stream *quic.StreamError
	var app *quic.ApplicationError
	var timeout net.Error
	switch {
	case c.closed.Load():
		return c.opError(op, net.ErrClosed)
	case c.silent.Load() != 0:
		return c.opError(op, fmt.Errorf("connection lost (%w): %w", silenceError(c.silent.Load()), io.ErrUnexpectedEOF))
	case errors.As(err, &stream) && op == "read":
		return c.opError(op, fmt.Errorf("the peer broke off: %w", io.ErrUnexpectedEOF))
	case errors.As(err, &stream):
		return c.opError(op, fmt.Errorf("the peer has closed the stream: %w", syscall.EPIPE))
	case errors.As(err, &app) && !app.Remote:
		return c.opError(op, errClosed)
	case errors.As(err, &app) && app.ErrorCode == codeDone && op == "write":
		return c.opError(op, fmt.Errorf("the peer has closed the connection: %w", syscall.EPIPE))
	case errors.As(err, &app):
		return c.opError(op, fmt.Errorf("the peer ended the connection (code %d): %w", app.ErrorCode, io.ErrUnexpectedEOF))
	case errors.Is(err, net.ErrClosed) || !errors.As(err, &timeout):
		// quic-go's error is not wrapped: it matches net.ErrClosed, which this is not.
		return c.opError(op, fmt.Errorf("connection lost (%v): %w", err, io.ErrUnexpectedEOF)) //nolint:errorlint // see above
	default:
		return c.opError(op, err) // a deadline
	}
}

func (c *quicConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "quic", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
