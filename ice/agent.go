package ice

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	pion "github.com/pion/ice/v3"

	"peerlink/identity"
	"peerlink/internal/pause"
)

// udpSession is a negotiation's agent, or the wish for one.
type udpSession struct {
	e        *udpEngine
	n        *negotiation
	ufrag    string
	password string
	stun     *stunSession
	early    atomic.Pointer[earlyDial]
	remotec  chan *message    // holds 1
	morec    chan []candidate // what came later
}

func (s *udpSession) run(ctx context.Context) {
	defer s.e.mux.RemoveConnByUfrag(s.ufrag)
	var remote *message
	select {
	case remote = <-s.remotec:
	case <-ctx.Done():
		return
	}
	if slices.Contains(s.e.t.cfg.Engines, engineTCP) && s.n.isNear(remote.tcpCandidates()) {
		timer := time.NewTimer(headStart)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.stun.touched:
		case <-ctx.Done():
			return
		}
	}
	if err := s.check(ctx, remote.udp); err != nil {
		s.n.tried(engineUDP, "checks", err)
	}
}

// check runs an agent until the negotiation ends. It never nominates: the
// QUIC handshake on a path does, a round trip earlier. The agent answers
// checks for as long as the other side may need it, and what answers the
// controlling side's is a path.
func (s *udpSession) check(ctx context.Context, remote *udpPart) error {
	agent, err := pion.NewAgent(s.agentConfig())
	if err != nil {
		return fmt.Errorf("make an agent: %w", err)
	}
	defer agent.GracefulClose()
	ctx, cancel := context.WithCancelCause(ctx)
	if err := s.prepare(agent, cancel); err != nil {
		cancel(nil)
		return err
	}
	s.add(agent, remote.candidates)
	over := make(chan struct{})
	defer func() { cancel(nil); <-over }()
	go func() {
		defer close(over)
		connect := agent.Dial
		if s.n.role == controlled {
			connect = agent.Accept
		}
		if _, err := connect(ctx, remote.ufrag, remote.password); err != nil {
			cancel(err)
		}
	}()
	known := make(map[checkedWay]bool)
	for {
		select {
		case w := <-s.stun.found:
			if s.n.role == controlling && !known[w] && len(known) < maxStunSources {
				known[w] = true
				s.n.spawn(func(ctx context.Context) { s.offer(ctx, w) })
			}
		case w := <-s.stun.first:
			s.dialEarly(w)
		case more := <-s.morec:
			s.add(agent, more)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

var (
	errNoCheck     = errors.New("no answer to checks")
	errAgentFailed = errors.New("the agent gave up")
)

// prepare gives the agent its candidates. pion does nothing by itself once it
// has failed, so that is watched.
func (s *udpSession) prepare(agent *pion.Agent, cancel context.CancelCauseFunc) error {
	if err := agent.OnConnectionStateChange(func(state pion.ConnectionState) {
		if state == pion.ConnectionStateFailed {
			cancel(errAgentFailed)
		}
	}); err != nil {
		return err
	}
	if err := agent.OnCandidate(func(pion.Candidate) {}); err != nil {
		return err
	}
	if err := agent.GatherCandidates(); err != nil {
		return fmt.Errorf("gather candidates: %w", err)
	}
	return nil
}

// add gives the agent candidates of its peer.
func (s *udpSession) add(agent *pion.Agent, remote []candidate) {
	for _, c := range remote {
		if !s.n.price.Load().Takes(engineUDP, c.addr.Addr(), c.typ == relayCandidate) {
			s.n.tried(engineUDP, c.String(), errStrangers)
			continue
		}
		p, err := pionCandidate(c)
		if err == nil {
			err = agent.AddRemoteCandidate(p)
		}
		if err != nil {
			s.n.tried(engineUDP, c.String(), err)
			continue
		}
		s.n.trying(engineUDP, c.String(), errNoCheck)
	}
}

func pionCandidate(c candidate) (pion.Candidate, error) {
	addr, port := c.addr.Addr().String(), int(c.addr.Port())
	switch c.typ {
	case directCandidate:
		return nil, errors.New("a direct address is one of TCP")
	case hostCandidate:
		return pion.NewCandidateHost(&pion.CandidateHostConfig{Network: "udp", Address: addr, Port: port, Component: pion.ComponentRTP})
	}
	// To the agent a relay's address is one like another.
	return pion.NewCandidateServerReflexive(&pion.CandidateServerReflexiveConfig{Network: "udp", Address: addr, Port: port, Component: pion.ComponentRTP, RelAddr: "0.0.0.0", RelPort: 0})
}

// agentConfig: the agent never accepts a pair, so it checks them all; checks go
// on for as long as the negotiation (pion's own limit, 7 of them, would be over
// after 140 ms).
func (s *udpSession) agentConfig() *pion.AgentConfig {
	networks := []pion.NetworkType{pion.NetworkTypeUDP4}
	if s.e.v6 {
		networks = append(networks, pion.NetworkTypeUDP6)
	}
	interval, timeout, checks := checkInterval, s.e.t.cfg.Timeout, uint16(1<<15)
	never := 2 * timeout
	return &pion.AgentConfig{
		NetworkTypes:           networks,
		CandidateTypes:         []pion.CandidateType{pion.CandidateTypeHost},
		MulticastDNSMode:       pion.MulticastDNSModeDisabled,
		IncludeLoopback:        true, // the mux's handles are loopback addresses
		LocalUfrag:             s.ufrag,
		LocalPwd:               s.password,
		UDPMux:                 s.e.mux,
		Net:                    s.e.net,
		LoggerFactory:          silentPion(),
		CheckInterval:          &interval,
		MaxBindingRequests:     &checks,
		FailedTimeout:          &timeout,
		HostAcceptanceMinWait:  &never,
		SrflxAcceptanceMinWait: &never,
		PrflxAcceptanceMinWait: &never,
		RelayAcceptanceMinWait: &never,
	}
}

// offer has a path taken that has answered a check, again after a pause where no
// connection came of it, until ctx ends.
func (s *udpSession) offer(ctx context.Context, w checkedWay) {
	at := s.e.base
	if w.way == overRelay {
		r := s.e.relays.current()
		if r == nil {
			return // it has just gone
		}
		at = r.base
	}
	remote := net.UDPAddrFromAddrPort(w.addr)
	typ := s.e.typeOf(s.n, w.addr)
	class := udpClassOf(at.relay != nil, typ == relayCandidate.String())
	target := typ + " " + w.addr.String()
	if at.relay != nil {
		target += " through the relay " + at.relay.addr.String()
	}
	s.n.worked(engineUDP, target)
	for pauses := pause.Backoff(redialPause, maxRedialPause); ; {
		lost := make(chan struct{})
		p := &path{
			Path:  s.e.describePath(at, s.n, w.addr),
			class: class,
			near:  typ == hostCandidate.String(),
			vague: typ == unnamed && !s.n.isPeers(engineUDP, w.addr.Addr()),
			drop:  func() {},
		}
		p.take = func(ctx context.Context) (net.Conn, identity.Peer, error) {
			conn, peer, err := at.dial(ctx, s.n, remote, p.Path, s.takeEarly)
			if err != nil {
				close(lost)
			}
			return conn, peer, err
		}
		s.n.addPath(p)
		select {
		case <-lost:
		case <-ctx.Done():
		}
		if pause.For(ctx, pauses.NextBackOff()) != nil {
			return
		}
	}
}
