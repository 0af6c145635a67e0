package ice

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// tcpKeepAlive keeps answers coming on an idle path. Its count is never reached:
// it is also used up by probeTCP, and the looks end what is lost.
var tcpKeepAlive = net.KeepAliveConfig{Enable: true, Idle: tcpProbeAfter, Interval: time.Second, Count: 100}

// stateOf asks the system about a connection; false if it is gone.
func stateOf(conn *net.TCPConn) (s tcpState, ok bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return s, false
	}
	var info *unix.TCPInfo
	if cerr := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); cerr != nil || err != nil {
		return s, false
	}
	// Bytes that acknowledge nothing new count too: a peer may do all the talking.
	s.answered = time.Duration(min(info.Last_ack_recv, info.Last_data_recv)) * time.Millisecond
	s.segments = info.Segs_in
	s.rtt = time.Duration(info.Min_rtt) * time.Microsecond
	return s, true
}

// probeTCP has the system ask the peer at once, unless bytes are under way: to
// set the time after which the keepalive asks sets its clock, and that time is
// over.
func probeTCP(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	// Both errors would be that the connection is gone: the next look tells.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(tcpProbeAfter/time.Second))
	})
}
