package tlssock

import (
	"net"
	"net/netip"
	"testing"
)

// stranger is a connection of which only the remote address matters.
type stranger struct {
	net.Conn
	addr net.Addr
}

func (s stranger) RemoteAddr() net.Addr { return s.addr }

func from(ip string) stranger {
	return stranger{addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 1))}
}

func TestPrefixGroupsWhatOneCustomerHolds(t *testing.T) {
	for _, tt := range [][2]string{
		{"192.0.2.7", "192.0.2.0/24"},
		{"::ffff:192.0.2.7", "192.0.2.0/24"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"fe80::1%eth0", "fe80::/64"},
	} {
		if got := prefixOf(from(tt[0]).RemoteAddr()).String(); got != tt[1] {
			t.Errorf("%s: %s, want %s", tt[0], got, tt[1])
		}
	}
	if got := prefixOf(&net.UnixAddr{Name: "x"}); got != (netip.Prefix{}) {
		t.Errorf("a Unix address: %v", got)
	}
}
