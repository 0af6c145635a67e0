package ice

import (
	"net"
	"net/netip"
	"testing"
)

// caller is a connection that only knows where it is from and that it is closed.
type caller struct {
	net.Conn
	from   string
	closed bool
}

func (c *caller) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from))
}
func (c *caller) Close() error { c.closed = true; return nil }

// fault: J3
func TestTheGateDropsTheOldestOfAFullSource(t *testing.T) {
	var g gate
	first := &caller{from: "192.0.2.1:1"}
	v := g.admit(first)
	other := &caller{from: "198.51.100.1:1"}
	g.admit(other)
	for range maxUncheckedOfOne {
		g.admit(&caller{from: "192.0.2.1:2"})
	}
	if !first.closed || g.leave(v) {
		t.Error("the oldest of the full source is still in")
	}
	if other.closed {
		t.Error("another source paid for it")
	}
	if n := g.from[netip.MustParsePrefix("192.0.2.1/32")]; n != maxUncheckedOfOne {
		t.Errorf("%d of one source", n)
	}
}

func TestTheGateTakesASlash64ForOneSource(t *testing.T) {
	var g gate
	first := &caller{from: "[2001:db8::1]:1"}
	g.admit(first)
	for range maxUncheckedOfOne {
		g.admit(&caller{from: "[2001:db8::ffff:2]:1"})
	}
	if !first.closed {
		t.Error("addresses of one /64 count apart")
	}
}

func TestTheGateIsBoundedInAllAndEmptiesCompletely(t *testing.T) {
	var g gate
	var all []*visitor
	for i := range 2 * maxUnchecked {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		all = append(all, g.admit(&caller{from: netip.AddrPortFrom(a, 1).String()}))
	}
	if n := g.all.Len(); n != maxUnchecked {
		t.Errorf("%d are in", n)
	}
	left := 0
	for _, v := range all {
		if g.leave(v) {
			left++
		}
	}
	if left != maxUnchecked || g.all.Len() != 0 || len(g.from) != 0 {
		t.Errorf("%d left, %d stay, %d sources", left, g.all.Len(), len(g.from))
	}
}
