package tlssock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

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
	in     intake
	out    outlet

	closing  sync.Once
	closeErr error
}

// Read reads, until the peer is proven, no more than maxHandshakeBytes in all.
func (c *carrier) Read(p []byte) (int, error) {
	if !c.proven {
		return c.readUnproven(p)
	}
	n, err := c.in.Read(p)
	if errors.Is(err, io.EOF) {
		err = errTruncated
	}
	return n, err
}

func (c *carrier) readUnproven(p []byte) (int, error) {
	left := maxHandshakeBytes - c.read
	if left <= 0 {
		return 0, fmt.Errorf("more than %d bytes before the handshake was complete", maxHandshakeBytes)
	}
	n, err := c.Conn.Read(p[:min(len(p), left)])
	c.read += n
	if errors.Is(err, io.EOF) {
		err = errTruncated
	}
	return n, err
}

// Write sends a record, or keeps it for the call that sends several.
func (c *carrier) Write(p []byte) (int, error) { return c.out.Write(p) }

// Close closes the connection once and returns what that returned.
func (c *carrier) Close() error {
	c.closing.Do(func() { c.closeErr = c.Conn.Close() })
	return c.closeErr
}
