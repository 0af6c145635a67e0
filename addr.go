package peerlink

import (
	"net"

	"peerlink/identity"
)

// Addr is the address of a channel's end: the device there, whatever the
// carrier. It is what LocalAddr and RemoteAddr of a channel return.
type Addr struct{ Peer identity.Peer }

// Network returns "peerlink".
func (a *Addr) Network() string { return "peerlink" }

// String returns the device id's 64 hex digits.
func (a *Addr) String() string { return a.Peer.Device.String() }

// PeerOf returns the proven device at the far end of a channel.
func PeerOf(c net.Conn) (identity.Peer, bool) {
	a, ok := c.RemoteAddr().(*Addr)
	if !ok {
		return identity.Peer{}, false
	}
	return a.Peer, true
}
