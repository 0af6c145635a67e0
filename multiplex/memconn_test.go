package multiplex

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// memConn is one end of a connection in memory, for bubbles: with room for so
// many bytes, and a path of a given speed and length.
type memConn struct {
	in, out *memQueue
}

// eagerMemConn can be written to without waiting, and takes parts at random.
type eagerMemConn struct{ *memConn }

// stagingMemConn is memory: what is sent can be staged, which is refused at
// random, too.
type stagingMemConn struct {
	eagerMemConn
	stages *atomic.Int32
	into   *atomic.Pointer[[]byte] // if set, Reads into this are counted
	reads  *atomic.Int32
}

func staging(c *memConn) stagingMemConn {
	return stagingMemConn{eagerMemConn{c}, new(atomic.Int32), new(atomic.Pointer[[]byte]), new(atomic.Int32)}
}

// FrameSize is that of memory carriers.
func (c stagingMemConn) FrameSize() int { return maxBody }

// Stage keeps head and body for the next write.
func (c stagingMemConn) Stage(head, body []byte) bool {
	q := c.out
	q.mu.Lock()
	n := len(head) + len(body)
	if q.closed || q.n+len(q.staged)+n > q.room || rand.IntN(4) == 0 {
		q.mu.Unlock()
		return false
	}
	q.staged = append(append(q.staged, head...), body...)
	q.mu.Unlock()
	c.stages.Add(1)
	return true
}

// Write sends what is staged first.
func (c stagingMemConn) Write(p []byte) (int, error) {
	c.publish()
	return c.eagerMemConn.Write(p)
}

// WriteNow sends what is staged first.
func (c stagingMemConn) WriteNow(p []byte) (int, error) {
	if rand.IntN(8) == 0 {
		return 0, syscall.EAGAIN
	}
	c.publish()
	return c.eagerMemConn.WriteNow(p)
}

// publish sends what is staged, for which there is room.
func (c stagingMemConn) publish() {
	q := c.out
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.staged) > 0 && !q.closed {
		q.put(q.staged)
	}
	q.staged = nil
}

// Read counts those that bring bytes straight to where they are wanted.
func (c stagingMemConn) Read(p []byte) (int, error) {
	n, err := c.eagerMemConn.Read(p)
	if into := c.into.Load(); into != nil && n > 0 && last(*into) == last(p) {
		c.reads.Add(1)
	}
	return n, err
}

// last is where the array that p is a part of ends.
func last(p []byte) *byte { return &p[:cap(p)][cap(p)-1] }

type memQueue struct {
	room  int
	rate  float64 // bytes per second; 0: any
	delay time.Duration

	mu      sync.Mutex
	wake    sync.Cond
	chunks  []memChunk
	n       int
	staged  []byte // not sent
	closed  bool
	expired bool // the reader's deadline
	writes  int
}

type memChunk struct {
	b  []byte
	at time.Time
}

func memPipe(room int, rate float64, delay time.Duration) (a, b *memConn) {
	queue := func() *memQueue {
		q := &memQueue{room: room, rate: rate, delay: delay}
		q.wake.L = &q.mu
		return q
	}
	x, y := queue(), queue()
	return &memConn{x, y}, &memConn{y, x}
}

func (q *memQueue) put(p []byte) {
	q.chunks = append(q.chunks, memChunk{append([]byte(nil), p...), time.Now().Add(q.delay)})
	q.n += len(p)
	q.wake.Broadcast()
	if q.delay > 0 {
		time.AfterFunc(q.delay, q.wake.Broadcast)
	}
}

func (c *memConn) Write(p []byte) (n int, err error) {
	q := c.out
	q.mu.Lock()
	defer q.mu.Unlock()
	q.writes++
	for len(p) > 0 {
		for q.n >= q.room && !q.closed {
			q.wake.Wait()
		}
		if q.closed {
			return n, net.ErrClosed
		}
		k := min(len(p), q.room-q.n, 64<<10)
		if q.rate > 0 {
			q.mu.Unlock()
			time.Sleep(time.Duration(float64(k) / q.rate * 1e9))
			q.mu.Lock()
		}
		q.put(p[:k])
		p, n = p[k:], n+k
	}
	return n, nil
}

// WriteNow takes what there is room for, or less.
func (c eagerMemConn) WriteNow(p []byte) (int, error) {
	q := c.out
	q.mu.Lock()
	defer q.mu.Unlock()
	q.writes++
	if q.closed {
		return 0, net.ErrClosed
	}
	n := min(len(p), q.room-q.n)
	if rand.IntN(3) == 0 {
		n = rand.IntN(n + 1)
	}
	if n > 0 {
		q.put(p[:n])
	}
	if n < len(p) || rand.IntN(8) == 0 {
		return n, syscall.EAGAIN
	}
	return n, nil
}

func (c *memConn) Read(p []byte) (int, error) {
	q := c.in
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		switch {
		case q.expired:
			return 0, os.ErrDeadlineExceeded
		case len(q.chunks) > 0 && !q.chunks[0].at.After(time.Now()):
			h := &q.chunks[0]
			n := copy(p, h.b)
			if h.b = h.b[n:]; len(h.b) == 0 {
				q.chunks = q.chunks[1:]
			}
			q.n -= n
			q.wake.Broadcast()
			return n, nil
		case q.closed && len(q.chunks) == 0:
			return 0, io.EOF
		}
		q.wake.Wait()
	}
}

func (c *memConn) Close() error {
	for _, q := range []*memQueue{c.in, c.out} {
		q.mu.Lock()
		q.closed = true
		q.wake.Broadcast()
		q.mu.Unlock()
	}
	return nil
}

// SetReadDeadline knows only the past and none, which is what Interrupt needs.
func (c *memConn) SetReadDeadline(t time.Time) error {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.expired = !t.IsZero()
	c.in.wake.Broadcast()
	return nil
}

func (c *memConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }
func (c *memConn) LocalAddr() net.Addr              { return nil }
func (c *memConn) RemoteAddr() net.Addr             { return nil }

// sent returns how many writes there were so far.
func (c *memConn) sent() int {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.writes
}
