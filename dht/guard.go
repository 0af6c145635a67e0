package dht

import (
	"context"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/network"
)

// recordRate is how many records a second one peer may put to a node, and its
// network ten times that. A device puts one in half an hour, a device that looks
// others up corrects a few.
const recordRate = 20

// guard keeps peers from having a node verify records without end: each costs it
// up to four signatures, and the library asks nobody before it verifies. It also
// tells the store who writes.
type guard struct {
	drops  *drops
	values *store
	now    func() time.Time
	rates  originRates
}

// check is called by the library before each request. It cannot refuse one, but
// a put without a record is refused at no cost; a peer that goes too far loses the
// connection too, and the next one counts against the rate of its address. A peer
// whose network goes too far keeps it: others there are to blame.
func (g *guard) check(_ context.Context, s network.Stream, m *pb.Message) {
	if m.GetType() != pb.Message_PUT_VALUE {
		return
	}
	o := originOf(s.Conn())
	switch {
	case !g.rates.peers.Allow(o.peer, g.now()):
		g.drops.add(dropSourceRate)
		m.Record = nil
		_ = s.Conn().Close()
	case !g.rates.allowNetwork(o, g.now()):
		g.drops.add(dropSourceRate)
		m.Record = nil
	case len(m.GetRecord().GetValue()) > maxRecordLen || len(m.GetKey()) > maxKeyLen:
		g.drops.add(dropOversize)
		m.Record = nil
	default:
		g.values.writing(m.GetKey(), o)
	}
}
