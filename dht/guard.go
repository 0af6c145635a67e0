package dht

import (
	"context"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/internal/quota"
)

// recordRate is how many records a second one peer may put to a node. A device
// puts one in half an hour, a device that looks others up corrects a few.
const recordRate = 20

// guard keeps peers from having a node verify records without end: each costs it
// up to four signatures, and the library asks nobody before it verifies. It also
// tells the store who writes.
type guard struct {
	drops  *drops
	values *store
	now    func() time.Time
	peers  *quota.Rates[peer.ID]
}

// check is called by the library before each request. It cannot refuse one, but
// a put without a record is refused at no cost; who goes too far loses the
// connection too, and the next one counts against the rate of its address.
func (g *guard) check(_ context.Context, s network.Stream, m *pb.Message) {
	if m.GetType() != pb.Message_PUT_VALUE {
		return
	}
	o := originOf(s.Conn())
	switch {
	case !g.peers.Allow(o.peer, g.now()):
		g.drops.add(dropSourceRate)
		m.Record = nil
		_ = s.Conn().Close()
	case len(m.GetRecord().GetValue()) > maxRecordLen || len(m.GetKey()) > maxKeyLen:
		g.drops.add(dropOversize)
		m.Record = nil
	default:
		g.values.writing(m.GetKey(), o)
	}
}
