package ice

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"peerlink/internal/pause"
	"peerlink/internal/portmap"
)

const (
	// keepMapping is how often a server is asked over UDP: it keeps the NAT's
	// mapping, the shortest of which live 30 s (RFC 4787 wants 2 min), and is how
	// soon a changed one is noticed.
	keepMapping = 10 * time.Second
	// keepStream is the same over TCP, whose mappings live longer; the pause is
	// bounded by servers that close idle connections.
	keepStream = 20 * time.Second
	// askAgain is the first pause after a failure, doubled up to maxAskAgain.
	askAgain    = time.Second
	maxAskAgain = time.Minute
	askTimeout  = 5 * time.Second
)

// reflect asks every server, over each network that an engine uses, for as long
// as the Transport lives.
func (t *Transport) reflect() {
	for _, e := range t.engines {
		for _, s := range t.servers {
			for _, network := range e.reflectsOver() {
				if s.asks(e.name()) {
					t.board.Go(func(ctx context.Context) { t.reflectFrom(ctx, e, s, network) })
				}
			}
		}
	}
}

// mapPorts keeps a port of the router's for each engine.
func (t *Transport) mapPorts() {
	if !t.cfg.MapPorts {
		return
	}
	const router = "router"
	for _, e := range t.engines {
		t.board.Go(func(ctx context.Context) {
			portmap.Keep(ctx, portmap.Config{Changed: t.changed.Next}, e.name(), e.localPort(), func(a netip.AddrPort, err error) {
				t.said(e.name(), router, err)
				if err != nil {
					t.log.Debug("ice: no mapped port", "engine", e.name(), "err", err)
					t.outside.clear(e.name(), router)
					return
				}
				t.outside.set(e.name(), router, candidate{mappedCandidate, a})
			})
		})
	}
}

// reflectFrom keeps what one server says of an engine's address in one family.
func (t *Transport) reflectFrom(ctx context.Context, e engine, s server, network string) {
	source := s.String() + " " + network
	again := askAgain
	heard := t.outside.await(e.name())
	for {
		// Taken first, so that no change falls between asking and waiting.
		changed := t.changed.Next()
		err := e.reflect(ctx, s, network, func(a netip.AddrPort) {
			c := candidate{srflxCandidate, a}
			if err := checkCandidate(c, t.cfg.Loopback); err != nil {
				t.said(e.name(), source, fmt.Errorf("it says %s: %w", a, err))
				t.outside.clear(e.name(), source)
				return
			}
			again = askAgain
			t.said(e.name(), source, nil)
			t.outside.set(e.name(), source, c)
			heard()
		})
		heard()
		if ctx.Err() != nil {
			return
		}
		t.outside.clear(e.name(), source)
		if errors.Is(err, errOtherFamily) {
			return
		}
		if !errors.Is(err, errNetworkChanged) {
			t.said(e.name(), source, err)
			t.log.Debug("ice: no reflexive address", "engine", e.name(), "server", source, "err", err, "again in", again)
			timer := time.NewTimer(again)
			select {
			case <-timer.C:
			case <-changed:
				again = askAgain / 2
			case <-ctx.Done():
			}
			timer.Stop()
			again = min(2*again, maxAskAgain)
			if _, none := errors.AsType[*net.DNSError](err); none {
				again = max(again, maxAskAgain/4)
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// said remembers a server's last failure, for reports.
func (t *Transport) said(engine, source string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		delete(t.silent, engine+" "+source)
		return
	}
	t.silent[engine+" "+source] = err.Error()
}

// tale is what a negotiation has tried, and why there is no relay.
func (t *Transport) tale(n *negotiation) string {
	t.mu.Lock()
	why := t.silent[engineUDP+" "+relaySource]
	t.mu.Unlock()
	tried := n.tale()
	if why == "" {
		return tried
	}
	return strings.TrimPrefix(tried+"; no relay: "+strings.ReplaceAll(why, "\n", ", "), "; ")
}

// resolve returns the server's address in a family ("tcp4", "udp6", …).
func (s server) resolve(ctx context.Context, network string) (netip.AddrPort, error) {
	family := "ip" + network[len(network)-1:]
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if ip, err := netip.ParseAddr(s.host); err == nil {
		if ip.Is4() != (family == "ip4") {
			return netip.AddrPort{}, errOtherFamily
		}
		return netip.AddrPortFrom(ip, s.port), nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, family, s.host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("look up %s: %w", s.host, err)
	}
	return netip.AddrPortFrom(ips[0].Unmap(), s.port), nil
}

var (
	errOtherFamily    = errors.New("it has no address of this family")
	errNetworkChanged = errors.New("the network has changed")
)

func (e *udpEngine) localPort() uint16 { return e.port }

func (e *tcpEngine) localPort() uint16 { return uint16(e.local.Port) }

// reflectsOver lists the networks of the socket.
func (e *udpEngine) reflectsOver() []string {
	if e.v6 {
		return []string{"udp4", "udp6"}
	}
	return []string{"udp4"}
}

// reflect asks again and again, and tells each answer, until one fails to come.
func (e *udpEngine) reflect(ctx context.Context, s server, network string, tell func(netip.AddrPort)) error {
	server, err := s.resolve(ctx, network)
	if err != nil {
		return err
	}
	for {
		changed := e.t.changed.Next()
		a, err := e.mux.ask(ctx, server)
		if err != nil {
			return err
		}
		tell(a)
		if pause.Until(ctx, keepMapping, changed) != nil {
			return context.Cause(ctx)
		}
	}
}

// reflectsOver lists the networks of the port, where dials can share it.
func (e *tcpEngine) reflectsOver() []string {
	switch {
	case !canSharePort: // another port's mapping would be of no use
		return nil
	case e.v6:
		return []string{"tcp4", "tcp6"}
	default:
		return []string{"tcp4"}
	}
}

// reflect keeps a connection from the shared port to the server, which keeps
// the NAT's mapping, and tells what the server sees.
func (e *tcpEngine) reflect(ctx context.Context, s server, network string, tell func(netip.AddrPort)) error {
	server, err := s.resolve(ctx, network)
	if err != nil {
		return err
	}
	changed := e.t.changed.Next()
	d := net.Dialer{Timeout: askTimeout, LocalAddr: e.local, Control: reusePort}
	conn, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	// The next connection has the same addresses and ports: leave none behind
	// that the system would have to remember.
	if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
		return err
	}
	for {
		var a netip.AddrPort
		if err := bounded(ctx, conn, askTimeout, func() (err error) {
			a, err = askStream(conn)
			return err
		}); err != nil {
			return err
		}
		tell(a)
		timer := time.NewTimer(keepStream)
		select {
		case <-timer.C:
		case <-changed:
			timer.Stop()
			return errNetworkChanged
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}
