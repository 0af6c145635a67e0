package control

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// insideRoom is how many bytes of one direction wait to be read, about as many
// as a socket of the system holds. A channel's last words fit in while the
// other end is busy.
const insideRoom = 256 << 10

// Inside returns a listener for Serve and the client that reaches it, both in
// this process. The client's calls fail once the listener has closed.
func Inside() (net.Listener, *Client) {
	l := &inside{conns: make(chan net.Conn), done: make(chan struct{})}
	l.end = sync.OnceFunc(func() { close(l.done) })
	return l, &Client{l.dial}
}

// inside is a listener for connections that begin in this process.
type inside struct {
	conns chan net.Conn
	done  chan struct{}
	end   func()
}

func (l *inside) dial(ctx context.Context) (net.Conn, error) {
	up, down := newHalf(), newHalf()
	select {
	case l.conns <- &insideConn{in: up, out: down}:
		return &insideConn{in: down, out: up}, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Accept implements net.Listener.
func (l *inside) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, fmt.Errorf("inside: %w", net.ErrClosed)
	}
}

// Close implements net.Listener.
func (l *inside) Close() error {
	l.end()
	return nil
}

// Addr implements net.Listener.
func (l *inside) Addr() net.Addr { return insideAddr }

var insideAddr = &net.UnixAddr{Net: "inside"}

// insideConn is one end of a connection within this process. Unlike net.Pipe it
// holds bytes that are not read yet, as a socket does.
type insideConn struct{ in, out *half }

// Read implements net.Conn.
func (c *insideConn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write implements net.Conn.
func (c *insideConn) Write(p []byte) (int, error) { return c.out.write(p) }

// Close implements net.Conn. What was written can still be read.
func (c *insideConn) Close() error {
	c.in.leave(&c.in.reader)
	c.out.leave(&c.out.writer)
	return nil
}

// CloseRead has the other end's Writes fail.
func (c *insideConn) CloseRead() error {
	c.in.leave(&c.in.reader)
	return nil
}

// LocalAddr implements net.Conn.
func (*insideConn) LocalAddr() net.Addr { return insideAddr }

// RemoteAddr implements net.Conn.
func (*insideConn) RemoteAddr() net.Addr { return insideAddr }

// SetDeadline implements net.Conn.
func (c *insideConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *insideConn) SetReadDeadline(t time.Time) error { return c.in.limit(&c.in.reader, t) }

// SetWriteDeadline implements net.Conn.
func (c *insideConn) SetWriteDeadline(t time.Time) error { return c.out.limit(&c.out.writer, t) }

// half is one direction of a connection.
type half struct {
	mu             sync.Mutex
	changed        sync.Cond
	buf            bytes.Buffer // at most insideRoom
	reader, writer side
}

// side is what one end of a half has asked for.
type side struct {
	gone     bool
	deadline time.Time
	timer    *time.Timer
}

func newHalf() *half {
	h := &half{}
	h.changed.L = &h.mu
	return h
}

// await waits until ready holds, or own has left or is out of time. h.mu is held.
func (h *half) await(own *side, ready func() bool) error {
	for {
		switch {
		case own.gone:
			return io.ErrClosedPipe
		case !own.deadline.IsZero() && !time.Now().Before(own.deadline):
			return os.ErrDeadlineExceeded
		case ready():
			return nil
		}
		h.changed.Wait()
	}
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.await(&h.reader, func() bool { return h.buf.Len() > 0 || h.writer.gone || len(p) == 0 }); err != nil {
		return 0, err
	}
	defer h.changed.Broadcast()
	if len(p) == 0 {
		return 0, nil
	}
	return h.buf.Read(p) // io.EOF where the writer has left
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		err := h.await(&h.writer, func() bool { return h.buf.Len() < insideRoom || h.reader.gone })
		if err == nil && h.reader.gone {
			err = io.ErrClosedPipe
		}
		if err != nil {
			return n, err
		}
		k, _ := h.buf.Write(p[n:min(len(p), n+insideRoom-h.buf.Len())])
		n += k
		h.changed.Broadcast()
		if n == len(p) {
			return n, nil
		}
	}
}

// leave ends a side. Bytes that are read no more are dropped.
func (h *half) leave(own *side) {
	h.mu.Lock()
	defer h.mu.Unlock()
	own.gone = true
	if own.timer != nil {
		own.timer.Stop()
	}
	if h.reader.gone {
		h.buf = bytes.Buffer{}
	}
	h.changed.Broadcast()
}

func (h *half) limit(own *side, t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if own.gone {
		return io.ErrClosedPipe
	}
	if own.timer != nil {
		own.timer.Stop()
	}
	own.deadline, own.timer = t, nil
	if !t.IsZero() {
		own.timer = time.AfterFunc(time.Until(t), func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.changed.Broadcast()
		})
	}
	h.changed.Broadcast()
	return nil
}
