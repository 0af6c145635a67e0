package dht

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"peerlink/internal/pause"

	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

// joinTimeout bounds one attempt to join.
const joinTimeout = 10 * time.Second

// joiner keeps the node in the network: it connects to bootstrap nodes, again
// and again while the routing table is empty or the network was lost, and now
// and then to those that were down. run owns it.
type joiner struct {
	pacer
	host  host.Host
	kad   *kad.IpfsDHT
	nodes []peer.AddrInfo // that were named by who runs us
	extra []peer.AddrInfo // that worked before
	log   *slog.Logger

	joined pause.Bell // the table has got its first entry

	mu    sync.Mutex
	empty bool // the table was, when it was last looked at
}

func newJoiner(h host.Host, d *kad.IpfsDHT, nodes, extra []peer.AddrInfo, log *slog.Logger) *joiner {
	self := func(ai peer.AddrInfo) bool { return ai.ID == h.ID() }
	named := func(ai peer.AddrInfo) bool {
		return self(ai) || slices.ContainsFunc(nodes, func(o peer.AddrInfo) bool { return o.ID == ai.ID })
	}
	return &joiner{
		host: h, kad: d, log: log, pacer: newPacer(), empty: true,
		nodes: slices.DeleteFunc(slices.Clone(nodes), self), extra: slices.DeleteFunc(slices.Clone(extra), named),
	}
}

// populated reports whether the routing table has an entry, and tells those who
// wait for it. The library adds entries on its own and tells nobody, so whoever
// looks at the table looks through this.
func (j *joiner) populated() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	was := !j.empty
	j.empty = j.kad.RoutingTable().Size() == 0
	if !j.empty && !was {
		j.joined.Ring()
	}
	return !j.empty
}

// alone reports whether the node knows nobody and was told of nobody to ask.
func (j *joiner) alone() bool { return len(j.nodes) == 0 && !j.populated() }

// wait blocks until the routing table has an entry, or ctx is done. A node with
// nobody to ask does not wait.
func (j *joiner) wait(ctx context.Context) error {
	for {
		c := j.joined.Next()
		if j.populated() || j.alone() {
			return nil
		}
		j.kick(askedWithin)
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// admit puts a peer that speaks our protocol into an empty routing table at
// once; the library would probe it first, which a table with entries can afford.
func (j *joiner) admit(p peer.ID) bool {
	if ok, err := j.host.Peerstore().SupportsProtocols(p, kadProtocol); err != nil || len(ok) == 0 {
		return false
	}
	if j.populated() {
		return true
	}
	if _, err := j.kad.RoutingTable().TryAddPeer(p, true, true); err != nil {
		return false
	}
	_ = j.kad.Bootstrap(context.Background()) // asks for a refresh, does not wait
	return j.populated()
}

// forsake closes the connection to a bootstrap node that did not say within libp2p's
// 5 s what it speaks, as it or the network was slow. It is asked once per
// connection, so over this one it could not be used for as long as it lives.
func (j *joiner) forsake(p peer.ID, why error) {
	if !slices.ContainsFunc(slices.Concat(j.nodes, j.extra), func(ai peer.AddrInfo) bool { return ai.ID == p }) {
		return
	}
	if known, err := j.host.Peerstore().GetProtocols(p); err != nil || len(known) > 0 {
		return // over another connection it has said it
	}
	j.log.Debug("dht: bootstrap node did not say what it speaks", "node", p.String(), "err", why)
	_ = j.host.Network().ClosePeer(p) // it is of no use
}

func (j *joiner) run(ctx context.Context) {
	j.pacer.run(ctx, func(ctx context.Context) bool {
		j.connect(ctx)
		return len(j.nodes)+len(j.extra) == 0 || j.populated() && len(j.host.Network().Peers()) > 0
	})
}

// connect tries all bootstrap nodes that are not connected, side by side, and
// while there is nobody else those that worked before.
func (j *joiner) connect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	var wg sync.WaitGroup
	nodes := j.nodes
	if !j.populated() {
		nodes = slices.Concat(nodes, j.extra)
	}
	for _, ai := range nodes {
		if j.host.Network().Connectedness(ai.ID) == network.Connected && j.populated() {
			continue
		}
		wg.Go(func() {
			if sw, ok := j.host.Network().(*swarm.Swarm); ok {
				sw.Backoff().Clear(ai.ID) // we have a back-off of our own
			}
			if err := j.host.Connect(ctx, ai); err != nil {
				j.log.Debug("dht: bootstrap node not reached", "node", ai.ID.String(), "err", err)
				return
			}
			if !j.admit(ai.ID) {
				j.log.Warn("dht: bootstrap node does not speak this network's protocol", "node", ai.ID.String(), "want", string(kadProtocol))
			}
		})
	}
	wg.Wait()
}

// watch follows who comes and goes until ctx is done. met is told of each node
// that speaks our protocol; it must not block.
func (j *joiner) watch(ctx context.Context, sub event.Subscription, met func(peer.ID)) {
	defer func() { _ = sub.Close() }()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-sub.Out():
			if !ok {
				return
			}
			switch e := e.(type) {
			case event.EvtPeerIdentificationCompleted:
				if j.admit(e.Peer) {
					met(e.Peer)
				}
			case event.EvtPeerIdentificationFailed:
				j.forsake(e.Peer, e.Reason)
			case event.EvtPeerConnectednessChanged:
				if e.Connectedness != network.Connected && len(j.host.Network().Peers()) == 0 {
					j.kick(lostWithin)
				}
			}
		}
	}
}
