package ice

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/wlynxg/anet"
)

// Bounds on candidates, in what is sent and in what is taken: 32 in an offer
// or an answer, shared evenly by the two engines. What is beyond is cut.
const (
	maxCandidates       = 32
	candidatesPerEngine = maxCandidates / 2
)

// candidateType says where an address comes from (RFC 8445, section 4).
type candidateType uint8

const (
	hostCandidate   candidateType = 0 // an interface's own address
	srflxCandidate  candidateType = 1 // seen by a STUN server
	mappedCandidate candidateType = 2 // a router's port mapping
	relayCandidate  candidateType = 3 // an allocation at a TURN server (UDP only)
	directCandidate candidateType = 4 // takes TLS at once, without a check (TCP only)
)

// String writes the type or the candidate for people.
func (t candidateType) String() string {
	switch t {
	case hostCandidate:
		return "host"
	case srflxCandidate:
		return "srflx"
	case mappedCandidate:
		return "mapped"
	case relayCandidate:
		return "relay"
	case directCandidate:
		return "direct"
	default:
		return fmt.Sprintf("type %d", uint8(t))
	}
}

// candidate is an address at which a device may be reached.
type candidate struct {
	typ  candidateType
	addr netip.AddrPort
}

// String writes the type or the candidate for people.
func (c candidate) String() string { return c.typ.String() + " " + c.addr.String() }

// checkCandidate refuses what must not be dialled on a stranger's word:
// addresses that are no single host's, this machine's own loopback unless the
// configuration says that both ends share it, and link-local addresses of
// unknown interface. Private addresses pass: they are what a local network is
// made of, and a check tells nothing but a random id. How much is sent to what
// passes, and to which private ones on a stranger's word, calls.Price says.
func checkCandidate(c candidate, loopback bool) error {
	a := c.addr.Addr()
	switch {
	case c.typ > directCandidate:
		return fmt.Errorf("candidate %s: unknown type", c)
	case !a.IsValid() || c.addr.Port() == 0:
		return fmt.Errorf("candidate %s: no address and port", c)
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("candidate %s: not one host's address", c)
	case a.IsLoopback() && !loopback:
		return fmt.Errorf("candidate %s: loopback is not enabled", c)
	case a.IsLinkLocalUnicast() && a.Is4():
		return fmt.Errorf("candidate %s: link-local", c)
	case a.IsLinkLocalUnicast() && a.Zone() == "":
		return fmt.Errorf("candidate %s: link-local without a zone", c)
	case !a.IsLinkLocalUnicast() && a.Zone() != "":
		return fmt.Errorf("candidate %s: a zone on an address that needs none", c)
	}
	return nil
}

// hostAddresses lists the addresses of this machine's interfaces. Link-local
// ones are left out: their zone means nothing on another machine. It goes
// through anet, as Android forbids what the standard library does.
func hostAddresses() ([]netip.Addr, error) {
	addrs, err := anet.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("ice: list interface addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(n.IP); ok && !ip.Unmap().IsLinkLocalUnicast() {
			out = append(out, ip.Unmap())
		}
	}
	return out, nil
}

// hostCandidates pairs the addresses with a port, best first: loopback (the
// shortest way where it is enabled at all), then IPv4, then IPv6. A socket
// that is bound to IPv4 alone has no IPv6 candidates.
func hostCandidates(addrs []netip.Addr, port uint16, loopback, v6 bool) []candidate {
	var out []candidate
	for _, a := range addrs {
		c := candidate{hostCandidate, netip.AddrPortFrom(a, port)}
		if checkCandidate(c, loopback) == nil && (v6 || a.Is4()) && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	rank := func(c candidate) int {
		switch a := c.addr.Addr(); {
		case a.IsLoopback() && a.Is4():
			return 0
		case a.IsLoopback():
			return 1
		case a.Is4():
			return 2
		default:
			return 3
		}
	}
	slices.SortStableFunc(out, func(a, b candidate) int { return rank(a) - rank(b) })
	return out[:min(len(out), candidatesPerEngine)]
}

// maxOutside is how many of an engine's candidates may come from servers and
// routers: they take the places of the least likely host candidates.
const maxOutside = 8

// withOutside puts the candidates that servers and routers have told behind
// those of the interfaces. One that is an interface's own address is left out.
func withOutside(hosts, outside []candidate) []candidate {
	var more []candidate
	for _, c := range outside {
		same := func(h candidate) bool { return h.addr == c.addr }
		if len(more) < maxOutside && !slices.ContainsFunc(hosts, same) && !slices.ContainsFunc(more, same) {
			more = append(more, c)
		}
	}
	return append(slices.Clone(hosts[:min(len(hosts), candidatesPerEngine-len(more))]), more...)
}
