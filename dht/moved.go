package dht

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"peerlink/internal/netwatch"
	"peerlink/internal/pause"
)

// movedWithin is how soon the network is joined again after this machine's own
// has changed: no crowd does that at one moment.
const movedWithin = 50 * time.Millisecond

// follow keeps up with this machine's network until ctx is done: a connection
// from an address that is gone stays silent for minutes before its end is
// noticed, and nobody can call the device until then.
func (n *Node) follow(ctx context.Context) {
	for range netwatch.Changes(ctx) {
		own, err := ownAddresses()
		if err != nil {
			n.cfg.Logger.Warn("dht: the network has changed, but its addresses cannot be read", "err", err)
			continue
		}
		n.moved(own)
	}
}

// moved closes the connections from addresses that this machine no longer has,
// and has whatever failed before tried again at once.
func (n *Node) moved(own map[netip.Addr]bool) {
	lost := 0
	var closing sync.WaitGroup
	for _, c := range n.host.Network().Conns() {
		if !fromOne(c, own) {
			lost++
			closing.Go(func() { _ = c.Close() }) // it is gone anyway
		}
	}
	closing.Wait()
	n.cfg.Logger.Info("dht: the network has changed", "addresses", len(own), "connections lost", lost)
	if sw, ok := n.host.Network().(*swarm.Swarm); ok {
		for _, p := range n.kad.RoutingTable().ListPeers() {
			sw.Backoff().Clear(p)
		}
	}
	n.joiner.restart(movedWithin)
	if n.auto != nil {
		pause.Tell(n.auto.lookc, struct{}{})
	}
	if n.presence != nil {
		n.life.Go(func(ctx context.Context) { n.presence.report(ctx, n.presence.moved) })
	}
}

// fromOne reports whether a connection's own address is one of own. One that
// cannot be read counts as one.
func fromOne(c network.Conn, own map[netip.Addr]bool) bool {
	a := ipOf(c.LocalMultiaddr())
	return !a.IsValid() || own[a]
}

// ownAddresses are those of the interfaces that are up.
func ownAddresses() (map[netip.Addr]bool, error) {
	up, err := netwatch.Interfaces()
	own := make(map[netip.Addr]bool)
	for _, i := range up {
		for _, p := range i.Prefixes {
			own[p.Addr().Unmap()] = true
		}
	}
	return own, err
}

// moved has the device listen anew at all nodes whose connection is gone, and
// none wait for having failed on a network that is no more. The owner calls it.
func (p *presence) moved() {
	clear(p.failed)
	for id, s := range p.subs {
		if p.n.host.Network().Connectedness(id) != network.Connected {
			p.drop(id, s)
			s.cancel()
		}
	}
	p.schedule(0)
}

// drop takes a subscription off the list, if it is the one that is on it.
func (p *presence) drop(id peer.ID, s *subscription) {
	if s.up {
		s.up = false
		p.up.Add(-1)
	}
	if p.subs[id] == s {
		delete(p.subs, id)
	}
}
