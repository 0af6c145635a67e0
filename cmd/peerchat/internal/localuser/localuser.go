// Package localuser tells which user of this machine is at the other end of a TCP
// connection over loopback.
//
//	l, err := net.Listen("tcp", "127.0.0.1:0")
//	conn, err := l.Accept()
//	if err := localuser.Check(conn); err != nil { // another user's
//		conn.Close()
//	}
//
// A port on loopback is open to every user of the machine. A program that lends its
// owner's identity to each connection there asks first.
//
// # Limits
//
// Linux knows the user of a connection; elsewhere Check lets every connection
// through. So does a Linux that does not tell (no sock_diag: some sandboxes). A
// program of another user can still ask in the owner's name through a program of the
// owner's that answers others, such as a proxy.
package localuser

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
)

// ErrOther is matched by the errors of Check.
var ErrOther = errors.New("another user of this machine")

// Check returns nil for a connection of this process's user or of root, and for one
// that does not come over loopback. Otherwise the error matches ErrOther. A program
// that closed its end before Check could ask has no user any more, and counts as
// another one. Check does not block, and may be called concurrently.
func Check(conn net.Conn) error {
	here, far := addrOf(conn.LocalAddr()), addrOf(conn.RemoteAddr())
	if !far.Addr().IsLoopback() || !here.IsValid() {
		return nil
	}
	switch uid, err := userOf(far, here); {
	case errors.Is(err, errors.ErrUnsupported):
		return nil
	case err != nil:
		return fmt.Errorf("%w, perhaps: the user behind %s is not known: %w", ErrOther, far, err)
	case uid != 0 && uid != os.Geteuid():
		return fmt.Errorf("%w: user %d, from %s", ErrOther, uid, far)
	}
	return nil
}

func addrOf(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
