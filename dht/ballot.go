package dht

import (
	"cmp"

	"peerlink/identity"
)

// ballot is what nodes hold under one number. Each node kept the invite that it
// saw first, so a late one cannot win against the nodes that have the first. Ids of
// nodes cost nothing: devices are held against each other by the networks of the
// nodes that hold them, then by nodes, then by which has the nearest node. No order
// of arrival and no claim of an invite counts.
type ballot struct {
	asked int
	votes map[identity.DeviceID]vote
}

type vote struct {
	places  map[origin]bool // networks; nodes of which none is known count by themselves
	nodes   int
	nearest int
}

func (b *ballot) cast(id identity.DeviceID, from origin, rank int) {
	v, known := b.votes[id]
	if !known {
		v = vote{places: make(map[origin]bool), nearest: rank}
	}
	if from.network.IsValid() {
		from.peer = ""
	}
	v.places[from] = true
	v.nodes++
	v.nearest = min(v.nearest, rank)
	b.votes[id] = v
}

// winner is the device that most hold; not ok: none holds any.
func (b *ballot) winner() (id identity.DeviceID, ok bool) {
	var best vote
	for device, v := range b.votes {
		if !ok || cmp.Or(cmp.Compare(len(v.places), len(best.places)), cmp.Compare(v.nodes, best.nodes), cmp.Compare(best.nearest, v.nearest)) > 0 {
			id, best, ok = device, v, true
		}
	}
	return id, ok
}
