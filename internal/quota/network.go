package quota

import "net/netip"

// Network returns what one stranger is taken to control: an IPv4 address (/32)
// or an IPv6 /64, the least that a customer gets. An address that is not valid
// gives the zero Prefix, which is one more key.
func Network(a netip.Addr) netip.Prefix { return NetworkOf(a, 32, 64) }

// Host is Network of the address in "host:port", as RemoteAddr gives it. Text
// without an address gives the zero Prefix.
func Host(hostport string) netip.Prefix {
	ap, _ := netip.ParseAddrPort(hostport) // zero with an error
	return Network(ap.Addr())
}

// NetworkOf is Network for prefixes of other lengths, in bits. IPv4 addresses in
// IPv6 are IPv4 addresses, and zones do not count.
func NetworkOf(a netip.Addr, bits4, bits6 int) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := bits6
	if a.Is4() {
		bits = bits4
	}
	p, _ := a.Prefix(bits) // zero with an error, of an address that is not valid
	return p
}
