package dht

import (
	"cmp"
	"net/netip"
	"sync"
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
	return r.peers.Allow(o.peer, now) && r.allowNetwork(o, now)
}

func (r originRates) allowNetwork(o origin, now time.Time) bool {
	return !o.network.IsValid() || r.networks.Allow(o.network, now)
}

// ledger counts what peers and networks have taken of something. The zero origin
// is this node itself and is not counted. It has no lock of its own.
type ledger struct {
	perPeer, perNetwork int
	peers               map[peer.ID]*int
	networks            map[netip.Prefix]*int // the zero one, which has no bound, too
}

func newLedger(perPeer, perNetwork int) ledger {
	return ledger{perPeer: perPeer, perNetwork: perNetwork, peers: make(map[peer.ID]*int), networks: make(map[netip.Prefix]*int)}
}

// account is how much an origin's network, and its peer, have taken by now. What
// there is too much of is taken from the origin with the most, so that a flood
// displaces itself, and a newcomer, which has been counted, is turned away where it
// would be the one.
type account struct{ network, peer *int }

// of is an origin's account, for reading.
func (l *ledger) of(o origin) account {
	a := account{l.networks[o.network], l.peers[o.peer]}
	if a.peer == nil || o == (origin{}) {
		a.peer = new(int)
	}
	if a.network == nil || o == (origin{}) {
		a.network = new(int)
	}
	return a
}

func (a account) compare(b account) int {
	return cmp.Or(cmp.Compare(*a.network, *b.network), cmp.Compare(*a.peer, *b.peer))
}

// take counts n more for o, unless that were too many.
func (l *ledger) take(o origin, n int) bool {
	if o != (origin{}) && *l.of(o).peer+n > l.perPeer {
		return false
	}
	l.add(o, n)
	if l.crowded(o) {
		l.give(o, n)
		return false
	}
	return true
}

// crowded reports whether an origin's network has more than a network may have.
func (l *ledger) crowded(o origin) bool {
	return o.network.IsValid() && *l.of(o).network > l.perNetwork
}

// add counts n more for o, whatever that comes to.
func (l *ledger) add(o origin, n int) account {
	a := l.of(o)
	if o != (origin{}) {
		*a.network += n
		*a.peer += n
		l.networks[o.network], l.peers[o.peer] = a.network, a.peer
	}
	return a
}

// give takes n back. What comes to nothing is forgotten.
func (l *ledger) give(o origin, n int) {
	if o == (origin{}) {
		return
	}
	a := l.add(o, -n)
	if *a.peer <= 0 {
		delete(l.peers, o.peer)
	}
	if *a.network <= 0 {
		delete(l.networks, o.network)
	}
}

// places are for what goes on at once: so many in all, and of them as the ledger
// says. Its methods may be called concurrently; none blocks.
type places struct {
	all int

	mu    sync.Mutex
	taken ledger
	used  int
}

func newPlaces(perPeer, perNetwork, all int) *places {
	return &places{all: all, taken: newLedger(perPeer, perNetwork)}
}

// take gives one more place to an origin, or fails with one of quota's errors.
func (p *places) take(o origin) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.used >= p.all:
		return quota.ErrAll
	case !p.taken.take(o, 1):
		return quota.ErrKey
	}
	p.used++
	return nil
}

func (p *places) release(o origin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used--
	p.taken.give(o, 1)
}
