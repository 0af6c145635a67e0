package forward

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// lingerTime is how long what was written to a TCP connection may take to arrive
// before it is cut: as long as nginx waits for a client that it has answered early
// (lingering_time).
const lingerTime = 30 * time.Second

// stateClose is TCP_CLOSE of linux/net/tcp_states.h.
const stateClose = 7

// dead tells that a TCP connection is over in both directions.
func dead(c *net.TCPConn) bool {
	over := true
	control(c, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		over = err != nil || info.State == stateClose
	})
	return over
}

// arrived tells that the system at the other end has all that was written, or
// never will.
func arrived(c *net.TCPConn) bool {
	left := 0
	control(c, func(fd int) { left, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ) })
	return left == 0 || dead(c)
}

// control calls do, unless the connection is closed.
func control(c *net.TCPConn, do func(fd int)) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { do(int(fd)) })
	}
}
