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
	var had []localNet
	defer func() {
		if server != nil {
			server.Shutdown()
		}
	}()
	round := mdnsFirst
	for ctx.Err() == nil {
		nets := localNets()
		if server == nil || !slices.EqualFunc(had, nets, func(a, b localNet) bool {
			return a.iface.Index == b.iface.Index && slices.Equal(a.prefixes, b.prefixes)
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
func (s announcer) announce(nets []localNet) *zeroconf.Server {
	if len(nets) == 0 {
		return nil
	}
	var ips []string
	var ifaces []net.Interface
	for _, n := range nets {
		ifaces = append(ifaces, n.iface)
		for _, p := range n.prefixes {
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
func (s announcer) look(ctx context.Context, nets []localNet, round time.Duration) {
	rctx, cancel := context.WithTimeout(ctx, round*3/4+rand.N(round/2))
	defer cancel()
	var ifaces []net.Interface
	for _, n := range nets {
		ifaces = append(ifaces, n.iface)
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
func (s announcer) hear(entries <-chan *zeroconf.ServiceEntry, over <-chan struct{}, nets []localNet) {
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
func (s announcer) read(e *zeroconf.ServiceEntry, nets []localNet) (announced, bool) {
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

// localNet is an interface with the prefixes it is in.
type localNet struct {
	iface    net.Interface
	prefixes []netip.Prefix // with the machine's own address
}

// localNets lists the interfaces that are up, take multicast, are no loopback
// and have an address.
func localNets() []localNet {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var nets []localNet
	for _, i := range ifaces {
		const want = net.FlagUp | net.FlagMulticast
		if i.Flags&want != want || i.Flags&(net.FlagLoopback|net.FlagPointToPoint) != 0 || len(nets) == maxLANs {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		n := localNet{iface: i}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && dialable(p.Addr()) {
				n.prefixes = append(n.prefixes, p)
			}
		}
		if len(n.prefixes) > 0 {
			nets = append(nets, n)
		}
	}
	return nets
}

// dialable reports whether an address can be dialled without more being said.
func dialable(a netip.Addr) bool {
	return a.IsValid() && !a.IsLoopback() && !a.IsMulticast() && !a.IsUnspecified() && (a.Is4() || !a.IsLinkLocalUnicast())
}

func onLAN(a netip.Addr, nets []localNet) bool {
	if !dialable(a) {
		return false
	}
	return slices.ContainsFunc(nets, func(n localNet) bool {
		return slices.ContainsFunc(n.prefixes, func(p netip.Prefix) bool { return p.Masked().Contains(a) })
	})
}
