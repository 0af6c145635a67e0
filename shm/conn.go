package shm

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"peerlink/identity"
	"peerlink/internal/ring"
	"peerlink/internal/route"
)

// frameSize is the largest body that a frame's header can announce; memory has
// no reason for a smaller one.
const frameSize = 65535

// Conn is a stream through shared memory to a proven device. It is a complete
// net.Conn: a Read and a Write may run concurrently, deadlines match
// os.ErrDeadlineExceeded, Close wakes both with an error that matches
// net.ErrClosed. io.EOF is returned only when the peer has closed its end; a
// peer whose process dies is io.ErrUnexpectedEOF, after the last byte that it
// wrote.
type Conn struct {
	peer  identity.Peer
	seg   *segment
	addrs [2]addr // the local one, the remote one

	in     half
	reader *ring.Reader // guarded by in.mu
	// answered is how often this end had written when Read waited last; guarded by
	// in.mu.
	answered uint64

	out    half
	writer *ring.Writer // guarded by out.mu
	ended  bool         // CloseWrite was called; guarded by out.mu
	want   int          // what a waiting Write still has; guarded by out.mu
	head   []byte       // what Stage puts before its body; guarded by out.mu

	closed  atomic.Bool
	closing sync.Once
	writes  atomic.Uint64 // how often this end has written
	sleeps  atomic.Uint64 // how often it has gone to sleep
}

// half is what both directions have: a bell, a deadline, a way to wait. Lock
// order: only Close holds both, in.mu first.
type half struct {
	mu       sync.Mutex
	bell     *bell
	deadline atomic.Int64 // in ns since 1970; 0: none
	spinner  spinner
	dead     bool          // the bell's socket has ended: the peer is gone; guarded by mu
	pause    time.Duration // before it looks whether to go on; guarded by mu

	// made once, so that waiting allocates nothing
	ready        func() bool
	sleep, awake func()
	pass         func(fd uintptr) bool
}

type addr string

func (addr) Network() string  { return "shm" }
func (a addr) String() string { return string(a) }

var errDied = fmt.Errorf("the process at the other end has died: %w", io.ErrUnexpectedEOF)

// newConn makes one end of a stream. It owns the segment and the bells: in rings
// when there is something to read, or the peer has made room; so does out.
func newConn(seg *segment, side ring.Side, in, out *bell, peer identity.Peer) (*Conn, error) {
	w, r, err := ring.New(seg.mem, side)
	if err != nil {
		return nil, err
	}
	c := &Conn{peer: peer, seg: seg, reader: r, writer: w}
	c.addrs = [2]addr{addr(fmt.Sprintf("process %d", os.Getpid())), addr("device " + peer.Device.Short())}
	c.in.bell, c.out.bell = in, out
	c.in.ready, c.in.sleep, c.in.awake = r.Ready, r.Sleep, r.Awake
	c.out.ready, c.out.sleep, c.out.awake = func() bool { return w.Ready(c.want) }, w.Sleep, w.Awake
	c.in.pass, c.out.pass = c.in.look, c.out.look
	c.in.spinner.cores = int32(runtime.GOMAXPROCS(0))
	c.out.spinner.cores = c.in.spinner.cores
	return c, nil
}

// heard is what a bell had to say.
type heard int

const (
	silence heard = iota // nothing: all that comes from now on wakes
	rung
	gone // nothing will ever come
)

// maxPasses bounds how long a peer that rings without end keeps a look busy.
const maxPasses = 16

// look is one look around before waiting, or after the bell. Its order matters.
// First this end says that it sleeps, or no bell is rung for what comes in
// between. A bell that was rung has taken that word back, perhaps for less than
// this end wants, and the poller tells of bytes and of an end behind them only
// once: so only after silence may it wait.
func (h *half) look(fd uintptr) bool {
	for range maxPasses {
		h.sleep()
		if h.ready() {
			return true
		}
		switch h.bell.drain(fd) {
		case silence:
			return false
		case gone:
			h.dead = true
			return true
		}
	}
	return true // the caller looks at the clock, and comes back
}

