package ice

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/quic-go/quic-go"
)

const (
	// maxDatagram is the longest datagram, in bytes: with the headers of QUIC, a
	// relay, UDP and IP it fits the 1 280 bytes that every IPv6 path carries.
	maxDatagram = 1100
	// datagramsQueued is how many wait to be sent, beside the 32 that QUIC keeps;
	// further ones are dropped. (QUIC itself would block.)
	datagramsQueued = 32
)

// ErrDatagramDropped is returned by a stream's SendDatagram when the datagram was
// not even sent, as too many wait or the peer takes none.
var ErrDatagramDropped = errors.New("ice: datagram dropped: too many wait, or the peer takes none")

// datagrams are those of a connection that wait to be sent, and their sender.
type datagrams struct {
	taken bool // by the peer
	start sync.Once
	queue chan []byte
	life  context.Context // done when the stream is closed
	end   context.CancelFunc
}

func (d *datagrams) open(conn *quic.Conn) {
	d.taken = conn.ConnectionState().SupportsDatagrams.Remote
	d.queue = make(chan []byte, datagramsQueued)
	d.life, d.end = context.WithCancel(conn.Context())
}

// MaxDatagram is the longest datagram that SendDatagram takes, in bytes: 1100, or
// 0 where the peer takes none.
func (c *quicConn) MaxDatagram() int {
	if !c.datagrams.taken {
		return 0
	}
	return maxDatagram
}

// SendDatagram sends p, 1 to MaxDatagram bytes, once: it arrives whole, or not
// at all, and in no order. It does not block and keeps no part of p.
// ErrDatagramDropped says that it was not sent; another error, that none can be
// any more, or that p is too long.
func (c *quicConn) SendDatagram(p []byte) error {
	switch {
	case len(p) == 0 || len(p) > maxDatagram:
		return fmt.Errorf("ice: a datagram of %d bytes, want 1 to %d", len(p), maxDatagram)
	case c.closed.Load():
		return c.opError("write", net.ErrClosed)
	case c.conn.Context().Err() != nil:
		return c.explain("write", context.Cause(c.conn.Context()))
	case !c.datagrams.taken:
		return ErrDatagramDropped
	}
	c.datagrams.start.Do(func() { c.engine.sendOn(c.sendDatagrams) })
	select {
	case c.datagrams.queue <- append([]byte(nil), p...):
		return nil
	default:
		return ErrDatagramDropped
	}
}

// sendOn runs the sender of a connection, unless close has begun.
func (e *udpEngine) sendOn(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conns != nil {
		e.senders.Go(f)
	}
}

// sendDatagrams hands what is queued to QUIC, until the connection or the stream
// has ended.
func (c *quicConn) sendDatagrams() {
	for {
		select {
		case p := <-c.datagrams.queue:
			var long *quic.DatagramTooLargeError
			if err := c.conn.SendDatagram(p); err != nil && !errors.As(err, &long) {
				return
			}
		case <-c.datagrams.life.Done():
			return
		}
	}
}

// ReceiveDatagram returns the next datagram of the peer. It blocks until there
// is one, ctx ends, or none can come any more. Up to 128 wait for it; more are
// dropped.
func (c *quicConn) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	if c.closed.Load() {
		return nil, c.opError("read", net.ErrClosed)
	}
	open, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.datagrams.life, cancel)()
	p, err := c.conn.ReceiveDatagram(open)
	switch {
	case err == nil:
		return p, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case c.conn.Context().Err() != nil:
		err = context.Cause(c.conn.Context())
	}
	return nil, c.explain("read", err)
}
