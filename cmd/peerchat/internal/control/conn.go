package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
	"peerlink/internal/escape"
)

const (
	flagRemote  = 1 // the channel's peer reset it
	flagFailure = 2 // not a reset: the words are all that is known
	flagEnded   = 4 // the daemon ends, as it was told to
)

// Conn is one end of a connection that carries a channel: a net.Conn with
// half-close and resets, whose addresses are the channel's. All methods may be
// called concurrently.
type Conn struct {
	w             *wire
	uri           string
	local, remote net.Addr
	gone          error // what it means that the other end has gone

	reading sync.Mutex // guards what has been read of the frame under way:
	head    [4]byte
	headLen int
	left    int   // bytes of data to come
	over    error // reading has ended
	shut    error // after an end: how the other side has left; io.EOF after a close

	writing sync.Mutex // guards the frame that is being written:
	owed    int        // bytes of data that were announced and not written
	rest    []byte     // of its header
	ended   bool       // nothing more is written

	last sync.Once // the last words

	mu      sync.Mutex
	closing bool  // by Close, Reset or Fail
	stop    error // why the other side takes no more
}

// errCommandGone is how a command that was killed looks to the daemon.
var errCommandGone = fmt.Errorf("the command has gone: %w", io.ErrUnexpectedEOF)

func newConn(w *wire, uri string, self, peer identity.Peer) *Conn {
	return &Conn{w: w, uri: uri, local: &peerlink.Addr{Peer: self}, remote: &peerlink.Addr{Peer: peer}, gone: errCommandGone}
}

func (c *Conn) fail(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &channel.OpError{Op: op, URI: c.uri, Err: err}
}

// Read implements net.Conn: a bare io.EOF after an end, a *channel.OpError
// after anything else.
func (c *Conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	n, err := c.read(p)
	return n, c.fail("read", err)
}

func (c *Conn) read(p []byte) (int, error) {
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	for c.left == 0 {
		if c.over != nil {
			return 0, c.over
		}
		k, err := c.next()
		if err == nil && k == kindData || k == kindStop {
			continue
		}
		if err != nil && !isTimeout(err) {
			c.over = err
		}
		if err != nil {
			return 0, err
		}
		c.over = io.EOF
	}
	n, err := c.w.br.Read(p[:min(len(p), c.left)])
	c.left -= n
	if n > 0 {
		return n, nil
	}
	if err = c.lost(err); !isTimeout(err) {
		c.over = err
	}
	return 0, err
}

// AwaitClose waits, after Read has returned io.EOF, until the other end has
// closed, and returns nil, or has left in another way, and returns how. What it
// sends meanwhile is against the protocol.
func (c *Conn) AwaitClose() error {
	c.reading.Lock()
	defer c.reading.Unlock()
	for c.shut == nil {
		switch k, err := c.next(); {
		case err != nil && isTimeout(err):
			return err
		case err != nil:
			c.shut = err
		case k != kindStop:
			c.shut = fmt.Errorf("%w: something follows the end", errMalformed)
		}
	}
	if c.shut == io.EOF {
		return nil
	}
	return c.shut
}

// next reads a frame up to its data. A reset and what is malformed are errors,
// and after them, as after a close, shut is set. c.reading is held.
func (c *Conn) next() (kind, error) {
	for c.headLen < len(c.head) {
		n, err := c.w.br.Read(c.head[c.headLen:])
		c.headLen += n
		if err != nil && c.headLen < len(c.head) {
			return 0, c.lost(err)
		}
	}
	k, n, err := parseHeader(c.head, 0)
	if err != nil {
		return 0, err
	}
	switch k {
	case kindData:
		c.left = n
	case kindEnd:
	case kindClose:
		c.shut = io.EOF
		c.setStop(&channel.ResetError{Code: channel.CodeClosed, Remote: true})
	case kindReset, kindStop:
		b, err := c.w.br.Peek(n) // short, and it may have to be asked for again
		if err != nil {
			return 0, c.lost(err)
		}
		cause := parseReset(b)
		_, _ = c.w.br.Discard(n)
		c.setStop(cause)
		if k == kindReset {
			c.shut = cause
			return 0, cause
		}
	default:
		return 0, fmt.Errorf("%w: a message within a channel", errMalformed)
	}
	c.headLen = 0
	return k, nil
}

// lost is the error of a read that failed; only a deadline leaves the
// connection as it was.
func (c *Conn) lost(err error) error {
	switch {
	case c.isClosed():
		return net.ErrClosed
	case isTimeout(err):
		return err
	case cutOff(err):
		return c.gone
	}
	return fmt.Errorf("the control socket: %w", err)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// Write implements net.Conn. On an error n is what was handed over.
func (c *Conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	total := 0
	for total < len(p) {
		n, err := c.write(p[total:])
		total += n
		if err != nil {
			return total, c.fail("write", err)
		}
	}
	if c.ended {
		return total, c.fail("write", net.ErrClosed)
	}
	return total, nil
}

// write sends a frame of p, or goes on with one that a deadline cut off. c.writing is held.
func (c *Conn) write(p []byte) (int, error) {
	if c.ended || c.isClosed() {
		return 0, net.ErrClosed
	}
	if len(c.rest) == 0 && c.owed == 0 {
		c.owed = min(len(p), maxData)
		h := header(kindData, c.owed)
		c.rest = h[:]
	}
	heads := len(c.rest)
	bufs := net.Buffers{c.rest, p[:min(len(p), c.owed)]}
	n64, err := bufs.WriteTo(c.w.conn)
	n := int(n64)
	c.rest = c.rest[min(heads, n):]
	n = max(n-heads, 0)
	c.owed -= n
	return n, c.unsent(err)
}

// unsent says why a write failed.
func (c *Conn) unsent(err error) error {
	if err == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closing:
		return net.ErrClosed
	case isTimeout(err):
		return err
	case c.stop != nil:
		return c.stop
	case errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrClosedPipe):
		// The word of why waits to be read.
		return &channel.ResetError{Code: channel.CodeClosed, Remote: true}
	}
	return err
}

