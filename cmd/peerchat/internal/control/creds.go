//go:build linux || darwin

package control

import (
	"net"
	"os"
	"syscall"
)

func selfUser() int { return os.Geteuid() }

// peerOf returns which user and process the kernel says is at the other end. A
// conn that is no socket of the system cannot leave this process.
func peerOf(conn net.Conn) (uid, pid int, err error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return os.Geteuid(), os.Getpid(), nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, 0, err
	}
	var asked error
	if err := raw.Control(func(fd uintptr) { uid, pid, asked = askPeer(int(fd)) }); err != nil {
		return -1, 0, err
	}
	if asked != nil {
		return -1, 0, asked
	}
	return uid, pid, nil
}
