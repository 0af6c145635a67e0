package ice

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// The keepalive of TCP probes an idle path, but the system sends no probe while
// bytes are under way: a path that is lost just after a write would be noticed
// only by the beacon of the link, 5 s later. So each connection is also looked
// at: the peer's system acknowledges something at least once per tcpKeepAlive.
const (
	// tcpSilence without any acknowledgement is the end, as with QUIC.
	tcpSilence = quicIdleTimeout
	// tcpLook is between two looks, one system call of a microsecond each.
	tcpLook = tcpSilence / 8
)

// tcpKeepAlive keeps acknowledgements coming on an idle path, and ends it after
// 2.5 s where the system does not tell how long ago the last one was.
var tcpKeepAlive = net.KeepAliveConfig{Enable: true, Idle: 500 * time.Millisecond, Interval: 500 * time.Millisecond, Count: 4}

// silenceError is why a connection was given up.
type silenceError time.Duration

func (e silenceError) Error() string {
	return fmt.Sprintf("nothing was acknowledged for %.1f s", time.Duration(e).Seconds())
}

// Timeout and Temporary make it a net.Error.
func (silenceError) Timeout() bool   { return true }
func (silenceError) Temporary() bool { return false }

// tcpConn is a checked connection that can say which way it goes, and that ends
// when its path is lost.
type tcpConn struct {
	*net.TCPConn
	path string
	lost atomic.Int64 // the silence in ns that has ended it

	mu     sync.Mutex
	clock  *time.Timer // the next look; nil: none
	closed bool
}

func newTCPConn(conn *net.TCPConn, path string) *tcpConn {
	c := &tcpConn{TCPConn: conn, path: path}
	// Its error would be that of a connection that is gone: the next use tells.
	_ = conn.SetKeepAliveConfig(tcpKeepAlive)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := sinceAcknowledged(conn); ok {
		c.clock = time.AfterFunc(tcpLook, c.look)
	}
	return c
}

// look ends the connection if nothing was acknowledged for too long: a Read
// returns with the reason, which is all that a link needs; should nobody read,
// the next look closes.
func (c *tcpConn) look() {
	silence, ok := sinceAcknowledged(c.TCPConn)
	if !ok {
		return
	}
	if silence >= tcpSilence {
		if c.lost.Swap(int64(silence)) != 0 {
			_ = c.Close()
			return
		}
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.clock.Reset(tcpLook)
	}
}

// Path describes the connection, for people.
func (c *tcpConn) Path() string { return c.path }

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
