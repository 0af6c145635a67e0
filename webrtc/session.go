package webrtc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	pion "github.com/pion/webrtc/v4"

	"peerlink/identity"
	"peerlink/internal/calls"
	"peerlink/internal/pause"
	"peerlink/internal/route"
)

// session is one pion connection from its offer to its end, on either side.
type session struct {
	t    *Transport
	role role
	id   callID
	peer identity.DeviceID
	pc   *pion.PeerConnection
	dtls *pion.DTLSTransport // pc's; asking pc for it waits while pc closes
	own  fingerprint
	// price is nil for a member.
	price *calls.Price
	// admit is asked about the peer once it is proven, and before it is told so;
	// nil takes it.
	admit func(context.Context, identity.Peer) error

	openc chan *channelPair // the stream's channel is open; holds 1
	datac chan *channelPair // and that of datagrams; holds 1
	lostc chan struct{}     // closed when the connection has failed or ended
	lose  func()            // closes lostc, once
	found chan struct{}     // holds 1: own candidates were found

	hanging sync.Once

	mu        sync.Mutex
	described bool // the remote description is set
	early     []string
	heard     []string              // candidates of the peer
	sent      []string              // candidates of this side
	told      int                   // how many of them the peer knows
	largest   int                   // message that the peer takes
	opening   []chan<- *channelPair // of the channels that were taken
}

// channelPair joins what pion splits: messages go through the detached channel, and
// the buffer is watched at its original.
type channelPair struct {
	*pion.DataChannel
	carried
}

// carried is what a detached channel carries.
type carried interface {
	ReadDataChannel(p []byte) (n int, text bool, err error)
	WriteDataChannel(p []byte, text bool) (int, error)
}

// newSession makes a connection with a certificate of its own, so that two
// calls of one device cannot be told to be of one device. A price is of what is sent
// on the peer's word. Each needs a hangUp.
func (t *Transport) newSession(ctx context.Context, r role, id callID, peer identity.DeviceID, price *calls.Price) (*session, error) {
	servers := t.servers(ctx)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert, err := pion.GenerateCertificate(key)
	if err != nil {
		return nil, fmt.Errorf("webrtc: make a DTLS certificate: %w", err)
	}
	s := &session{
		t: t, role: r, id: id, peer: peer, price: price, largest: sentMessage,
		openc: make(chan *channelPair, 1), datac: make(chan *channelPair, 1), lostc: make(chan struct{}), found: make(chan struct{}, 1),
	}
	s.lose = sync.OnceFunc(func() { close(s.lostc) })
	if s.own, err = printOf(cert); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.board.Enter() {
		return nil, errClosed
	}
	s.pc, err = t.apiFor(price).NewPeerConnection(pion.Configuration{
		ICEServers: servers, Certificates: []pion.Certificate{*cert},
	})
	if err != nil {
		t.board.Leave()
		return nil, fmt.Errorf("webrtc: %w", err)
	}
	s.dtls = s.pc.SCTP().Transport()
	t.sessions[s] = struct{}{}
	s.pc.OnConnectionStateChange(func(st pion.PeerConnectionState) {
		if st == pion.PeerConnectionStateFailed || st == pion.PeerConnectionStateClosed {
			s.lose()
		}
	})
	s.pc.OnICECandidate(func(c *pion.ICECandidate) {
		if c != nil {
			s.candidate(c.ToJSON().Candidate)
		}
	})
	s.pc.OnDataChannel(s.incoming)
	return s, nil
}

func printOf(cert *pion.Certificate) (f fingerprint, err error) {
	prints, err := cert.GetFingerprints()
	if err != nil {
		return f, fmt.Errorf("webrtc: DTLS certificate: %w", err)
	}
	for _, p := range prints {
		if strings.EqualFold(p.Algorithm, "sha-256") {
			b, err := hex.DecodeString(strings.ReplaceAll(p.Value, ":", ""))
			if err != nil || len(b) != len(f) {
				return f, fmt.Errorf("webrtc: DTLS certificate: fingerprint %q", p.Value)
			}
			return fingerprint(b), nil
		}
	}
	return f, errors.New("webrtc: DTLS certificate without a SHA-256 fingerprint")
}

