package localipc

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peerCreds asks the kernel which process made the other end of a socket, or
// listened for it.
func peerCreds(conn net.Conn) (creds, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return creds{}, errors.New("not a socket of the system")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return creds{}, err
	}
	var ucred *unix.Ucred
	var serr error
	if err := raw.Control(func(fd uintptr) {
		ucred, serr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return creds{}, err
	}
	if serr != nil {
		return creds{}, serr
	}
	return creds{pid: int(ucred.Pid), uid: int(ucred.Uid)}, nil
}
