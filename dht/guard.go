package dht

import (
	"context"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// recordRate is how many records a second one peer may put to a node. A device
// puts one in half an hour, a device that looks others up corrects a few.
const recordRate = 20

// guard keeps peers from having a node verify records without end: each costs it
// up to four signatures, and the library asks nobody before it verifies.
type guard struct {
	drops *drops
	now   func() time.Time
	rate  int
	peers *lru.Cache[peer.ID, *rate.Limiter]
}

func newGuard(d *drops) *guard {
	return &guard{drops: d, now: time.Now, rate: recordRate, peers: newLRU[peer.ID, *rate.Limiter](maxPushPeers)}
}

// check is called by the library before each request. It cannot refuse one, so
// who goes too far loses the connection; the next one counts against the rate of
// connections of its address.
func (g *guard) check(_ context.Context, s network.Stream, m *pb.Message) {
	if m.GetType() != pb.Message_PUT_VALUE {
		return
	}
	if p := s.Conn().RemotePeer(); !allow(g.peers, p, g.rate, g.now()) {
		g.drops.add(dropSourceRate)
		_ = s.Conn().Close()
	}
}
