package ice

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"peerlink/internal/calls"
	"peerlink/internal/pause"
	"peerlink/internal/trace"
)

const (
	// maxTrickles bounds the signals with further candidates of a negotiation,
	// in either direction.
	maxTrickles = 8
	// trickleWait is how long further candidates are collected: a server's
	// answers about both engines come within a few milliseconds of each other.
	trickleWait = 5 * time.Millisecond
)

// start starts the engines that both sides have, and returns their names.
// Candidates that came earlier are theirs too.
func (n *negotiation) start(engines []engine, m *message) []string {
	n.learn(engineTCP, m.tcpCandidates())
	n.learn(engineUDP, m.udpCandidates())
	var names []string
	var common []engine
	for _, e := range engines {
		if m.tcp != nil && e.name() == engineTCP || m.udp != nil && e.name() == engineUDP {
			names, common = append(names, e.name()), append(common, e)
			e.start(n, m)
		}
	}
	n.mu.Lock()
	n.engines = common
	early := n.early
	n.early = nil
	n.mu.Unlock()
	for _, e := range common {
		if len(early[e.name()]) > 0 {
			e.more(n, early[e.name()])
		}
	}
	return names
}

// learn remembers candidates of the peer, and returns the new ones. What
// is more than an engine's share is cut.
func (n *negotiation) learn(name string, found []candidate) []candidate {
	n.mu.Lock()
	defer n.mu.Unlock()
	var fresh []candidate
	for _, c := range found {
		if len(n.remote[name]) < candidatesPerEngine && !slices.Contains(n.remote[name], c) {
			n.remote[name] = append(n.remote[name], c)
			fresh = append(fresh, c)
			n.reclass(name, c)
		}
	}
	return fresh
}

// reclass is for paths to an address that turns out to be the peer's at a relay,
// and for vague ones to a host that turns out to be the peer's: packets may
// overtake the signal that says so. n.mu is held.
func (n *negotiation) reclass(name string, c candidate) {
	for _, p := range n.paths {
		switch {
		case p.Engine != name:
		case p.Remote == c.addr && c.typ == relayCandidate:
			p.class = udpClassOf(p.Relay != "", true)
			p.Class = relayCandidate.String()
		case p.vague && p.Remote.Addr() == c.addr.Addr() && c.typ != relayCandidate:
			p.vague = false
			pause.Tell(n.notify, struct{}{})
		}
	}
}

// isPeers tells whether the peer has named an address with this IP.
func (n *negotiation) isPeers(name string, ip netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.remote[name], func(c candidate) bool { return c.addr.Addr() == ip })
}

// more takes candidates that the peer has found after its offer or answer.
func (n *negotiation) more(m *message) {
	for name, found := range map[string][]candidate{engineTCP: m.tcpCandidates(), engineUDP: m.udpCandidates()} {
		fresh := n.learn(name, found)
		if len(fresh) == 0 {
			continue
		}
		n.mu.Lock()
		var e engine
		for _, started := range n.engines {
			if started.name() == name {
				e = started
			}
		}
		if n.early != nil {
			n.early[name] = append(n.early[name], fresh...)
		}
		n.mu.Unlock()
		if e != nil {
			e.more(n, fresh)
		}
	}
}

// unnamed is what an address of the peer is called that it has not named: it was
// learnt from its packets (in RFC 8445, peer reflexive).
const unnamed = "prflx"

// typeOf says what the peer calls an address of its own.
func (n *negotiation) typeOf(name string, addr netip.AddrPort) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.remote[name] {
		if c.addr == addr {
			return c.typ.String()
		}
	}
	return unnamed
}

// isNear tells whether one of the peer's interfaces seems to be on a network of
// this machine's.
func (n *negotiation) isNear(remote []candidate) bool {
	for _, c := range remote {
		if c.typ != hostCandidate {
			continue
		}
		for _, a := range n.own {
			bits := 24
			if a.Is6() {
				bits = 64
			}
			if p, err := a.Prefix(bits); err == nil && p.Contains(c.addr.Addr().WithZone("")) {
				return true
			}
		}
	}
	return false
}

// tell returns m's candidates that the peer has not been told yet, and counts
// them as told.
func (n *negotiation) tell(m *message) *message {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := &message{kind: calls.More, id: n.id}
	fresh := func(name string, found []candidate) (out []candidate) {
		for _, c := range found {
			if !slices.Contains(n.told[name], c) {
				n.told[name] = append(n.told[name], c)
				out = append(out, c)
			}
		}
		return out
	}
	if f := fresh(engineTCP, m.tcpCandidates()); len(f) > 0 {
		out.tcp = &tcpPart{candidates: f}
	}
	if f := fresh(engineUDP, m.udpCandidates()); len(f) > 0 {
		out.udp = &udpPart{candidates: f}
	}
	return out
}

// candidates returns a message with the candidates of all engines as they are now.
func (t *Transport) candidates(n *negotiation) (*message, error) {
	addrs, err := t.cfg.Addresses()
	if err != nil {
		return nil, fmt.Errorf("ice: own addresses: %w", err)
	}
	m := &message{kind: calls.More, id: n.id}
	for _, e := range t.engines {
		switch e := e.(type) {
		case *tcpEngine:
			m.tcp = &tcpPart{candidates: e.candidates(n, addrs)}
		case *udpEngine:
			m.udp = &udpPart{candidates: e.candidates(addrs)}
		}
	}
	return m, nil
}

// trickle tells the peer candidates that are found while the negotiation runs.
// It begins when the offer or the answer is on its way.
func (t *Transport) trickle(ctx context.Context, n *negotiation) {
	ctx = trace.With(ctx, func(trace.Event) {}) // no milestones of the connect
	for range maxTrickles {
		news := t.outside.news()
		m, err := t.candidates(n)
		if err != nil {
			t.log.Debug("ice: further candidates", "err", err)
			return
		}
		if m = n.tell(m); m.candidates() > 0 {
			if err := (carrier{t}).Post(ctx, n.peer, m); err != nil {
				n.tried("signaller", "further candidates", err)
			}
		}
		select {
		case <-news:
		case <-ctx.Done():
			return
		}
		if pause.For(ctx, trickleWait) != nil {
			return
		}
	}
}

// More takes a peer's further candidates. Of signals that bring nothing else it
// takes maxTrickles.
func (n *negotiation) More(m *message) bool {
	n.mu.Lock()
	if m.kind == calls.More {
		n.trickled++
	}
	ok := !n.ended && n.trickled <= maxTrickles
	n.mu.Unlock()
	if ok {
		n.more(m)
	}
	return ok
}
