package ice

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// sinceAcknowledged returns how long ago the peer's system acknowledged
// anything, a keepalive or bytes. It is false if the connection is gone.
func sinceAcknowledged(conn *net.TCPConn) (time.Duration, bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, false
	}
	var info *unix.TCPInfo
	if cerr := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); cerr != nil || err != nil {
		return 0, false
	}
	return time.Duration(info.Last_ack_recv) * time.Millisecond, true
}
