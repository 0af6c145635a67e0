package dht

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/internal/pause"
)

// A device that only listens sends nothing. Should its NAT forget the connection
// to a node, as one does that is restarted or gets another address, neither end
// hears of it: nodes push signals into the void until somebody looks. So the
// device asks one of its nodes every few seconds, in turn. What becomes of one
// connection becomes of all, so that one that fails has all of them asked.
const (
	// beatEvery is between two questions, ± 25 %: it bounds how long nobody can
	// call a device whose router has changed. They are 0.2 requests a second for a
	// device, spread over eight nodes.
	beatEvery = 5 * time.Second
	// beatShare of that time a node may take to answer: 3 s.
	beatShare = 0.6
)

func (n *Node) heartbeat(ctx context.Context) {
	for turn := 0; ; turn++ {
		if pause.For(ctx, jittered(n.cfg.beat)) != nil {
			return
		}
		nodes := n.presence.standing(ctx)
		if len(nodes) == 0 || n.answers(ctx, nodes[turn%len(nodes)]) || ctx.Err() != nil {
			continue
		}
		if gone := n.dead(ctx, nodes); gone > 0 {
			n.cfg.Logger.Info("dht: connections to nodes are gone, although nobody said so", "lost", gone, "of", len(nodes))
			n.presence.report(ctx, n.presence.moved)
		}
	}
}

// answers asks a node over the connection that there is.
func (n *Node) answers(ctx context.Context, id peer.ID) bool {
	ctx, cancel := context.WithTimeout(network.WithNoDial(ctx, "heartbeat"), time.Duration(beatShare*float64(n.cfg.beat)))
	defer cancel()
	return n.messenger.pm.Ping(ctx, id) == nil
}

// dead closes the connections to those nodes that do not answer, and counts them.
func (n *Node) dead(ctx context.Context, nodes []peer.ID) int {
	var silent atomic.Int64
	var asking sync.WaitGroup
	for _, id := range nodes {
		asking.Go(func() {
			if !n.answers(ctx, id) && ctx.Err() == nil {
				silent.Add(1)
				_ = n.host.Network().ClosePeer(id) // it is gone anyway
			}
		})
	}
	asking.Wait()
	return int(silent.Load())
}

// standing lists the nodes at which the device listens.
func (p *presence) standing(ctx context.Context) []peer.ID {
	listc := make(chan []peer.ID, 1)
	p.report(ctx, func() {
		var ids []peer.ID
		for id, s := range p.subs {
			if s.up {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		listc <- ids
	})
	select {
	case ids := <-listc:
		return ids
	case <-ctx.Done():
		return nil
	}
}