// CloseWrite ends this direction: the other end reads io.EOF after all that was
// written. It blocks while the other end is behind with reading. The second call
// does nothing.
func (c *Conn) CloseWrite() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.ended {
		return nil
	}
	c.ended = true
	return c.fail("close", c.say(kindEnd, nil))
}

// say sends a frame that is not data. c.writing is held. If a deadline has cut
// a frame of data off, nothing can follow it but the end of the connection.
func (c *Conn) say(k kind, body []byte) error {
	if len(c.rest) > 0 || c.owed > 0 {
		return c.w.conn.Close()
	}
	h := header(k, len(body))
	bufs := net.Buffers{h[:], body}
	_, err := bufs.WriteTo(c.w.conn)
	return c.unsent(err)
}

// lastWords is how long Close, Reset and Stop wait for a reader at the other
// end who is behind; then the connection just ends, which the other side takes
// for a cut.
const lastWords = 2 * time.Second

// Close ends both directions: what was written still arrives, and io.EOF after
// it; what has arrived is dropped. It blocks for 2 s at most, if the other end
// does not read. The second call waits for the first, and does nothing more.
func (c *Conn) Close() error {
	c.finish(kindClose, nil)
	return nil
}

// Reset cuts the channel off: the other end fails with a *channel.ResetError of
// this code once it has read what was written. It blocks as Close does.
func (c *Conn) Reset(code channel.Code) error {
	c.finish(kindReset, encodeReset(&channel.ResetError{Code: code}))
	return nil
}

// Fail is Reset with any cause: a *channel.ResetError keeps its code and side.
func (c *Conn) Fail(cause error) { c.finish(kindReset, encodeReset(cause)) }

func (c *Conn) finish(k kind, body []byte) {
	c.last.Do(func() { c.sayLast(k, body) }) // a second call waits for the first
}

func (c *Conn) sayLast(k kind, body []byte) {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	_ = c.w.conn.SetReadDeadline(time.Unix(1, 0))            // wakes a Read
	_ = c.w.conn.SetWriteDeadline(time.Now().Add(lastWords)) // and in the end a Write
	c.writing.Lock()
	_ = c.say(k, body)
	c.ended = true
	c.writing.Unlock()
	_ = c.w.conn.Close()
}

// Stop tells the other end that this one reads no more, and why: its Writes
// fail from now on. It is for whoever reads: it waits for a Read under way.
func (c *Conn) Stop(cause error) {
	_ = c.w.conn.SetWriteDeadline(time.Now().Add(lastWords))
	c.writing.Lock()
	_ = c.say(kindStop, encodeReset(cause))
	c.writing.Unlock()
	_ = c.w.conn.SetWriteDeadline(time.Time{})
	u, ok := c.w.conn.(interface{ CloseRead() error })
	if !ok || u.CloseRead() != nil {
		return
	}
	// A Write that waits at the other end is woken by room, not by the word that
	// nobody reads; nothing new comes any more.
	c.reading.Lock()
	defer c.reading.Unlock()
	_, _ = io.Copy(io.Discard, c.w.br)
	c.over = net.ErrClosed
	c.left = 0
}

func (c *Conn) setStop(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop == nil {
		c.stop = cause
	}
}

func (c *Conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// URI returns the channel's name.
func (c *Conn) URI() string { return c.uri }

// LocalAddr returns this device as a *peerlink.Addr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the peer as a *peerlink.Addr, for peerlink.PeerOf. Its
// certificates are not there: the daemon has checked them.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.fail("set", c.w.conn.SetDeadline(t)) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.fail("set", c.w.conn.SetReadDeadline(t)) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.fail("set", c.w.conn.SetWriteDeadline(t))
}

// encodeReset returns what tells a cause.
func encodeReset(cause error) []byte {
	var reset *channel.ResetError
	var ended *EndedError
	var flags byte
	var code channel.Code
	text := cause.Error()
	switch {
	case errors.As(cause, &ended):
		flags = flagFailure | flagEnded
	case !errors.As(cause, &reset):
		flags = flagFailure
	default:
		code, text = reset.Code, ""
		if reset.Remote {
			flags = flagRemote
		}
	}
	b := append(binary.BigEndian.AppendUint32(nil, uint32(code)), flags)
	return append(b, escape.Cap(text, maxReset-len(b))...)
}

// parseReset reads what encodeReset wrote.
func parseReset(b []byte) error {
	if len(b) < 5 {
		return fmt.Errorf("%w: a reset of %d bytes", errMalformed, len(b))
	}
	switch {
	case b[4]&flagEnded != 0:
		return &EndedError{Told: true}
	case b[4]&flagFailure != 0:
		return errors.New(strings.ToValidUTF8(string(b[5:]), "\ufffd"))
	}
	return &channel.ResetError{Code: channel.Code(binary.BigEndian.Uint32(b)), Remote: b[4]&flagRemote != 0}
}
