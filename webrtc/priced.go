package webrtc

import (
	enc "encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"peerlink/internal/calls"
)

// maxTargets is how many addresses get checks from one socket of a priced session:
// what a caller may name, and as many that only its packets tell.
const maxTargets = 16

// pricedSocket is a host's socket in the call of a stranger: an address gets the few
// checks that calls.Price allows, and one more for each that comes from there, until
// it has answered one. pion alone would send eight from each socket to every address
// that a packet claims to come from.
type pricedSocket struct {
	*net.UDPConn
	price *calls.Price

	mu      sync.Mutex
	targets map[netip.AddrPort]*target
}

// target is an address that checks go to.
type target struct {
	checks [][12]byte // that were sent, by transaction
	proven bool       // it has answered one
}

// ReadFromAddrPort is how pion's agent reads; what it asks servers goes by the
// socket's own methods.
func (c *pricedSocket) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err == nil {
		c.heard(b[:n], from)
	}
	return n, from, err
}

// WriteToAddrPort is how pion's agent writes. What is held back counts as sent: it
// could have been lost as well.
func (c *pricedSocket) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if !c.pay(b, to) {
		return len(b), nil
	}
	return c.WriteToUDPAddrPort(b, to)
}

// pay reports whether a packet may be sent. All but checks may: pion sends them to
// addresses that have answered, or as answers.
func (c *pricedSocket) pay(b []byte, to netip.AddrPort) bool {
	kind, tx := stunKind(b)
	if kind != stunRequest || enc.BigEndian.Uint16(b[stunHeader:]) != stunUsername { // as for a server
		return true
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.targets[to]
	switch {
	case t == nil && (len(c.targets) == maxTargets || !c.price.Pay(time.Now())):
		return false
	case t == nil:
		t = &target{}
		c.targets[to] = t
	case t.proven:
		return true
	case len(t.checks) >= c.price.Checks():
		return false
	}
	t.checks = append(t.checks, tx)
	return true
}

// heard notes what comes from an address.
func (c *pricedSocket) heard(b []byte, from netip.AddrPort) {
	kind, tx := stunKind(b)
	if kind != stunRequest && kind != stunSuccess {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.targets[netip.AddrPortFrom(from.Addr().Unmap(), from.Port())]
	switch {
	case t == nil || t.proven:
	case kind == stunSuccess:
		t.proven = slices.Contains(t.checks, tx)
	case len(t.checks) > 0:
		t.checks = t.checks[1:]
	}
}

// What tells STUN packets apart (RFC 8489, section 5): the type, the magic cookie,
// the transaction, and the first attribute, which pion makes the user name in checks.
const (
	stunHeader   = 20
	stunCookie   = 0x2112A442
	stunRequest  = 0x0001
	stunSuccess  = 0x0101
	stunUsername = 0x0006
)

// stunKind returns the type of a STUN packet with an attribute, or 0.
func stunKind(b []byte) (kind uint16, tx [12]byte) {
	if len(b) < stunHeader+4 || enc.BigEndian.Uint32(b[4:]) != stunCookie {
		return 0, tx
	}
	return enc.BigEndian.Uint16(b), [12]byte(b[8:stunHeader])
}