// candidate notes one of this side's own.
func (s *session) candidate(c string) {
	s.mu.Lock()
	if len(s.sent) < maxCandidates && len(c) <= maxCandidateLen {
		s.sent = append(s.sent, c)
	}
	s.mu.Unlock()
	pause.Tell(s.found, struct{}{})
}

// untold returns the candidates that the peer was not told, and counts them as
// told; all returns the told ones as well.
func (s *session) untold() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := s.sent[s.told:]
	s.told = len(s.sent)
	return news
}

func (s *session) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = len(s.sent)
	return slices.Clone(s.sent)
}

// offer makes the caller's description and starts to look for candidates.
func (s *session) offer() (string, error) {
	ordered := true
	dc, err := s.pc.CreateDataChannel(s.t.label, &pion.DataChannelInit{Ordered: &ordered})
	if err != nil {
		return "", fmt.Errorf("webrtc: %w", err)
	}
	s.open(dc, s.openc)
	if dc, err = s.pc.CreateDataChannel(s.t.label+datagramSuffix, unreliable()); err != nil {
		return "", fmt.Errorf("webrtc: %w", err)
	}
	s.open(dc, s.datac)
	d, err := s.pc.CreateOffer(nil)
	return s.adopt("an offer", d, err)
}

// adopt makes a description that this side has made the session's.
func (s *session) adopt(what string, d pion.SessionDescription, err error) (string, error) {
	if err == nil {
		err = s.pc.SetLocalDescription(d)
	}
	if err != nil {
		return "", fmt.Errorf("webrtc: make %s: %w", what, err)
	}
	return d.SDP, nil
}

// answer takes the caller's description and makes the callee's.
func (s *session) answer(m *message) (string, error) {
	if err := s.describe(pion.SDPTypeOffer, m); err != nil {
		return "", err
	}
	d, err := s.pc.CreateAnswer(nil)
	return s.adopt("an answer", d, err)
}

// describe sets the peer's description and the candidates that came before it.
func (s *session) describe(t pion.SDPType, m *message) error {
	if err := s.pc.SetRemoteDescription(pion.SessionDescription{Type: t, SDP: m.sdp}); err != nil {
		return fmt.Errorf("webrtc: the device's %s: %w", m.kind, err)
	}
	s.mu.Lock()
	s.described = true
	s.largest = min(s.largest, m.largest)
	early := s.early
	s.early = nil
	s.mu.Unlock()
	s.add(early)
	s.add(m.candidates)
	return nil
}

// add takes candidates of the peer, at most maxCandidates in all.
func (s *session) add(cs []string) {
	for _, c := range cs {
		s.mu.Lock()
		switch {
		case !s.described:
			if len(s.early) < maxCandidates {
				s.early = append(s.early, c)
			}
			s.mu.Unlock()
			continue
		case len(s.heard) == maxCandidates:
			s.mu.Unlock()
			return
		}
		known := slices.Contains(s.heard, c)
		if !known {
			s.heard = append(s.heard, c)
		}
		s.mu.Unlock()
		if known || !s.mayUse(c) {
			continue
		}
		if err := s.pc.AddICECandidate(pion.ICECandidateInit{Candidate: c}); err != nil {
			s.t.log.Debug("webrtc: candidate refused", "peer", s.peer, "candidate", c, "err", err)
		}
	}
}

// mayUse reports whether a candidate of the peer's is one of the few that a stranger
// may have tried.
func (s *session) mayUse(c string) bool {
	f := strings.Fields(c) // as mayDial has seen it
	a, err := netip.ParseAddr(f[4])
	return s.price == nil || err == nil && strings.EqualFold(f[2], "udp") && s.price.Takes("webrtc", a, f[7] == "relay")
}

