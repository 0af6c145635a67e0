package dht

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A machine with a hundred libp2p ids fills the table: a neighbour that comes later
// is kept in spite of it, and the ids are forgotten in time.
func TestAFloodOfNeighboursLeavesRoom(t *testing.T) {
	now := t0
	l := &neighbours{now: func() time.Time { return now }, seen: make(map[peer.ID]neighbour), dialing: make(map[peer.ID]bool)}
	meet := func(p peer.ID, addr string) {
		t.Helper()
		if !l.begin(p) {
			t.Fatalf("%s is not dialled", p)
		}
		l.end(p, netip.MustParsePrefix(addr), true)
	}
	meet("early", "192.0.2.1/32")
	for i := range 100 {
		now = now.Add(time.Second)
		meet(idOf(i), "192.0.2.66/32")
	}
	meet("late", "192.0.2.2/32")
	for i := range 100 {
		meet(peer.ID(fmt.Sprint("more", i)), "192.0.2.66/32")
	}
	if _, early := l.seen["early"]; !early || len(l.seen) != maxNeighbours {
		t.Errorf("%d neighbours, the early one among them: %v", len(l.seen), early)
	}
	if _, late := l.seen["late"]; !late {
		t.Error("the late one is not among them")
	}
	if now = now.Add(neighbourLife + time.Second); len(l.peers()) != 0 || len(l.dialing) != 0 {
		t.Errorf("%d are left", len(l.seen))
	}
}
