package localuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// A question to the kernel about one socket, and its answer (linux/inet_diag.h,
// sock_diag(7)): nlmsghdr | inet_diag_req_v2, and nlmsghdr | inet_diag_msg. Packages
// for netlink ask for a dump instead, which walks through all sockets of the machine
// and does not compare addresses.
const (
	headerLen   = unix.NLMSG_HDRLEN
	questionLen = headerLen + 56
	answerLen   = headerLen + 72
	idAt        = headerLen + 8 // of the question: ports, addresses, interface, cookie
	cookieAt    = idAt + 40
	uidAt       = headerLen + 64 // of the answer
	inodeAt     = uidAt + 4
	askTimeout  = time.Second // the kernel answers at once
)

// errGone says that a socket belongs to no program any more: the kernel then shows
// root as its user.
var errGone = errors.New("the socket is closed")

// userOf returns the user that has the TCP socket from an address of this machine to
// another one, whose socket this process has. The error matches
// errors.ErrUnsupported if the kernel does not tell about any socket.
func userOf(from, to netip.AddrPort) (int, error) {
	uid, err := ask(from, to)
	if errors.Is(err, unix.ENOENT) { // no such socket, or a kernel without this service
		if _, own := ask(to, from); errors.Is(own, unix.ENOENT) {
			return 0, unsupported(err)
		}
		return 0, errGone
	}
	return uid, err
}

func ask(from, to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return 0, unsupported(err)
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(int64(askTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return 0, unsupported(err)
	}
	if err := unix.Sendto(fd, question(from, to), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, unsupported(err)
	}
	b := make([]byte, 4096) // the answer has attributes behind it
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return 0, unsupported(err)
	}
	return read(b[:n])
}

// unsupported marks errors of kernels and sandboxes that do not tell. Others, such as
// that of a process without a free descriptor, may be caused by a caller.
func unsupported(err error) error {
	for _, never := range []unix.Errno{unix.ENOENT, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EOPNOTSUPP, unix.EINVAL} {
		if errors.Is(err, never) {
			return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		}
	}
	return err
}

func question(from, to netip.AddrPort) []byte {
	native := binary.NativeEndian
	b := make([]byte, questionLen)
	native.PutUint32(b, questionLen)
	native.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST)
	family := byte(unix.AF_INET6)
	if from.Addr().Is4() {
		family = unix.AF_INET
	}
	b[headerLen], b[headerLen+1] = family, unix.IPPROTO_TCP
	native.PutUint32(b[headerLen+4:], 0xffffffff) // in each state
	binary.BigEndian.PutUint16(b[idAt:], from.Port())
	binary.BigEndian.PutUint16(b[idAt+2:], to.Port())
	copy(b[idAt+4:], from.Addr().AsSlice())
	copy(b[idAt+20:], to.Addr().AsSlice())
	native.PutUint64(b[cookieAt:], ^uint64(0)) // INET_DIAG_NOCOOKIE
	return b
}

func read(b []byte) (int, error) {
	native := binary.NativeEndian
	switch {
	case len(b) >= headerLen+4 && native.Uint16(b[4:]) == unix.NLMSG_ERROR:
		e := unix.Errno(-int32(native.Uint32(b[headerLen:])))
		if e == unix.ENOENT {
			return 0, e
		}
		return 0, unsupported(e)
	case len(b) < answerLen || native.Uint16(b[4:]) != unix.SOCK_DIAG_BY_FAMILY:
		return 0, fmt.Errorf("the kernel's answer has %d bytes", len(b))
	case native.Uint32(b[inodeAt:]) == 0:
		return 0, errGone
	}
	return int(native.Uint32(b[uidAt:])), nil
}
