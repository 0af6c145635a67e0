package daemon

import (
	"net"
	"net/netip"
	"slices"

	"peerlink"
	"peerlink/ice"
	"peerlink/identity"
)

// What a Hop is.
const (
	HopHere   = "here"   // this device
	HopNAT    = "nat"    // a router that takes addresses of its own
	HopRelay  = "relay"  // a TURN server
	HopBroken = "broken" // no way was found
	HopThere  = "there"  // the other device
)

// Hop is a station of the path to a device.
type Hop struct {
	Kind string `json:"kind"`
	// Name is what the other device is called, or the relay's address.
	Name string `json:"name,omitempty"`
	Addr string `json:"addr,omitempty"` // as the other side sees it; empty: not known
	// By is how the bytes go on from here: "tcp", "udp", "shm", "unix"; empty for
	// the last one.
	By string `json:"by,omitempty"`
}

// lostHops is the path to a device that was not reached.
func lostHops(to identity.DeviceID) []Hop {
	return []Hop{{Kind: HopHere}, {Kind: HopBroken}, {Kind: HopThere, Name: to.Short()}}
}

// hopsOf tells which stations a link passes, as far as both sides know. r is the
// story of its negotiation, or the zero value.
func hopsOf(l peerlink.Connection, r ice.Report) []Hop {
	here, there := Hop{Kind: HopHere, By: l.Carrier}, Hop{Kind: HopThere, Name: l.Peer.Name}
	if there.Name == "" {
		there.Name = l.Peer.Device.Short()
	}
	p := l.Path
	if !p.Local.IsValid() || !p.Remote.IsValid() {
		if l.Carrier != "shm" && l.Carrier != "unix" {
			here.Addr, there.Addr = addrText(l.LocalAddr), addrText(l.RemoteAddr)
		}
		return []Hop{here, there}
	}
	here.By = p.Engine
	here.Addr, there.Addr = hostAddr(r.Local, p.Engine, p.Local), hostAddr(r.Remote, p.Engine, p.Remote)
	hops := []Hop{here}
	relayed := r.Way == "relay" || p.Class == "relay"
	at := p.Remote.Addr()
	private := !relayed && (at.IsPrivate() || at.IsLoopback() || at.IsLinkLocalUnicast())
	if nat, has := outside(r.Local, p.Engine); has && !private {
		hops = append(hops, Hop{Kind: HopNAT, Addr: nat.String(), By: p.Engine})
	}
	if relayed {
		hops = append(hops, relayHop(p))
	}
	nat, has := outside(r.Remote, p.Engine)
	if !relayed { // the address that works is the one to show
		nat, has = at, len(r.Remote) > 0 && !isHost(r.Remote, p.Remote)
	}
	if has && !private {
		hops = append(hops, Hop{Kind: HopNAT, Addr: nat.String(), By: p.Engine})
	}
	return append(hops, there)
}

// relayHop is the relay of a path: this side's, or the other one's.
func relayHop(p peerlink.Path) Hop {
	h := Hop{Kind: HopRelay, Name: p.Relay, Addr: p.Local.String(), By: p.Engine}
	if p.Relay == "" {
		h.Addr = p.Remote.String()
	}
	return h
}

// hostAddr is the interface's address that a side told; of the path if that is
// one, or none is known.
func hostAddr(told []ice.CandidateReport, engine string, of netip.AddrPort) string {
	if len(told) == 0 || isHost(told, of) {
		return of.String()
	}
	for _, c := range told {
		if c.Engine == engine && c.Type == "host" {
			return c.Address.String()
		}
	}
	return ""
}

func isHost(told []ice.CandidateReport, a netip.AddrPort) bool {
	return slices.ContainsFunc(told, func(c ice.CandidateReport) bool { return c.Type == "host" && c.Address.Addr() == a.Addr() })
}

// outside is the address that a side has on the other side of its NAT, if it has
// one.
func outside(told []ice.CandidateReport, engine string) (netip.Addr, bool) {
	for _, c := range told {
		if c.Engine == engine && (c.Type == "srflx" || c.Type == "mapped") && !isHost(told, c.Address) {
			return c.Address.Addr(), true
		}
	}
	return netip.Addr{}, false
}

func addrText(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}
