package webrtc

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"

	"peerlink/internal/calls"
)

// socketBuffer is what UDP sockets are asked to hold, in bytes, each way: a
// window of SCTP in packets of 1 200 bytes, with the kernel's overhead of about
// as much again. With Linux' default of 208 KiB a burst overflows, and each loss
// halves SCTP's window. The system may give less.
const socketBuffer = 4 << 20

// sockets are the system's, with larger buffers.
type sockets struct {
	transport.Net
	price *calls.Price // of what is sent on the peer's word; nil: nothing has one
	wrap  func(transport.UDPConn) transport.UDPConn
}

func newSockets() (sockets, error) {
	n, err := stdnet.NewNet()
	if err != nil {
		return sockets{}, fmt.Errorf("webrtc: look at the network interfaces: %w", err)
	}
	return sockets{Net: n}, nil
}

// Interfaces are those of now; stdnet's are those of when it was made.
func (s sockets) Interfaces() ([]*transport.Interface, error) {
	fresh, err := stdnet.NewNet()
	if err != nil {
		return nil, err
	}
	return fresh.Interfaces()
}

// ListenUDP is for host candidates.
func (s sockets) ListenUDP(network string, at *net.UDPAddr) (transport.UDPConn, error) {
	c, err := s.Net.ListenUDP(network, at)
	if err != nil {
		return nil, err
	}
	widen(c)
	if u, ok := c.(*net.UDPConn); ok && s.price != nil {
		c = &pricedSocket{UDPConn: u, price: s.price, targets: make(map[netip.AddrPort]*target)}
	}
	if s.wrap != nil {
		c = s.wrap(c)
	}
	return c, nil
}

// ListenPacket is for those of servers.
func (s sockets) ListenPacket(network, address string) (net.PacketConn, error) {
	c, err := s.Net.ListenPacket(network, address)
	if err == nil {
		widen(c)
	}
	return c, err
}

// widen asks for larger buffers, and makes do with what there is.
func widen(c any) {
	if b, ok := c.(interface {
		SetReadBuffer(int) error
		SetWriteBuffer(int) error
	}); ok {
		_, _ = b.SetReadBuffer(socketBuffer), b.SetWriteBuffer(socketBuffer)
	}
}
