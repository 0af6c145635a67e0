package ice

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	pion "github.com/pion/ice/v3"
	"github.com/pion/logging"

	"peerlink/identity"
)

// udpSession is a negotiation's agent, or the wish for one.
type udpSession struct {
	e        *udpEngine
	n        *negotiation
	ufrag    string
	password string
	stun     *stunSession
	remotec  chan *message // holds 1
}

func (s *udpSession) run(ctx context.Context) {
	defer s.e.mux.RemoveConnByUfrag(s.ufrag)
	var remote *message
	select {
	case remote = <-s.remotec:
	case <-ctx.Done():
		return
	}
	if remote.tcp != nil && s.e.t.has(engineTCP) {
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

// check runs an agent until the negotiation ends; a path that it finds goes to
// the controlling side's list.
func (s *udpSession) check(ctx context.Context, remote *udpPart) error {
	agent, err := pion.NewAgent(s.agentConfig())
	if err != nil {
		return fmt.Errorf("make an agent: %w", err)
	}
	defer agent.GracefulClose()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := s.prepare(agent, remote, cancel); err != nil {
		return err
	}
	for _, c := range remote.candidates {
		s.n.trying(engineUDP, c.String(), errNoCheck)
	}
	connect := agent.Dial
	if s.n.role == controlled {
		connect = agent.Accept
	}
	if _, err := connect(ctx, remote.ufrag, remote.password); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return err
	}
	// The agent answers checks for as long as the other side may need it.
	if s.n.role == controlled {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	pair, err := agent.GetSelectedCandidatePair()
	if err != nil || pair == nil {
		return fmt.Errorf("no selected pair: %w", err)
	}
	return s.selected(ctx, pair)
}

var (
	errNoCheck     = errors.New("no answer to checks")
	errAgentFailed = errors.New("the agent gave up")
)

// prepare gives the agent its candidates. pion does nothing by itself once it
// has failed, so that is watched.
func (s *udpSession) prepare(agent *pion.Agent, remote *udpPart, cancel context.CancelCauseFunc) error {
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
	for _, c := range remote.candidates {
		p, err := pionCandidate(c)
		if err == nil {
			err = agent.AddRemoteCandidate(p)
		}
		if err != nil {
			s.n.tried(engineUDP, c.String(), err)
		}
	}
	return nil
}

func pionCandidate(c candidate) (pion.Candidate, error) {
	addr, port := c.addr.Addr().String(), int(c.addr.Port())
	if c.typ == hostCandidate {
		return pion.NewCandidateHost(&pion.CandidateHostConfig{Network: "udp", Address: addr, Port: port, Component: pion.ComponentRTP})
	}
	return pion.NewCandidateServerReflexive(&pion.CandidateServerReflexiveConfig{Network: "udp", Address: addr, Port: port, Component: pion.ComponentRTP, RelAddr: "0.0.0.0", RelPort: 0})
}

// agentConfig: no waiting for better candidates, as every one that will come
// is known when the agent starts; checks go on for as long as the negotiation
// (pion's own limit, 7 of them, would be over after 140 ms).
func (s *udpSession) agentConfig() *pion.AgentConfig {
	log := logging.NewDefaultLoggerFactory()
	log.DefaultLogLevel = logging.LogLevelDisabled
	networks := []pion.NetworkType{pion.NetworkTypeUDP4}
	if s.e.v6 {
		networks = append(networks, pion.NetworkTypeUDP6)
	}
	var now time.Duration
	relay, interval, timeout, checks := 300*time.Millisecond, checkInterval, s.e.t.cfg.Timeout, uint16(1<<15)
	return &pion.AgentConfig{
		NetworkTypes:           networks,
		CandidateTypes:         []pion.CandidateType{pion.CandidateTypeHost},
		MulticastDNSMode:       pion.MulticastDNSModeDisabled,
		IncludeLoopback:        true, // the mux's handles are loopback addresses
		LocalUfrag:             s.ufrag,
		LocalPwd:               s.password,
		UDPMux:                 s.e.mux,
		Net:                    s.e.net,
		LoggerFactory:          log,
		CheckInterval:          &interval,
		MaxBindingRequests:     &checks,
		FailedTimeout:          &timeout,
		HostAcceptanceMinWait:  &now,
		SrflxAcceptanceMinWait: &now,
		PrflxAcceptanceMinWait: &now,
		RelayAcceptanceMinWait: &relay,
	}
}

// selected offers the pair that the agents have agreed on, again after a pause
// where no connection came of it, until ctx ends.
func (s *udpSession) selected(ctx context.Context, pair *pion.CandidatePair) error {
	ip, err := netip.ParseAddr(pair.Remote.Address())
	if err != nil {
		return fmt.Errorf("selected pair: %w", err)
	}
	remote := net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, uint16(pair.Remote.Port())))
	desc := s.e.describePath(pair.Remote.Type().String(), remote)
	for pause := redialPause; ; pause = min(2*pause, maxRedialPause) {
		lost := make(chan struct{})
		s.n.addPath(&path{
			engine: engineUDP,
			desc:   desc,
			drop:   func() {},
			take: func(ctx context.Context) (net.Conn, identity.Peer, error) {
				conn, peer, err := s.e.dial(ctx, s.n, remote, desc)
				if err != nil {
					close(lost)
				}
				return conn, peer, err
			},
		})
		select {
		case <-lost:
		case <-ctx.Done():
		}
		if !wait(ctx, pause) {
			return context.Cause(ctx)
		}
	}
}
