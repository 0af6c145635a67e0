package ice

import (
	"net/netip"
	"time"
)

// A device may take plain TLS connections at a port of its own (package tlssock),
// which is open in a firewall that lets nothing else in. A caller that knows only the
// device's id hears of that port in the answer, and dials it beside the engine's.
// TLS proves the device, as everywhere; the stream comes out of the device's other
// listener, so the caller tells it by a refusal that this negotiation is over.
const (
	// maxDirect is how many such addresses are told.
	maxDirect = 4
	// directDelay is the head start of the other candidates: it is seldom that only
	// this one works, and the device's listener knows nothing of negotiations.
	directDelay = 100 * time.Millisecond
)

// directCandidates are the addresses of Config.Direct.
func (t *Transport) directCandidates(own []netip.Addr) (out []candidate) {
	if t.cfg.Direct == nil {
		return nil
	}
	for _, at := range t.cfg.Direct() {
		addrs := []netip.Addr{at.Addr().Unmap()}
		if at.Addr().IsUnspecified() {
			addrs = own
		}
		for _, a := range addrs {
			c := candidate{directCandidate, netip.AddrPortFrom(a, at.Port())}
			fits := a.Is4() || !at.Addr().Is4()
			if fits && checkCandidate(c, t.cfg.Loopback) == nil && len(out) < maxDirect {
				out = append(out, c)
			}
		}
	}
	return out
}
