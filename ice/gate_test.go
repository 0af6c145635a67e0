package ice

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"peerlink/internal/proving"
)

// caller is a connection that only knows where it is from.
type caller struct {
	net.Conn
	from string
}

func (c *caller) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from))
}

// fault: J3
func TestTheGateDropsTheOldestOfAFullSource(t *testing.T) {
	g, now := newGate(), time.Now()
	first := g.Admit(&caller{from: "192.0.2.1:1"}, now).In
	other := g.Admit(&caller{from: "198.51.100.1:1"}, now).In
	for range maxUncheckedOfOne - 1 {
		if out := g.Admit(&caller{from: "192.0.2.1:2"}, now).Out; out != nil {
			t.Fatal("one was dropped while there was room")
		}
	}
	if out := g.Admit(&caller{from: "192.0.2.1:2"}, now).Out; out != first || first.Leave() {
		t.Error("the oldest of the full source is still in")
	}
	if !other.Leave() {
		t.Error("another source paid for it")
	}
	if n := g.Held(); n != maxUncheckedOfOne {
		t.Errorf("%d of one source", n)
	}
}

func TestTheGateTakesASlash64ForOneSource(t *testing.T) {
	g, now := newGate(), time.Now()
	first := g.Admit(&caller{from: "[2001:db8::1]:1"}, now).In
	for range maxUncheckedOfOne {
		g.Admit(&caller{from: "[2001:db8::ffff:2]:1"}, now)
	}
	if first.Leave() {
		t.Error("addresses of one /64 count apart")
	}
}

func TestTheGateIsBoundedInAllAndEmptiesCompletely(t *testing.T) {
	g, now := newGate(), time.Now()
	var all []*proving.Place
	for i := range 2 * maxUnchecked {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		all = append(all, g.Admit(&caller{from: netip.AddrPortFrom(a, 1).String()}, now).In)
	}
	if n := g.Held(); n != maxUnchecked {
		t.Errorf("%d are in", n)
	}
	left := 0
	for _, p := range all {
		if p.Leave() {
			left++
		}
	}
	if left != maxUnchecked || g.Held() != 0 {
		t.Errorf("%d left, %d stay", left, g.Held())
	}
}
