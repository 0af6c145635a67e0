package dht

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Pace and bounds of Auto.
const (
	autoFirst    = 10 * time.Minute // a program that runs for a moment never serves
	autoAgain    = 30 * time.Minute // between looks, ± 25 %
	autoAsked    = 3                // nodes that are asked to come back to us
	probeTimeout = 5 * time.Second  // for the node's own dial
	maxProbes    = 8                // at once, of all peers
	probeBurst   = 3                // of one peer, and of one network ten times that,
	probeEvery   = time.Minute      // and another one after so long
	portLen      = 2
	addrLen      = 16
)

// Statuses of a probed frame.
const (
	statusUnreached = iota + 1
	statusReached
)

// auto makes a device serve the network while others can reach it, and only
// then. It asks nodes to dial the address from which they see it, at the port
// that it listens on; a node proves that it reached this very host by the
// handshake, as it would with any address.
type auto struct {
	n     *Node
	found atomic.Pointer[[]ma.Multiaddr] // under which it is reached; nil: it serves nobody
	lookc chan struct{}                  // the network has changed: look again
}

// addrs lists what peers are told. It is safe on nil.
func (a *auto) addrs() []ma.Multiaddr {
	if a == nil {
		return nil
	}
	if p := a.found.Load(); p != nil {
		return *p
	}
	return nil
}

// run looks now and then until ctx is done.
func (a *auto) run(ctx context.Context) {
	emitter, err := a.n.host.EventBus().Emitter(new(event.EvtLocalReachabilityChanged), eventbus.Stateful)
	if err != nil {
		a.n.cfg.Logger.Error("dht: this node will not serve others by itself", "err", err)
		return
	}
	defer emitter.Close()
	first := jittered(a.n.cfg.autoFirst)
	earliest := time.Now().Add(first)
	for t := time.NewTimer(first); ; {
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-a.lookc:
			t.Reset(max(time.Until(earliest), rand.N(time.Second)))
			continue
		case <-t.C:
		}
		again := autoAgain
		if found, answered := a.ask(ctx); answered {
			a.set(found, emitter)
		} else {
			again = min(again, a.n.cfg.autoFirst)
		}
		t.Reset(jittered(again))
	}
}

// set begins or ends to serve.
func (a *auto) set(found []ma.Multiaddr, emitter event.Emitter) {
	was, reach := a.found.Load() != nil, network.ReachabilityPrivate
	if len(found) > 0 {
		a.found.Store(&found)
		reach = network.ReachabilityPublic
	} else {
		a.found.Store(nil)
	}
	if was != (len(found) > 0) {
		a.n.cfg.Logger.Info("dht: whether this device serves others has changed", "serves", !was, "addresses", found)
		// Kademlia changes its mode, and peers are told what we speak and where.
		if err := emitter.Emit(event.EvtLocalReachabilityChanged{Reachability: reach}); err != nil {
			a.n.cfg.Logger.Error("dht: change the mode", "err", err)
		}
	}
}

// ask has some nodes dial us, and returns where they got through, if more than
// half of those that answered did: one alone may lie, either way. answered is
// false where nobody has said anything.
func (a *auto) ask(ctx context.Context) (found []ma.Multiaddr, answered bool) {
	port := ownPort(a.n.host.Network().ListenAddresses())
	nodes := a.n.kad.RoutingTable().ListPeers()
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	yes, no := 0, 0
	for _, p := range nodes[:min(len(nodes), 2*autoAsked)] {
		if yes+no == autoAsked || port == 0 {
			break
		}
		at, reached, err := a.n.probe(ctx, p, port)
		switch {
		case err != nil:
			a.n.cfg.Logger.Debug("dht: no answer whether this device can be reached", "node", p.String(), "err", err)
		case reached:
			yes++
			if !ma.Contains(found, at) {
				found = append(found, at)
			}
		default:
			no++
		}
	}
	if yes <= no {
		found = nil
	}
	return found, yes+no > 0
}

// probe asks one node to come back to us at a port. at is where it tried.
func (n *Node) probe(ctx context.Context, p peer.ID, port uint16) (at ma.Multiaddr, reached bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*probeTimeout)
	defer cancel()
	frame := appendFrame(nil, kindProbe, binary.BigEndian.AppendUint16(nil, port))
	b, err := n.request(ctx, p, frame, kindProbed, 1+addrLen)
	if err != nil {
		return nil, false, err
	}
	if len(b) != 1+addrLen || b[0] != statusReached && b[0] != statusUnreached {
		return nil, false, fmt.Errorf("push: status %x is unknown", b)
	}
	ip := netip.AddrFrom16([addrLen]byte(b[1:])).Unmap()
	if !n.cfg.public(ip) {
		return nil, false, fmt.Errorf("the node sees this device at %s, which is no public address", ip)
	}
	at, err = tcpAddr(netip.AddrPortFrom(ip, port))
	return at, b[0] == statusReached, err
}

// ownPort is the first TCP port of a host's; 0: none.
func ownPort(addrs []ma.Multiaddr) uint16 {
	for _, a := range addrs {
		n, err := manet.ToNetAddr(a)
		if err != nil {
			continue
		}
		if ap, err := netip.ParseAddrPort(n.String()); err == nil {
			return ap.Port()
		}
	}
	return 0
}

func tcpAddr(a netip.AddrPort) (ma.Multiaddr, error) {
	return manet.FromNetAddr(net.TCPAddrFromAddrPort(a))
}

// isPublic reports whether everybody may try an address: a device on a private
// network would else serve those who can never reach it.
func isPublic(a netip.Addr) bool {
	shared := netip.MustParsePrefix("100.64.0.0/10") // between a carrier and its customers
	return a.IsGlobalUnicast() && !a.IsPrivate() && !shared.Contains(a)
}

// comeBack dials the peer of a stream at the address from which it came, no
// other, and tells it whether that led to this very peer.
func (s *service) comeBack(st network.Stream, b []byte) error {
	if len(b) != portLen || binary.BigEndian.Uint16(b) == 0 {
		return refuse(st, "a probe of no port")
	}
	if s.private() {
		return refuse(st, "this device serves nobody else")
	}
	a := ipOf(st.Conn().RemoteMultiaddr())
	if !s.public(a) {
		return refuse(st, "no public address to come back to")
	}
	if !s.probes.allow(originOf(st.Conn()), s.now()) {
		return refuse(st, "too many probes")
	}
	select {
	case s.probing <- struct{}{}:
		defer func() { <-s.probing }()
	default:
		return refuse(st, "too many probes at once")
	}
	status := byte(statusReached)
	if err := s.dialBack(st.Conn().RemotePeer(), netip.AddrPortFrom(a, binary.BigEndian.Uint16(b))); err != nil {
		status = statusUnreached
	}
	seen := a.As16()
	_, err := st.Write(appendFrame(nil, kindProbed, []byte{status}, seen[:]))
	return err
}

// dialBack makes a connection of its own, and proves who is at its end.
func (s *service) dialBack(p peer.ID, at netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	addr, err := tcpAddr(at)
	if err != nil {
		return err
	}
	sw, ok := s.host.Network().(*swarm.Swarm)
	if !ok {
		return errors.ErrUnsupported
	}
	tr := sw.TransportForDialing(addr)
	if tr == nil {
		return fmt.Errorf("no transport dials %s", addr)
	}
	c, err := tr.Dial(ctx, addr, p)
	if err != nil {
		return err
	}
	return c.Close()
}
