package dht

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/zeroconf/v2"

	"peerlink/internal/netwatch"
	"peerlink/internal/pause"
)

// What a machine announces on its local networks by multicast DNS (RFC 6762,
// DNS-SD), and hears of others. Whoever is on the network can claim anything: what
// is heard is a place to ask, never an identity, and only addresses inside this
// machine's own networks are told, so that nobody can point it elsewhere. IPv6
// link-local addresses are left out, as the answers name no zone. The library's
// memory of what it heard ends with each round.

// Bounds of a round.
const (
	mdnsRound         = 30 * time.Second // ± 25 %
	mdnsFirst         = time.Second      // the first on a network, then twice as long each time
	mdnsPause         = 5 * time.Second  // before a look whether there is a network by now
	maxAnnounced      = 64               // services told in a round
	maxAnnouncedText  = 16               // strings of one service
	maxAnnouncedLen   = 255
	maxAnnouncedAddrs = 8 // of one service
	mdnsTTL           = 120
	maxLANs           = 16
)

// announcer is what is announced, and who hears of others. Its fields must not
// change while it runs.
type announcer struct {
	kind string   // the DNS-SD type, such as "_peerlink._tcp"
	name string   // the instance, unique on the network: random, as all see it
	port uint16   // where the service listens
	text []string // its TXT strings
	// found is called for each other service, again in every round, on one
	// goroutine of the announcer: it must not block.
	found func(announced)
	log   *slog.Logger
}

// announced is another service, as it says.
type announced struct {
	text  []string
	addrs []netip.AddrPort
}

// run announces and looks until ctx is done, and then says goodbye. A machine
// without a network, or one that loses it, is no error: it goes on when there is
// one again.
func (s announcer) run(ctx context.Context) {
	var server *zeroconf.Server
	var had []netwatch.Interface
	defer func() {
		if server != nil {
			server.Shutdown()
		}
	}()
	round := mdnsFirst
	for ctx.Err() == nil {
		nets := localNets()
		if server == nil || !slices.EqualFunc(had, nets, func(a, b netwatch.Interface) bool {
			return a.Index == b.Index && slices.Equal(a.Prefixes, b.Prefixes)
		}) {
			if server != nil {
				server.Shutdown()
				server = nil
			}
			had, round = nets, mdnsFirst
			server = s.announce(nets)
		}
		if server == nil {
			_ = pause.For(ctx, mdnsPause)
			continue
		}
		// Those who come up together miss each other's first question, and an
		// address may take a second to be usable: the first rounds are short.
		s.look(ctx, nets, round)
		round = min(2*round, mdnsRound)
	}
}

// announce registers the service; nil if that cannot be, for now.
func (s announcer) announce(nets []netwatch.Interface) *zeroconf.Server {
	if len(nets) == 0 {
		return nil
	}
	var ips []string
	var ifaces []net.Interface
	for _, n := range nets {
		ifaces = append(ifaces, n.Interface)
		for _, p := range n.Prefixes {
			if len(ips) < maxAnnouncedAddrs {
				ips = append(ips, p.Addr().String())
			}
		}
	}
	server, err := zeroconf.RegisterProxy(s.name, s.kind, "local", int(s.port), s.name, ips, s.text, ifaces, zeroconf.TTL(mdnsTTL))
	if err != nil {
		s.log.Warn("lan: this device cannot be announced", "err", err)
		return nil
	}
	return server
}

// look asks for a round and tells what answers.
func (s announcer) look(ctx context.Context, nets []netwatch.Interface, round time.Duration) {
	rctx, cancel := context.WithTimeout(ctx, round*3/4+rand.N(round/2))
	defer cancel()
	var ifaces []net.Interface
	for _, n := range nets {
		ifaces = append(ifaces, n.Interface)
	}
	for _, ip := range []zeroconf.IPType{zeroconf.IPv4AndIPv6, zeroconf.IPv4, zeroconf.IPv6} {
		entries, over, heard := make(chan *zeroconf.ServiceEntry), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(heard)
			s.hear(entries, over, nets)
		}()
		err := zeroconf.Browse(rctx, s.kind, "local", entries, zeroconf.SelectIfaces(ifaces), zeroconf.SelectIPTraffic(ip))
		close(over) // it has closed entries, but not where it could not begin
		<-heard
		if err == nil || rctx.Err() != nil {
			return
		}
		s.log.Debug("lan: look around", "err", err) // the machine may have only one of IPv4 and IPv6
	}
	_ = pause.For(rctx, mdnsPause)
}

// hear tells what comes from entries until it is closed, or over is.
func (s announcer) hear(entries <-chan *zeroconf.ServiceEntry, over <-chan struct{}, nets []netwatch.Interface) {
	told := 0
	for {
		select {
		case <-over:
			return
		case e, ok := <-entries:
			if !ok {
				return
			}
			p, ok := s.read(e, nets)
			if !ok || told >= maxAnnounced {
				continue
			}
			if told++; told == maxAnnounced {
				s.log.Warn("lan: too many devices answer, the others must wait", "told", told)
			}
			s.found(p)
		}
	}
}

// read takes from an entry what may be believed of it: nothing but where to ask.
func (s announcer) read(e *zeroconf.ServiceEntry, nets []netwatch.Interface) (announced, bool) {
	if e.Instance == s.name || len(e.Instance) > maxAnnouncedLen || e.Port <= 0 || e.Port > 1<<16-1 {
		return announced{}, false
	}
	var p announced
	for _, t := range e.Text[:min(len(e.Text), maxAnnouncedText)] {
		if len(t) <= maxAnnouncedLen {
			p.text = append(p.text, t)
		}
	}
	for _, ip := range slices.Concat(e.AddrIPv4, e.AddrIPv6) {
		a, ok := netip.AddrFromSlice(ip)
		if a = a.Unmap(); !ok || len(p.addrs) >= maxAnnouncedAddrs || !onLAN(a, nets) {
			continue
		}
		if ap := netip.AddrPortFrom(a, uint16(e.Port)); !slices.Contains(p.addrs, ap) {
			p.addrs = append(p.addrs, ap)
		}
	}
	return p, len(p.addrs) > 0
}

// localNets lists the interfaces that take multicast, are no loopback and have an
// address that can be dialled, with such addresses alone.
func localNets() (nets []netwatch.Interface) {
	up, _ := netwatch.Interfaces() // none, for now
	for _, i := range up {
		i.Prefixes = slices.DeleteFunc(i.Prefixes, func(p netip.Prefix) bool { return !dialable(p.Addr()) })
		ours := i.Flags&net.FlagMulticast != 0 && i.Flags&(net.FlagLoopback|net.FlagPointToPoint) == 0
		if ours && len(i.Prefixes) > 0 && len(nets) < maxLANs {
			nets = append(nets, i)
		}
	}
	return nets
}

// dialable reports whether an address can be dialled without more being said.
func dialable(a netip.Addr) bool {
	return a.IsValid() && !a.IsLoopback() && !a.IsMulticast() && !a.IsUnspecified() && (a.Is4() || !a.IsLinkLocalUnicast())
}

func onLAN(a netip.Addr, nets []netwatch.Interface) bool {
	if !dialable(a) {
		return false
	}
	return slices.ContainsFunc(nets, func(n netwatch.Interface) bool {
		return slices.ContainsFunc(n.Prefixes, func(p netip.Prefix) bool { return p.Masked().Contains(a) })
	})
}
