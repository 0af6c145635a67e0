package localipc

import (
	"errors"
	"fmt"
	"net"

	"peerlink/identity"
	"peerlink/internal/rawsock"
	"peerlink/internal/route"
	"peerlink/tlssock"
)

// Largest frame bodies that suit a conn: what a frame's header can say, and one
// that fills a TLS record (16 384 bytes) with its header of 4.
const (
	clearFrame = 65535
	tlsFrame   = 16380
)

// Conn is a stream to a proven device of this machine. It is a complete
// net.Conn: a Read and a Write may run concurrently, deadlines match
// os.ErrDeadlineExceeded, Close wakes both with an error that matches
// net.ErrClosed. Without TLS, io.EOF says only that the peer's end is closed.
type Conn struct {
	net.Conn
	peer   identity.Peer
	path   string
	writer *rawsock.Socket // nil where the system cannot write without waiting
}

func newConn(p proven, path string) *Conn {
	return &Conn{Conn: p.conn, peer: p.peer, path: path, writer: rawsock.New(p.conn)}
}

// Peer returns the device at the far end, as the handshake proved it.
func (c *Conn) Peer() identity.Peer { return c.peer }

// Path is the way that the bytes take: engine "unix", and the socket's name.
func (c *Conn) Path() route.Path {
	p := route.Path{Engine: "unix", Detail: c.path}
	if _, ok := c.Conn.(*tlssock.Conn); ok {
		p.Detail += " (TLS)"
	}
	return p
}

// FrameSize returns the largest frame body, in bytes, that suits the stream:
// 65 535 in the clear, 16 380 with TLS.
func (c *Conn) FrameSize() int {
	if _, ok := c.Conn.(*tlssock.Conn); ok {
		return tlsFrame
	}
	return clearFrame
}

// WriteNow writes what can be written without waiting and returns how much
// that was; the rest, if any, is for Write. It never blocks. With TLS it is
// tlssock's: then Write must follow if it says so. WriteNow and Write must not
// run at once.
func (c *Conn) WriteNow(p []byte) (int, error) {
	if t, ok := c.Conn.(*tlssock.Conn); ok {
		return t.WriteNow(p)
	}
	if c.writer == nil {
		return 0, nil
	}
	return c.writer.Write(p)
}

// CloseWrite ends this end's bytes; the peer reads io.EOF after the last, and
// reading goes on.
func (c *Conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("close for writing: %w", errors.ErrUnsupported)
	}
	return half.CloseWrite()
}