// incoming takes the two channels that the caller is to open.
func (s *session) incoming(dc *pion.DataChannel) {
	label := s.t.label
	switch {
	case s.role == callee && dc.Label() == label && dc.Ordered() && dc.MaxRetransmits() == nil && dc.MaxPacketLifeTime() == nil:
		s.open(dc, s.openc)
	case s.role == callee && dc.Label() == label+datagramSuffix && isUnreliable(dc):
		s.open(dc, s.datac)
	default:
		_ = dc.Close()
	}
}

// open hands a channel over once it is open. Only the first of its kind counts.
func (s *session) open(dc *pion.DataChannel, openc chan<- *channelPair) {
	s.mu.Lock()
	first := !slices.Contains(s.opening, openc)
	if first {
		s.opening = append(s.opening, openc)
	}
	s.mu.Unlock()
	if !first {
		_ = dc.Close()
		return
	}
	dc.OnOpen(func() {
		raw, err := dc.DetachWithDeadline()
		if err != nil {
			s.t.log.Debug("webrtc: detach", "peer", s.peer, "err", err)
			s.lose()
			return
		}
		openc <- &channelPair{dc, raw}
	})
}

// secure waits for the channel and proves both sides over it.
func (s *session) secure(ctx context.Context) (*Conn, identity.Peer, error) {
	var raw *channelPair
	select {
	case raw = <-s.openc:
	case <-s.lostc:
		return nil, identity.Peer{}, errors.New("the connection failed")
	case <-ctx.Done():
		return nil, identity.Peer{}, context.Cause(ctx)
	}
	der := s.dtls.GetRemoteCertificate()
	if len(der) == 0 {
		return nil, identity.Peer{}, errors.New("the device showed no DTLS certificate")
	}
	p := prover{me: s.t.cfg.Identity, trust: s.t.cfg.Trust, role: s.role, peer: s.peer, own: s.own, far: sha256.Sum256(der), admit: s.admit}
	peer, err := p.run(ctx, raw, s.hangUp)
	if err != nil {
		return nil, identity.Peer{}, err
	}
	conn, err := s.t.adopt(s, raw)
	return conn, peer, err
}

// hangUp ends the connection, and with it all reads, without waiting: pion's
// callbacks call it, and pion waits for them.
func (s *session) hangUp() { s.hanging.Do(func() { go s.close() }) }

// closeTimeout is how long the end of a connection is waited for: pion does not
// stop asking a TURN server that does not answer, for up to 8 s, and waits for
// ever where SCTP could not write its farewell, as to a TCP peer that has gone.
const closeTimeout = time.Second

// close ends the connection and waits for pion's goroutines.
func (s *session) close() {
	defer s.t.board.Leave() // newSession's
	s.lose()
	donec := make(chan struct{})
	s.t.late.Go(func() {
		defer close(donec)
		if err := s.pc.GracefulClose(); err != nil {
			s.t.log.Debug("webrtc: close", "peer", s.peer, "err", err)
		}
	})
	late := time.NewTimer(closeTimeout)
	defer late.Stop()
	select {
	case <-donec:
	case <-late.C:
		s.t.log.Debug("webrtc: close: left behind", "peer", s.peer)
		// Without its socket SCTP's reader ends, for which pion waits, and ours.
		s.t.late.Go(func() { _ = s.dtls.ICETransport().Stop() })
	}
	s.t.mu.Lock()
	delete(s.t.sessions, s)
	s.t.mu.Unlock()
}

func (s *session) addresses() (local, far net.Addr, path route.Path) {
	local, far = &net.UDPAddr{}, &net.UDPAddr{}
	pair, err := s.dtls.ICETransport().GetSelectedCandidatePair()
	if err != nil || pair == nil {
		return local, far, route.Path{Engine: "webrtc"}
	}
	at := func(c *pion.ICECandidate) net.Addr {
		ip := net.ParseIP(c.Address)
		if c.Protocol == pion.ICEProtocolTCP {
			return &net.TCPAddr{IP: ip, Port: int(c.Port)}
		}
		return &net.UDPAddr{IP: ip, Port: int(c.Port)}
	}
	local, far = at(pair.Local), at(pair.Remote)
	path = route.Between("webrtc", pair.Remote.Typ.String(), local, far)
	path.Over = pair.Local.Protocol.String()
	return local, far, path
}
