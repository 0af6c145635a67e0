package ice

import (
	"errors"
	"net"
	"syscall"
)

// socket is the UDP socket of the engine. While this machine has no way to an
// address, as between two networks, its packets are lost, as packets are: QUIC
// would end a connection at such an error, although a moment later it could go on
// from another address. Everything else is the net.UDPConn's, so that quic-go
// sends and reads many packets at once.
type socket struct{ *net.UDPConn }

// WriteMsgUDP sends one packet, or several of the same length (GSO).
func (s socket) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = s.UDPConn.WriteMsgUDP(b, oob, to)
	if noWay(err) {
		return len(b), len(oob), nil
	}
	return n, oobn, err
}

// WriteTo sends one packet.
func (s socket) WriteTo(b []byte, to net.Addr) (int, error) {
	n, err := s.UDPConn.WriteTo(b, to)
	if noWay(err) {
		return len(b), nil
	}
	return n, err
}

// noWay reports whether an error says that there is no way just now.
func noWay(err error) bool {
	for _, no := range []error{syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}
