package localipc

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// solLocal is SOL_LOCAL of <sys/un.h>.
const solLocal = 0

// peerCreds asks the kernel which process is at the other end of a socket.
func peerCreds(conn net.Conn) (creds, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return creds{}, errors.New("not a socket of the system")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return creds{}, err
	}
	var out creds
	var serr error
	if err := raw.Control(func(fd uintptr) {
		var x *unix.Xucred
		if x, serr = unix.GetsockoptXucred(int(fd), solLocal, unix.LOCAL_PEERCRED); serr != nil {
			return
		}
		out.uid = int(x.Uid)
		out.pid, serr = unix.GetsockoptInt(int(fd), solLocal, unix.LOCAL_PEERPID)
	}); err != nil {
		return creds{}, err
	}
	return out, serr
}
