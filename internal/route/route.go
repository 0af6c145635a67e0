// Package route describes the way that the bytes of a connection take: for a
// program by fields, for people as text. Carriers tell it, and the connection
// manager hands it on.
package route

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Path is the way of a connection's bytes. Two are equal if all of it is; the
// zero value tells nothing.
type Path struct {
	// Engine carries the bytes: "tcp", "udp" (QUIC), "webrtc", "unix", "shm", or an
	// adopted stream's carrier.
	Engine string
	// Over is the protocol below, where the engine may have several: "udp", "tcp".
	Over string
	// Class is what the far address is to ICE: "host", "srflx", "prflx", "mapped",
	// "direct", or "relay" if either end is one at a relay. Empty: ICE was not asked.
	Class string
	// Local and Remote are the two ends, as this side sees them. Not valid: the
	// bytes go between no such addresses.
	Local, Remote netip.AddrPort
	// Relay is the server of this side's relay; empty: the path uses none of this
	// side's.
	Relay string
	// Detail is what else people want to know, as a file's name.
	Detail string
}

// Between is the path of an engine between two addresses. Of what is no IP address
// with a port only the text is kept, in Detail.
func Between(engine, class string, local, remote net.Addr) Path {
	p := Path{Engine: engine, Class: class}
	var errs [2]error
	p.Local, errs[0] = plain(local)
	p.Remote, errs[1] = plain(remote)
	if errs[0] != nil || errs[1] != nil {
		p.Local, p.Remote, p.Detail = netip.AddrPort{}, netip.AddrPort{}, fmt.Sprintf("%v→%v", local, remote)
	}
	return p
}

// plain writes IPv4 addresses of a dual-stack socket as what they are.
func plain(a net.Addr) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(fmt.Sprint(a))
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), err
}

// String writes the path for people: “udp srflx 10.0.0.2:1000→203.0.113.14:3000”,
// “shm (512 KiB)”. It is not to be read by programs. Relay is left out.
func (p Path) String() string {
	parts := []string{p.Engine, p.Over, p.Class}
	if p.Local.IsValid() && p.Remote.IsValid() {
		parts = append(parts, p.Local.String()+"→"+p.Remote.String())
	}
	var b strings.Builder
	for _, part := range append(parts, p.Detail) {
		if part != "" && b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(part)
	}
	return b.String()
}

// MarshalText implements encoding.TextMarshaler with String.
func (p Path) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It takes nothing apart: the
// text becomes Detail, so that String returns it again.
func (p *Path) UnmarshalText(b []byte) error {
	*p = Path{Detail: string(b)}
	return nil
}