// park waits until ready, the peer's death, the deadline or Close. h.mu is held.
func (c *Conn) park(h *half) error {
	if h.spinner.wait(h.ready, h.pause) {
		return nil
	}
	c.sleeps.Add(1)
	err := h.bell.wait(h.pass)
	h.awake()
	return err
}

// check says why a call may not go on. h.mu is held.
func (c *Conn) check(h *half) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	if d := h.deadline.Load(); d != 0 && time.Now().UnixNano() >= d {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Read reads what there is, waiting for the first byte.
func (c *Conn) Read(p []byte) (int, error) {
	return c.call("read", c.read, p)
}

func (c *Conn) read(p []byte) (int, error) {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	for {
		if err := c.check(&c.in); err != nil {
			return 0, err
		}
		dead := c.in.dead // before looking: what was written before the end is read
		n, wake, err := c.reader.Read(p)
		if wake {
			c.in.bell.ring()
		}
		switch {
		case n > 0:
			raceAcquire()
			return n, nil
		case err != nil || len(p) == 0:
			return 0, err
		case dead:
			return 0, errDied
		}
		c.in.pause = rest
		if writes := c.writes.Load(); writes != c.answered { // a conversation: be quick
			c.in.pause, c.answered = 0, writes
		}
		if err := c.park(&c.in); err != nil {
			return 0, err
		}
	}
}

// Write writes all of p, waiting for room. On an error n is what the peer may
// still read.
func (c *Conn) Write(p []byte) (int, error) {
	return c.call("write", c.write, p)
}

func (c *Conn) write(p []byte) (n int, err error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	for {
		k, err := c.put(p[n:])
		n += k
		if err != nil || n == len(p) {
			return n, err
		}
		if c.out.dead {
			return n, errDied
		}
		c.want = len(p) - n
		if err := c.park(&c.out); err != nil {
			return n, err
		}
	}
}

// put writes what fits. c.out.mu is held.
func (c *Conn) put(p []byte) (int, error) {
	if err := c.check(&c.out); err != nil {
		return 0, err
	}
	if c.ended {
		return 0, syscall.EPIPE
	}
	raceRelease()
	n, wake, err := c.writer.Write(p)
	if wake {
		c.out.bell.ring()
	}
	if n > 0 {
		c.writes.Add(1)
	}
	return n, err
}

// WriteNow writes what fits now and returns how much that was; the rest, if
// any, is for Write. It never blocks. WriteNow and Write must not run at once.
func (c *Conn) WriteNow(p []byte) (int, error) {
	return c.call("write", c.writeNow, p)
}

func (c *Conn) writeNow(p []byte) (int, error) {
	if !c.out.mu.TryLock() {
		return 0, syscall.EAGAIN // also where p is nothing: something may be staged
	}
	defer c.out.mu.Unlock()
	return c.put(p)
}

// Stage copies head and body, both of them, to where the peer will read them,
// but leaves it to the next Write, WriteNow or CloseWrite, perhaps of
// nothing, to tell the peer. False says that they do not fit now, or that a
// Write would fail: then nothing was copied. It never blocks and makes no system
// call. Stage, WriteNow and Write must not run at once.
func (c *Conn) Stage(head, body []byte) bool {
	if !c.out.mu.TryLock() {
		return false
	}
	defer c.out.mu.Unlock()
	c.head = head
	_, err := c.guard(c.stage, body)
	c.head = nil
	return err == nil
}

// stage stages c.head and body. c.out.mu is held.
func (c *Conn) stage(body []byte) (int, error) {
	if err := c.check(&c.out); err != nil {
		return 0, err
	}
	if c.ended || !c.writer.Stage(c.head, body) {
		return 0, syscall.EAGAIN
	}
	c.writes.Add(1)
	return 0, nil
}

// CloseWrite says that no more bytes follow; the peer reads io.EOF after the
// last, and reading goes on. It waits for a Write that is running.
func (c *Conn) CloseWrite() error {
	_, err := c.call("close", c.closeWrite, nil)
	return err
}

func (c *Conn) closeWrite([]byte) (int, error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	raceRelease()
	_, wake, _ := c.writer.Write(nil) // what is staged; if the peer reads no more, it does not matter
	c.ended = true
	if c.writer.Close() || wake {
		c.out.bell.ring()
	}
	return 0, nil
}

// Close ends both directions, wakes calls that wait, and gives the memory back.
// The peer reads what was written before, then io.EOF. It may be called from
// anywhere and more than once; each call returns when all is released.
func (c *Conn) Close() error {
	c.closing.Do(func() {
		c.closed.Store(true)
		// Where the memory is gone, the peer knows.
		_, _ = c.guard(c.sayClosed, nil)
		c.in.bell.close() // wakes our own calls, and the peer's
		c.out.bell.close()
		// A call that still touches the memory holds a lock.
		c.in.mu.Lock()
		defer c.in.mu.Unlock()
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		c.seg.close()
	})
	return nil
}

func (c *Conn) sayClosed([]byte) (int, error) {
	c.writer.Close()
	c.reader.Close()
	return 0, nil
}

// call runs a call of the program's, op, under guard. io.EOF is told as
// it is.
func (c *Conn) call(op string, f func([]byte) (int, error), p []byte) (int, error) {
	n, err := c.guard(f, p)
	if err != nil && err != io.EOF {
		err = c.opError(op, err)
	}
	return n, err
}

// guard runs a call that touches the memory, which must return nothing but
// errors even if it is gone.
func (c *Conn) guard(call func([]byte) (int, error), p []byte) (int, error) {
	if c.seg.mayShrink {
		return guarded(call, p)
	}
	return call(p)
}

// Peer returns the device at the far end, as the handshake proved it.
func (c *Conn) Peer() identity.Peer { return c.peer }

// Path is the way that the bytes take: engine "shm", and the region's size.
func (c *Conn) Path() route.Path {
	return route.Path{Engine: "shm", Detail: fmt.Sprintf("(%d KiB)", len(c.seg.mem)>>10)}
}

// Name returns what the memory is called, "inode 1234": the same at both ends, and
// among the mappings that the system lists of a process (/proc/PID/maps).
func (c *Conn) Name() string { return c.seg.name }

// RegionSize returns how many bytes both sides share: the smaller of both sides'
// Config.RegionSize. Less than half of it buffers each direction.
func (c *Conn) RegionSize() int { return len(c.seg.mem) }

// Closed reports whether Close was called at this end. What the far end does is
// told by Read and Write.
func (c *Conn) Closed() bool { return c.closed.Load() }

// FrameSize returns the largest frame body, in bytes, that suits the stream:
// 65 535.
func (c *Conn) FrameSize() int { return frameSize }

// LocalAddr returns an address that names this process.
func (c *Conn) LocalAddr() net.Addr { return c.addrs[0] }

// RemoteAddr returns an address that names the peer.
func (c *Conn) RemoteAddr() net.Addr { return c.addrs[1] }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline bounds Read, one that waits too. The zero time is none.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.in, t) }

// SetWriteDeadline bounds Write and WriteNow likewise.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.out, t) }

// setDeadline sets that of the bell, for calls that wait, and a copy, for the others.
func (c *Conn) setDeadline(h *half, t time.Time) error {
	var ns int64
	switch {
	case t.IsZero() || t.Year() > 2200: // beyond what fits into an int64 of ns
	default:
		ns = max(t.UnixNano(), 1)
	}
	h.deadline.Store(ns)
	if err := h.bell.setDeadline(t); err != nil {
		return c.opError("set", err)
	}
	return nil
}

func (c *Conn) opError(op string, err error) error {
	if oe, ok := errors.AsType[*net.OpError](err); ok {
		err = oe.Err // without the bell's socket, which callers do not know
	}
	if errors.Is(err, ring.ErrClosed) {
		err = syscall.EPIPE
	}
	return &net.OpError{Op: op, Net: "shm", Source: c.addrs[0], Addr: c.addrs[1], Err: err}
}
