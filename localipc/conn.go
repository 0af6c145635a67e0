package localipc

import (
	"errors"
	"fmt"
	"net"

	"peerlink/identity"
	"peerlink/internal/rawsock"
	"peerlink/internal/route"
)

// clearFrame is the largest frame body that suits a conn: what a frame's header
// can say.
const clearFrame = 65535

// Conn is a stream to a proven device of this machine. It is a complete
// net.Conn: a Read and a Write may run concurrently, deadlines match
// os.ErrDeadlineExceeded, Close wakes both with an error that matches
// net.ErrClosed. io.EOF says only that the peer's end is closed.
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
	return route.Path{Engine: "unix", Detail: c.path}
}

// FrameSize returns the largest frame body, in bytes, that suits the stream:
// 65 535.
func (c *Conn) FrameSize() int { return clearFrame }

// WriteNow writes what can be written without waiting and returns how much
// that was; the rest, if any, is for Write. It never blocks. WriteNow and Write
// must not run at once.
func (c *Conn) WriteNow(p []byte) (int, error) {
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
