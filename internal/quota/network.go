package quota

import "net/netip"

// Host returns what one stranger is taken to control: the IPv4 address (/32) or
// the IPv6 /64, the least that a customer gets, of "host:port" as RemoteAddr gives
// it. Text without an address gives the zero Prefix, which is one more key.
func Host(hostport string) netip.Prefix {
	ap, _ := netip.ParseAddrPort(hostport) // zero with an error
	return NetworkOf(ap.Addr(), 32, 64)
}

// NetworkOf returns the network of an address, of so many bits for IPv4 and for
// IPv6. IPv4 addresses in IPv6 are IPv4 addresses, and zones do not count. An
// address that is not valid gives the zero Prefix.
func NetworkOf(a netip.Addr, bits4, bits6 int) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := bits6
	if a.Is4() {
		bits = bits4
	}
	p, _ := a.Prefix(bits) // zero with an error, of an address that is not valid
	return p
}
