package dht

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"peerlink/internal/pause"
	"peerlink/internal/quota"
)

// Bounds of what is done about neighbours.
const (
	lanService     = "_peerlink._tcp"
	lanIDKey       = "id=" // of the TXT string with the libp2p id
	maxNeighbours  = 64
	neighbourLife  = 5 * time.Minute // not heard of for so long, one is forgotten
	neighbourDials = 8               // at once
	neighbourTries = 3
	nearTimeout    = 5 * time.Second // to ask one that is near, dialling included
	// nearGrace is how long the network's answer waits for that of those nearby,
	// and the other way round: whichever lies, the other one is asked too.
	nearGrace = 50 * time.Millisecond
)

// neighbours are the peers of the local networks that serve the push protocol,
// found by mDNS. Each is asked directly, whatever the DHT says: is this you? That
// finds a device without any node, and past an eclipse. What is announced is a
// random name, the libp2p id and the port, not the device.
type neighbours struct {
	n   *Node
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	seen    map[peer.ID]neighbour // those that were reached
	dialing map[peer.ID]bool
}

// neighbour is when a peer was heard of last, and where it is.
type neighbour struct {
	at   time.Time
	from netip.Prefix
}

// run announces this node and looks for others until ctx is done.
func (l *neighbours) run(ctx context.Context) {
	port := listenPort(l.n.host.Network().ListenAddresses())
	if port == 0 {
		l.log.Error("dht: this node listens on no port, so that nobody on the local network finds it")
		return
	}
	announcer{
		kind: lanService, name: strings.ToLower(rand.Text()), port: port, text: []string{lanIDKey + l.n.host.ID().String()},
		found: l.found, log: l.log,
	}.run(ctx)
}

// listenPort is the TCP port that a host listens on beyond loopback; 0: none.
func listenPort(addrs []ma.Multiaddr) uint16 {
	return ownPort(slices.DeleteFunc(slices.Clone(addrs), manet.IsIPLoopback))
}

// found connects to a peer that announced itself, unless it is connected.
func (l *neighbours) found(p announced) {
	ai, ok := infoOf(p)
	if !ok || ai.ID == l.n.host.ID() || !l.begin(ai.ID) {
		return
	}
	from := quota.NetworkOf(p.addrs[0].Addr(), 32, 64) // an IPv6 host takes what addresses it likes
	if !l.n.life.Go(func(context.Context) { l.end(ai.ID, from, l.reach(ai)) }) {
		l.end(ai.ID, from, false)
	}
}

func infoOf(p announced) (ai peer.AddrInfo, ok bool) {
	for _, t := range p.text {
		if s, is := strings.CutPrefix(t, lanIDKey); is {
			id, err := peer.Decode(s)
			if err != nil {
				return ai, false
			}
			ai.ID = id
		}
	}
	for _, a := range p.addrs {
		if m, err := tcpAddr(a); err == nil {
			ai.Addrs = append(ai.Addrs, m)
		}
	}
	return ai, ai.ID != "" && len(ai.Addrs) > 0
}

// begin reserves a dial, unless enough go on.
func (l *neighbours) begin(p peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget()
	if l.dialing[p] || len(l.dialing) >= neighbourDials {
		return false
	}
	l.dialing[p] = true
	return true
}

// end gives a dial back and keeps the neighbour if it was reached. Of too many the
// one goes that was heard of longest ago, of the address with most: libp2p ids are free.
func (l *neighbours) end(p peer.ID, from netip.Prefix, reached bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.dialing, p)
	if !reached {
		return
	}
	l.seen[p] = neighbour{l.now(), from}
	if len(l.seen) <= maxNeighbours {
		return
	}
	at := make(map[netip.Prefix]int)
	for _, o := range l.seen {
		at[o.from]++
	}
	worst := p
	for id, o := range l.seen {
		w := l.seen[worst]
		if more := cmp.Compare(at[o.from], at[w.from]); more > 0 || more == 0 && o.at.Before(w.at) {
			worst = id
		}
	}
	delete(l.seen, worst)
}

// forget drops those that were not heard of for long. The caller holds mu.
func (l *neighbours) forget() {
	maps.DeleteFunc(l.seen, func(_ peer.ID, o neighbour) bool { return l.now().Sub(o.at) > neighbourLife })
}

// reach connects to a neighbour, and again if that fails, as it is heard of only
// once in a round. It reports whether it speaks the push protocol.
func (l *neighbours) reach(ai peer.AddrInfo) bool {
	ctx, cancel := context.WithTimeout(l.n.life.Context(), neighbourTries*nearTimeout)
	defer cancel()
	for range neighbourTries {
		err := l.greet(ctx, ai)
		if err == nil {
			l.log.Debug("dht: neighbour", "peer", ai.ID.String())
			return true
		}
		l.log.Debug("dht: neighbour not reached", "peer", ai.ID.String(), "err", err)
		_ = pause.For(ctx, jittered(time.Second))
	}
	return false
}

// greet opens a stream, which waits until it is known what the peer speaks.
func (l *neighbours) greet(ctx context.Context, ai peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(ctx, nearTimeout)
	defer cancel()
	if err := l.n.host.Connect(ctx, ai); err != nil {
		return err
	}
	s, err := l.n.host.NewStream(ctx, ai.ID, pushProtocol)
	if err != nil {
		return err
	}
	return s.Reset()
}

func (l *neighbours) peers() []peer.AddrInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget()
	var out []peer.AddrInfo
	for p := range l.seen {
		out = append(out, peer.AddrInfo{ID: p})
	}
	return out
}
