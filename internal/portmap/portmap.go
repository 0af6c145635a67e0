// Package portmap asks the router of the local network for ports that lead from
// outside to this machine: by NAT-PMP, or else by UPnP.
//
//	portmap.Keep(ctx, portmap.Config{}, "udp", 4100, func(a netip.AddrPort, err error) {
//		// a is the address outside, from now on; the zero value: there is none, and why
//	})
//
// A router is a stranger. What it says is bounded in size and time, it is
// followed nowhere (no redirects, no other hosts), what it calls its public
// address must be one, and a mapping that it says leads elsewhere is not used.
// Mappings last an hour, are renewed in time, and are removed at the end.
package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"peerlink/internal/pause"
)

const (
	life = time.Hour
	// renewAfter leaves two more tries before a mapping ends.
	renewAfter = 20 * time.Minute
	// tryAgain is the pause after no router gave a port: most never will.
	tryAgain = 10 * time.Minute
	// askLimit bounds everything that is asked of routers for one mapping, and
	// removeLimit what is asked at the end.
	askLimit    = 10 * time.Second
	removeLimit = 1500 * time.Millisecond
	// description is what people see in their router's list.
	description = "peerlink"
	// conflicts is how many other ports are tried where the own one is taken.
	conflicts = 3
)

// Config varies Keep. The zero value is for use.
type Config struct {
	// Changed, if it is not nil, returns a channel that is closed when the
	// network has changed: routers are then asked again.
	Changed func() <-chan struct{}

	// For tests: where routers are, and whether their network may be this
	// machine's loopback.
	gateways func() []netip.Addr
	locate   func(context.Context) ([]string, error)
	loopback bool
}

// mapping is a port that a router has given.
type mapping struct {
	outside netip.AddrPort
	life    time.Duration
	remove  func(context.Context) error
}

// Keep has port mapped for protocol ("tcp" or "udp") until ctx ends, and tells
// each address that comes of it. It blocks for as long, and 1.5 s longer to give
// the port back. A machine with a public IPv4 address, or without any, needs
// none: Keep then only waits for the network to change.
func Keep(ctx context.Context, cfg Config, protocol string, port uint16, tell func(netip.AddrPort, error)) {
	var m *mapping
	defer func() {
		if m != nil {
			cfg.giveBack(m)
		}
	}()
	for ctx.Err() == nil {
		var changed <-chan struct{}
		if cfg.Changed != nil {
			changed = cfg.Changed()
		}
		next, err := cfg.request(ctx, protocol, port)
		if ctx.Err() != nil {
			if next != nil {
				m = next
			}
			return
		}
		if m != nil && (next == nil || next.outside != m.outside) {
			cfg.giveBack(m)
		}
		m = next
		wait := tryAgain
		if err == nil {
			tell(m.outside, nil)
			wait = min(renewAfter, m.life/3)
		} else {
			tell(netip.AddrPort{}, err)
		}
		_ = pause.Until(ctx, max(wait, time.Second), changed)
	}
}

// giveBack removes a mapping. The context of Keep has ended by then.
func (cfg Config) giveBack(m *mapping) {
	ctx, cancel := context.WithTimeout(context.Background(), removeLimit)
	defer cancel()
	_ = m.remove(ctx) // it ends by itself within the hour
}

var errNoNeed = errors.New("portmap: this machine has no private IPv4 address, so no router stands before it")

// request asks by NAT-PMP and then by UPnP, whose search takes seconds.
func (cfg Config) request(ctx context.Context, protocol string, port uint16) (*mapping, error) {
	own := cfg.privateAddrs()
	if len(own) == 0 {
		return nil, errNoNeed
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	m, err := cfg.byPMP(ctx, protocol, port)
	if err == nil {
		return m, nil
	}
	m, err2 := cfg.byUPnP(ctx, own, protocol, port)
	if err2 == nil {
		return m, nil
	}
	return nil, fmt.Errorf("portmap: %w; %w", err, err2)
}

// privateAddrs are this machine's addresses behind a router. One public address
// makes it reachable without.
func (cfg Config) privateAddrs() []netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !p.Addr().Is4() {
			continue
		}
		switch ip := p.Addr(); {
		case ip.IsLoopback():
			if cfg.loopback {
				out = append(out, ip)
			}
		case ip.IsPrivate():
			out = append(out, ip)
		case cfg.loopback:
		case ip.IsGlobalUnicast() && !isShared(ip):
			return nil
		}
	}
	return out
}

// checkOutside refuses what cannot be reached from outside: a router behind
// another one gives its own private address, and a lying one anything.
func checkOutside(a netip.AddrPort) error {
	ip := a.Addr()
	switch {
	case !ip.Is4() || a.Port() == 0:
		return fmt.Errorf("%s is no address and port", a)
	case !ip.IsGlobalUnicast(), ip.IsPrivate(), ip.IsLoopback(), ip.IsLinkLocalUnicast(), isShared(ip), ip.As4()[0] >= 224, ip.As4()[0] == 0:
		return fmt.Errorf("%s is no public address", ip)
	}
	return nil
}

// isShared is for RFC 6598: carriers' own NATs.
func isShared(ip netip.Addr) bool { return netip.MustParsePrefix("100.64.0.0/10").Contains(ip) }
