package webrtc

import (
	"context"
	"fmt"
	"net"
	"time"

	pion "github.com/pion/webrtc/v4"

	"peerlink/identity"
	"peerlink/internal/calls"
	"peerlink/internal/trace"
)

// gatherTime is how long the first signal waits for candidates: addresses of
// interfaces take some milliseconds, servers may follow later.
const gatherTime = 50 * time.Millisecond

// Dial makes a stream to the device. It blocks until the stream is proven to
// end there, the device refuses (*RefusedError), ctx ends, or Config.Timeout
// has passed (an error that matches ErrNoPath and os.ErrDeadlineExceeded and
// tells what was tried). Where both devices call at once, the call of the smaller
// id goes first; the other Dial goes on once that is through.
func (t *Transport) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	conn, found, err := t.board.Dial(ctx, peer)
	if err != nil {
		trace.Note(ctx, trace.AttemptFailed, "%v", err)
	}
	return conn, found, err
}

// carrier is what the Transport's calls have of their own.
type carrier struct{ *Transport }

// Decode reads a peer's signal.
func (t carrier) Decode(b []byte) (*message, error) { return decode(b, reachableOn(t.cfg.Loopback)) }

// Refusal makes one.
func (t carrier) Refusal(h calls.Head) *message {
	return &message{kind: h.Kind, id: h.ID, code: h.Code, reason: h.Reason}
}

// Call makes the stream of a call from here.
func (t carrier) Call(ctx context.Context, c *calls.Call[*message]) (net.Conn, identity.Peer, error) {
	s, err := t.newSession(ctx, caller, c.ID, c.Peer, nil)
	if err != nil {
		return nil, identity.Peer{}, err
	}
	c.Attach(s)
	conn, found, err := s.call(ctx, c)
	if err != nil {
		s.hangUp()
		return nil, identity.Peer{}, err
	}
	t.log.Debug("webrtc: connected", "peer", found.Device, "path", conn.path)
	trace.Note(ctx, trace.Secured, "%s, %s", conn.path, found)
	return conn, found, nil
}

// call offers until there is an answer, and makes the stream.
func (s *session) call(ctx context.Context, c *calls.Call[*message]) (*Conn, identity.Peer, error) {
	const stage = "the answer came, but no path was found"
	sdp, err := s.offer()
	if err != nil {
		return nil, identity.Peer{}, err
	}
	s.gather(ctx)
	c.Offer(func(int) (*message, bool) {
		_, heard := c.Times()
		return &message{kind: calls.Offer, id: s.id, sdp: sdp, candidates: s.all()}, heard.IsZero()
	}, s.trickle)
	var m *message
	select {
	case m = <-c.Answers:
		c.Heard("webrtc, %d candidates", len(m.candidates))
	case <-s.lostc:
		return nil, identity.Peer{}, c.Failure(stage, s.tale(c), errLost)
	case <-ctx.Done():
		return nil, identity.Peer{}, c.Failure(stage, s.tale(c), nil)
	}
	if err := s.describe(pion.SDPTypeAnswer, m); err != nil {
		return nil, identity.Peer{}, err
	}
	conn, found, err := s.secure(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, identity.Peer{}, c.Failure(stage, s.tale(c), err)
	case err != nil:
		return nil, identity.Peer{}, fmt.Errorf("webrtc: dial %s: %w", s.peer.Short(), err)
	}
	return conn, found, nil
}

func (s *session) tale(c *calls.Call[*message]) string {
	tries := c.Tries()
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("offers sent: %d; connection %s; own candidates: %s; the device's: %s",
		tries, s.pc.ICEConnectionState(), list(s.sent), list(s.heard))
}

// More takes candidates of the peer.
func (s *session) More(m *message) bool {
	s.add(m.candidates)
	return true
}

// gather waits a moment for candidates.
func (s *session) gather(ctx context.Context) {
	late := time.NewTimer(gatherTime)
	defer late.Stop()
	select {
	case <-pion.GatheringCompletePromise(s.pc):
	case <-late.C:
	case <-s.lostc:
	case <-ctx.Done():
	}
}

// trickle tells the peer candidates that it does not know, as they are found, until
// ctx or the session ends.
func (s *session) trickle(ctx context.Context) {
	for {
		select {
		case <-s.found:
		case <-s.lostc:
			return
		case <-ctx.Done():
			return
		}
		news := s.untold()
		if len(news) == 0 {
			continue
		}
		if err := (carrier{s.t}).Post(ctx, s.peer, &message{kind: calls.More, id: s.id, candidates: news}); err != nil {
			s.t.log.Debug("webrtc: tell further candidates", "to", s.peer, "err", err)
		}
	}
}
