package ice

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/internal/route"
)

// A path is lost when nothing has come from the peer for silenceLimit, although
// it was asked again and again: a keep-alive asks twice a second, and from the
// first one that is not answered each carrier asks every probeEvery. Many packets
// in a row have to be lost, each way, before a path that is only bad is given up:
// a rule of one or two would end an idle link at 3 % loss every few minutes.
const (
	// silenceLimit leaves some of the 3 s in which a lost path has to be noticed.
	silenceLimit = 2300 * time.Millisecond
	// maxAnswer is how much of a round trip is waited for beside.
	maxAnswer = 500 * time.Millisecond
	// probeEvery is between two questions into a silence.
	probeEvery = 150 * time.Millisecond
)

// silenceOver is the silence that ends a connection of which this is the shortest
// round trip: over a satellite one has to wait for answers. A mean would not do,
// as a machine that is busy makes it long.
func silenceOver(rtt time.Duration) time.Duration { return silenceLimit + min(rtt, maxAnswer) }

// silenceError is why a connection was given up.
type silenceError time.Duration

func (e silenceError) Error() string {
	return fmt.Sprintf("nothing was heard of the device for %.1f s", time.Duration(e).Seconds())
}

// Timeout and Temporary make it a net.Error.
func (silenceError) Timeout() bool   { return true }
func (silenceError) Temporary() bool { return false }

// The keepalive of TCP has seconds for its unit, and asks nothing while bytes are
// under way: a path that is lost just after a write would be noticed only by the
// beacon of the link, 5 s later. So each connection is also looked at, and asked
// more often, where the system allows that.
//
// Linux answers such questions at most twice a second, so three lost answers would
// end a connection. But it counts what comes, the other side's questions too,
// which are not limited: who hears only those goes on asking, as its own are not
// answered, and is heard by that. So at least ten packets in a row have to be lost.
// A peer that has no room is heard by its questions too: of it the system asks
// ever more seldom.

// tcpProbeAfter is how old the last answer is when the system's keepalive asks: the
// least that it can be set to.
const tcpProbeAfter = time.Second

// tcpState is what the system knows of a connection.
type tcpState struct {
	answered time.Duration // since an acknowledgement came, or bytes
	segments uint32        // that have come, whatever was in them
	rtt      time.Duration // the shortest round trip
}

// hearing decides by that whether a path is alive. Its zero value has not looked
// yet.
type hearing struct {
	heard    time.Time // something came then, or later
	segments uint32    // at the last look
	looked   time.Time // when that was
	due      time.Time // when the next one is
}

// look takes what the system knows now. It tells for how long nothing was heard at
// most, what to do about it, and when to look again.
func (h *hearing) look(now time.Time, s tcpState) (silence time.Duration, lost, probe bool, in time.Duration) {
	h.hear(now.Add(-s.answered))
	if !h.looked.IsZero() {
		if s.segments != h.segments {
			h.hear(h.looked) // at the earliest
		}
		if now.Sub(h.due) > pulseStall { // hardly anything was asked meanwhile
			h.hear(now.Add(-tcpProbeAfter))
		}
	}
	silence = now.Sub(h.heard)
	switch limit := silenceOver(s.rtt); {
	case silence >= limit:
		lost, in = true, probeEvery
	case s.answered >= tcpProbeAfter:
		probe, in = true, min(probeEvery, limit-silence)
	default:
		in = min(pulseLook, tcpProbeAfter-s.answered)
	}
	h.segments, h.looked, h.due = s.segments, now, now.Add(in)
	return silence, lost, probe, in
}

// hear notes that something came at a time, if that is news.
func (h *hearing) hear(at time.Time) {
	if at.After(h.heard) {
		h.heard = at
	}
}

// tcpConn is a checked connection that can say which way it goes, and that ends
// when its path is lost.
type tcpConn struct {
	*net.TCPConn
	path route.Path
	lost atomic.Int64 // the silence in ns that has ended it

	mu      sync.Mutex
	hearing hearing
	clock   *time.Timer // the next look; nil: none
	closed  bool
}

func newTCPConn(conn *net.TCPConn, path route.Path) *tcpConn {
	c := &tcpConn{TCPConn: conn, path: path}
	// Its error would be that of a connection that is gone: the next use tells.
	_ = conn.SetKeepAliveConfig(tcpKeepAlive)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := stateOf(conn); ok {
		c.clock = time.AfterFunc(pulseLook, c.look)
	}
	return c
}

// look ends the connection if nothing was heard for too long: a Read returns
// with the reason, which is all that a link needs; should nobody read, the next
// look closes.
func (c *tcpConn) look() {
	s, ok := stateOf(c.TCPConn)
	if !ok {
		return
	}
	c.mu.Lock()
	silence, lost, probe, in := c.hearing.look(time.Now(), s)
	c.mu.Unlock()
	switch {
	case lost && c.lost.Swap(int64(silence)) != 0:
		_ = c.Close()
		return
	case lost:
		_ = c.SetReadDeadline(time.Unix(1, 0))
	case probe:
		probeTCP(c.TCPConn)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.clock.Reset(in)
	}
}

// Path is the way that the bytes take.
func (c *tcpConn) Path() route.Path { return c.path }

func (c *tcpConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if silence := c.lost.Load(); silence != 0 && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed)) {
		err = &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: silenceError(silence)}
	}
	return n, err
}

func (c *tcpConn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.clock != nil {
		c.clock.Stop()
	}
	c.mu.Unlock()
	return c.TCPConn.Close()
}
