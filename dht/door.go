package dht

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"peerlink/internal/proving"
	"peerlink/internal/quota"
)

// Bounds of the connections at a node that have not proven their key. libp2p has one
// bound for all of them, and keeps each for 15 s: four addresses would shut out the rest.
const (
	maxUnproven      = 256
	maxUnprovenOfOne = connsPerAddress
	unprovenGrace    = 2 * time.Second  // for some round trips; then any place may be lost
	unprovenLife     = 10 * time.Second // twice what a caller waits
)

// door admits connections before libp2p counts them. Loopback has the same bounds as
// other addresses.
type door struct {
	gate proving.Gate

	mu     sync.Mutex
	places map[network.ConnMultiaddrs]func() // end the wait for a proof
}

var _ connmgr.ConnectionGater = (*door)(nil)

func newDoor() *door {
	return &door{places: make(map[network.ConnMultiaddrs]func()), gate: proving.Gate{
		Places: maxUnproven, PerSource: maxUnprovenOfOne, Grace: unprovenGrace, Yield: true,
		Source: func(c net.Conn) (netip.Prefix, bool) { return quota.Host(c.RemoteAddr().String()), true },
	}}
}

// InterceptAccept gives a new connection a place. It does not wait for one: all
// later connections of that listener would wait, too.
func (d *door) InterceptAccept(addrs network.ConnMultiaddrs) bool {
	conn, ok := addrs.(net.Conn)
	if !ok { // no listener of this host makes such
		return false
	}
	v := d.gate.Admit(conn, time.Now())
	if v.In == nil {
		return false
	}
	if v.Out != nil {
		_ = v.Out.Conn.Close() // which ends its handshake
		d.leave(v.Out.Conn.(network.ConnMultiaddrs))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	late := time.AfterFunc(unprovenLife, func() {
		_ = conn.Close()
		d.leave(addrs)
	})
	d.places[addrs] = func() { late.Stop(); v.In.Leave() }
	return true
}

// InterceptSecured frees the place of a connection that has proven its key.
func (d *door) InterceptSecured(_ network.Direction, _ peer.ID, addrs network.ConnMultiaddrs) bool {
	d.leave(addrs)
	return true
}

func (d *door) leave(addrs network.ConnMultiaddrs) {
	d.mu.Lock()
	end := d.places[addrs]
	delete(d.places, addrs)
	d.mu.Unlock()
	if end != nil {
		end()
	}
}

// The door lets all else pass.
func (d *door) InterceptPeerDial(peer.ID) bool               { return true }
func (d *door) InterceptAddrDial(peer.ID, ma.Multiaddr) bool { return true }
func (d *door) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) {
	return true, 0
}
