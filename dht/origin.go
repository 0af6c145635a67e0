package dht

import (
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/time/rate"

	"peerlink/internal/quota"
)

// origin is where a request came from. A peer's id costs nothing, an address
// little, a network something: quotas count by the first and the last.
type origin struct {
	peer    peer.ID
	network netip.Prefix // see networkOf; zero: not known, or this machine
}

// What one network is, for quotas: an IPv4 /24, an IPv6 /48.
const (
	networkBits4 = 24
	networkBits6 = 48
)

func networkOf(a netip.Addr) netip.Prefix { return quota.NetworkOf(a, networkBits4, networkBits6) }

func originOf(c network.Conn) origin {
	o := origin{peer: c.RemotePeer()}
	if a := ipOf(c.RemoteMultiaddr()); !a.IsLoopback() {
		o.network = networkOf(a)
	}
	return o
}

// ipOf is the address that a multiaddress begins with; the zero one if with none.
func ipOf(m ma.Multiaddr) netip.Addr {
	ip, _ := manet.ToIP(m) // nil with an error
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// originRates bound how often one peer, and all peers of its network, may ask.
type originRates struct {
	peers    *quota.Rates[peer.ID]
	networks *quota.Rates[netip.Prefix]
}

// newOriginRates lets a peer ask burst times at once, and a network networkRate
// times that; each then asks so often a second.
func newOriginRates(ofPeer, ofNetwork rate.Limit, burst int) originRates {
	return originRates{
		quota.NewRates[peer.ID](maxPushPeers, ofPeer, burst),
		quota.NewRates[netip.Prefix](maxPushPeers, ofNetwork, networkRate*burst),
	}
}

// requestRates are the rates of requests: so many a second from one peer.
func requestRates(perSecond int) originRates {
	return newOriginRates(rate.Limit(perSecond), rate.Limit(networkRate*perSecond), burstSeconds*perSecond)
}

// allow counts one more of an origin, unless that is too often.
func (r originRates) allow(o origin, now time.Time) bool {
	return r.peers.Allow(o.peer, now) && (!o.network.IsValid() || r.networks.Allow(o.network, now))
}

// ledger counts what peers and networks have taken of something. The zero origin
// is this node itself and is not counted. It has no lock of its own.
type ledger struct {
	perPeer, perNetwork int
	peers               map[peer.ID]int
	networks            map[netip.Prefix]int
}

func newLedger(perPeer, perNetwork int) ledger {
	return ledger{perPeer: perPeer, perNetwork: perNetwork, peers: make(map[peer.ID]int), networks: make(map[netip.Prefix]int)}
}

// take counts n more for o, unless that were too many.
func (l *ledger) take(o origin, n int) bool {
	if o == (origin{}) {
		return true
	}
	known := o.network.IsValid()
	if l.peers[o.peer]+n > l.perPeer || known && l.networks[o.network]+n > l.perNetwork {
		return false
	}
	l.peers[o.peer] += n
	if known {
		l.networks[o.network] += n
	}
	return true
}

// give takes n back. What comes to nothing is forgotten.
func (l *ledger) give(o origin, n int) {
	if o == (origin{}) {
		return
	}
	if l.peers[o.peer] -= n; l.peers[o.peer] <= 0 {
		delete(l.peers, o.peer)
	}
	if l.networks[o.network] -= n; l.networks[o.network] <= 0 {
		delete(l.networks, o.network)
	}
}
