package dht

import "time"

// Health tells how a node fares, for people and for alerts.
type Health struct {
	// Table is how many nodes the routing table knows, Connected how many peers
	// are connected.
	Table     int `json:"nodes"`
	Connected int `json:"connected"`
	// Neighbours is how many peers on the local networks were reached.
	Neighbours int `json:"neighbours"`
	// Holders is how many nodes showed this device's record when it was read
	// back after publishing. 0 means that nobody can find the device, whatever
	// else works.
	Holders int `json:"holders"`
	// Subscriptions is how many nodes push this device's signals, of Wanted.
	Subscriptions int `json:"subscriptions"`
	Wanted        int `json:"wanted"`
	// Dropped counts signals and requests that were dropped, by cause.
	Dropped map[string]uint64 `json:"dropped,omitempty"`
	// Queued is how many signals wait for Receive, Letters how many letters wait
	// for ReceiveLetter.
	Queued  int `json:"queued"`
	Letters int `json:"letters"`
	// ClockAhead is how far this device's clock is ahead of those of the nodes
	// that it listens at, by their median; negative: behind; 0: not known. Beyond
	// 30 s others refuse its signals.
	ClockAhead time.Duration `json:"clock_ahead_ns,omitempty"`
	// LastSent tells how the last signal fared whose nodes have all answered.
	LastSent Delivery `json:"last_sent"`
	// Listeners is how many streams of devices this node pushes to, Stored how
	// many bytes of signals it keeps for absent ones, with 512 more for each.
	Listeners int `json:"listeners"`
	Stored    int `json:"stored"`
}

// Health returns how the node fares. It does not block.
func (n *Node) Health() Health {
	h := Health{
		Table: n.kad.RoutingTable().Size(), Connected: len(n.host.Network().Peers()),
		Dropped: n.drops.byName(),
	}
	h.Listeners, h.Stored = n.hub.size()
	if n.presence != nil {
		h.Holders = int(n.presence.holders.Load())
		h.Subscriptions, h.Wanted = int(n.presence.up.Load()), int(n.presence.wanted.Load())
		h.Queued, h.Letters = n.inbox.queue.Len(), n.inbox.letterQueue.Len()
		h.ClockAhead = n.presence.clock.off()
	}
	if n.neighbours != nil {
		h.Neighbours = len(n.neighbours.peers())
	}
	if sum := n.lastSum.Load(); sum != nil {
		h.LastSent = *sum
	}
	return h
}
