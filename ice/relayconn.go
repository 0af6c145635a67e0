package ice

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/turn/v3"
)

// nominalServer is what the TURN client believes its server's address to be.
// The connection knows the real one, which may be IPv6: the client resolves
// IPv4 only.
const nominalServer = "192.0.2.1:3478"

// packets makes of a connection to a TURN server what the client reads and
// writes: over TCP messages are cut out of the stream (RFC 8656, section 3.1).
func packets(conn net.Conn, network string) *sieve {
	if network == "tcp" {
		return &sieve{PacketConn: turn.NewSTUNConn(conn)}
	}
	return &sieve{PacketConn: &connectedUDP{conn}}
}

// minAllocation is the shortest life of an allocation that is taken: the client
// refreshes at half of it. Servers give ten minutes.
const minAllocation = 30 // seconds

// sieve keeps from the TURN client what it does not bear: garbage, which ends
// its reader without a word, and allocations that live no time, which it would
// refresh without a pause. It remembers why the server refused an allocation: the
// client has words for that alone.
type sieve struct {
	net.PacketConn
	refused atomic.Int32 // the last code; 0: none
}

// ReadFrom implements net.PacketConn.
func (s *sieve) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := s.PacketConn.ReadFrom(b)
		if err == nil && !mayRead(b[:n]) {
			continue
		}
		if code := refusal(b[:n]); err == nil && code != 0 {
			s.refused.Store(code)
		}
		return n, from, err
	}
}

// why says more about an allocation that failed, where the server told a reason
// that a person can do something about (RFC 8656, section 19).
func (s *sieve) why(err error) error {
	switch s.refused.Load() {
	case allocationQuota:
		err = fmt.Errorf("this device or its network has as many places there as it may have: close other connections, or use another relay: %w", err)
	case insufficientCapacity:
		err = fmt.Errorf("the relay is full: try again later, or use another one: %w", err)
	}
	return err
}

// refusal returns the code of a server's no to an allocation; 0: it is none.
func refusal(b []byte) int32 {
	class, _, ok := parseSTUN(b)
	if !ok || class != allocateFailure {
		return 0
	}
	if code := stunAttribute(b, errorCodeAttr); len(code) >= 4 {
		return int32(code[2]&7)*100 + int32(code[3])
	}
	return 0
}

// The part of TURN that the sieve looks at (RFC 8656, sections 12.4 and 17, and RFC 5766 for the channels).
const (
	channelHeader   = 4
	firstChannel    = 0x40 // of the first byte
	lastChannel     = 0x7f
	allocateSuccess = 0x0103
	allocateFailure = 0x0113
	lifetimeAttr    = 0x000d
	errorCodeAttr   = 0x0009

	allocationQuota      = 486
	insufficientCapacity = 508
)

func mayRead(b []byte) bool {
	if len(b) >= channelHeader && b[0] >= firstChannel && b[0] <= lastChannel {
		return int(binary.BigEndian.Uint16(b[2:])) <= len(b)-channelHeader
	}
	class, _, ok := parseSTUN(b)
	if !ok || class != allocateSuccess {
		return ok
	}
	life := stunAttribute(b, lifetimeAttr)
	return len(life) == 4 && binary.BigEndian.Uint32(life) >= minAllocation
}

// connectedUDP is a net.PacketConn with one peer.
type connectedUDP struct{ net.Conn }

// ReadFrom implements net.PacketConn.
func (c *connectedUDP) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := c.Read(b)
	return n, c.RemoteAddr(), err
}

// WriteTo implements net.PacketConn.
func (c *connectedUDP) WriteTo(b []byte, _ net.Addr) (int, error) { return c.Write(b) }

// watchedConn ends a context when reading has failed: the TURN client keeps that
// to itself.
type watchedConn struct {
	net.Conn
	failed context.CancelFunc
}

// Read implements net.Conn.
func (c watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.failed()
	}
	return n, err
}

// relayConn is an allocation as QUIC wants a packet connection: writes do not
// wait for the server, and a packet that cannot go is lost as packets are. The
// client's own WriteTo waits a round trip, or many if the server is gone, when
// an address is new.
type relayConn struct {
	net.PacketConn

	mu     sync.Mutex
	closed bool
	peers  map[netip.Addr]permission
	asking sync.WaitGroup // Add only under mu and before closed
}

type permission struct {
	granted bool
	denied  time.Time // zero while it is being asked for
}

// WriteTo implements net.PacketConn. It never fails but when closed.
func (c *relayConn) WriteTo(b []byte, to net.Addr) (int, error) {
	ip := addrPort(to).Addr()
	if !ip.Is4() { // the allocation is an IPv4 address
		return len(b), nil
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return 0, net.ErrClosed
	}
	p, known := c.peers[ip]
	if p.granted {
		c.mu.Unlock()
		_, _ = c.PacketConn.WriteTo(b, to) // as if lost
		return len(b), nil
	}
	again := !p.denied.IsZero() && time.Since(p.denied) > deniedPause
	if known && !again || !known && len(c.peers) == maxPermissions {
		c.mu.Unlock()
		return len(b), nil
	}
	c.peers[ip] = permission{}
	first := append([]byte(nil), b...)
	c.asking.Go(func() { c.introduce(ip, first, to) })
	c.mu.Unlock()
	return len(b), nil
}

// introduce sends the first packet to an address, for which the client gets
// the server's permission.
func (c *relayConn) introduce(ip netip.Addr, first []byte, to net.Addr) {
	_, err := c.PacketConn.WriteTo(first, to)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.peers[ip] = permission{denied: time.Now()}
		return
	}
	c.peers[ip] = permission{granted: true}
}

// close gives the allocation back.
func (c *relayConn) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	_ = c.Close()
}

// SetReadBuffer and SetWriteBuffer do nothing: QUIC asks for them and warns
// where they are missing.
func (c *relayConn) SetReadBuffer(int) error { return nil }

// SetWriteBuffer does nothing.
func (c *relayConn) SetWriteBuffer(int) error { return nil }
