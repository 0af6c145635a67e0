//go:build linux || darwin

package shm

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bell is one end of a Unix socket on which single bytes are sent, to wake.
type bell struct {
	conn *net.UnixConn
	raw  syscall.RawConn
	send func(fd uintptr) // made once, so that a ring allocates nothing
	buf  [64]byte         // for drain; only the waiting goroutine uses it
}

func newBell(conn *net.UnixConn) (*bell, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &bell{conn: conn, raw: raw, send: sendByte}, nil
}

// ring sends a byte. Where that cannot be done at once, many bytes wait there
// already; where the peer is gone, waiting will tell.
func (b *bell) ring() { _ = b.raw.Control(b.send) }

// wait calls pass whenever the bell may have been rung, until it returns true.
func (b *bell) wait(pass func(fd uintptr) bool) error { return b.raw.Read(pass) }

// drain takes bytes that wait, without waiting itself. The flag for that is
// given each time: that of the descriptor is shared with all copies of it.
func (b *bell) drain(fd uintptr) heard {
	n, err := receiveNow(fd, b.buf[:])
	switch {
	case err == unix.EAGAIN:
		return silence
	case n > 0 || err == unix.EINTR:
		return rung
	default:
		return gone
	}
}

func (b *bell) setDeadline(t time.Time) error { return b.conn.SetReadDeadline(t) }

func (b *bell) close() { _ = b.conn.Close() }
