package webrtc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	pion "github.com/pion/webrtc/v4"

	"peerlink/identity"
	"peerlink/internal/trace"
)

const (
	// repeatAfter is when an offer that nothing came of is sent once more, for
	// the first time; then after twice as long, and so on. It is what a signal
	// needs there and back on the worst link we care for (600 ms), and some.
	repeatAfter = 1500 * time.Millisecond
	// gatherTime is how long the first signal waits for candidates: addresses
	// of interfaces take some milliseconds, servers may follow later.
	gatherTime = 50 * time.Millisecond
	// crossedGrace is how long, after the device's own call has come through,
	// a Dial leaves its caller to see that it needs no other.
	crossedGrace = 500 * time.Millisecond
	// withdrawTimeout bounds the sending of a withdrawal, which may fail.
	withdrawTimeout = 2 * time.Second
)

// call is the caller's side of one offer.
type call struct {
	t       *Transport
	s       *session
	answerc chan *message // the one answer or refusal; holds 1
	crossc  chan *visit   // the device calls as well, and goes first; holds 1

	answered bool // under t.mu: nothing more goes into the two channels

	stage string // how far it came, for the error
	tries int
	last  error
}

// Dial makes a stream to the device. It blocks until the stream is proven to
// end there, the device refuses (*RefusedError), ctx ends, or Config.Timeout
// has passed (an error that matches ErrNoPath and os.ErrDeadlineExceeded and
// tells what was tried). Where both devices call at once, one call goes first (see
// Config.Politeness); the other Dial goes on once that is through.
func (t *Transport) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	if err := t.mayDial(peer); err != nil {
		return nil, identity.Peer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	ctx, give := context.WithCancelCause(ctx)
	defer give(nil)
	defer context.AfterFunc(t.closing, func() { give(errClosed) })()
	for {
		conn, found, first, err := t.call(ctx, peer)
		if first == nil {
			if err != nil {
				trace.Note(ctx, trace.AttemptFailed, "webrtc: %v", err)
				return nil, identity.Peer{}, err
			}
			trace.Note(ctx, trace.Secured, "%s, %s", conn.path, found)
			return conn, found, nil
		}
		if err := first.waitFor(ctx); err != nil {
			return nil, identity.Peer{}, fmt.Errorf("webrtc: dial %s: the device called at the same time, and its call went first: %w", peer.Short(), err)
		}
	}
}

func (t *Transport) mayDial(peer identity.DeviceID) error {
	switch {
	case peer.IsZero():
		return errors.New("webrtc: dial: no device id given")
	case peer == t.cfg.Identity.DeviceID():
		return errors.New("webrtc: dial: this device cannot dial itself")
	case t.cfg.Trust != nil && t.cfg.Trust.Decision(peer) == identity.Banned:
		return fmt.Errorf("webrtc: dial: %w: device %s is banned here", identity.ErrBanned, peer)
	}
	return nil
}

// call makes one offer. first is the device's own call where that goes first.
func (t *Transport) call(ctx context.Context, peer identity.DeviceID) (conn *Conn, found identity.Peer, first *visit, err error) {
	c, err := t.begin(ctx, peer)
	if err != nil {
		return nil, found, nil, err
	}
	defer t.finish(c)
	m, first, err := c.negotiate(ctx)
	if err == nil && first == nil {
		conn, found, err = c.connect(ctx, m)
	}
	if conn == nil {
		c.s.hangUp()
		var refused *RefusedError
		if c.tries > 0 && !errors.As(err, &refused) {
			t.withdraw(c.s)
		}
	}
	return conn, found, first, err
}

// begin registers a call, so that an answer finds it. Each needs a finish.
func (t *Transport) begin(ctx context.Context, peer identity.DeviceID) (*call, error) {
	t.mu.Lock()
	running := len(t.outgoing)
	t.mu.Unlock()
	if running >= t.cfg.MaxCalls {
		return nil, fmt.Errorf("webrtc: dial %s: %d dials run already", peer.Short(), running)
	}
	s, err := t.newSession(ctx, caller, newCallID(), peer)
	if err != nil {
		return nil, err
	}
	c := &call{t: t, s: s, answerc: make(chan *message, 1), crossc: make(chan *visit, 1), stage: "no offer was made"}
	t.mu.Lock()
	t.outgoing[s.id] = c
	t.mu.Unlock()
	return c, nil
}

func (t *Transport) finish(c *call) {
	t.mu.Lock()
	delete(t.outgoing, c.s.id)
	t.mu.Unlock()
}

// withdraw tells the device that a call is over before it came to anything.
func (t *Transport) withdraw(s *session) {
	t.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, withdrawTimeout)
		defer cancel()
		t.say(ctx, s.peer, &message{kind: kindRefuse, id: s.id, reason: "withdrawn"})
	})
}

// say sends a signal whose loss does no harm.
func (t *Transport) say(ctx context.Context, to identity.DeviceID, m *message) {
	if err := t.post(ctx, to, m); err != nil {
		t.log.Debug("webrtc: send a signal", "to", to, "what", m.kind.String(), "err", err)
	}
}

// negotiate offers until there is an answer. first is the device's own call
// where that goes first.
func (c *call) negotiate(ctx context.Context) (answer *message, first *visit, err error) {
	sdp, err := c.s.offer()
	if err != nil {
		return nil, nil, err
	}
	c.s.gather(ctx)
	c.stage = "the offer could not be sent"
	sendc := c.send(ctx, sdp)
	pause := repeatAfter
	again := time.NewTimer(pause)
	defer again.Stop()
	for {
		news := c.s.found
		if sendc != nil {
			news = nil // after the offer, or they come to nobody
		}
		select {
		case m := <-c.answerc:
			if m.kind == kindRefuse {
				return nil, nil, c.refusal(m)
			}
			return m, nil, nil
		case v := <-c.crossc:
			return nil, v, nil
		case err := <-sendc:
			sendc = nil
			switch {
			case err == nil:
				c.stage = "no answer"
				trace.Note(ctx, trace.OfferSent, "webrtc call %x", c.s.id[:4])
			case c.stage != "no answer" && ctx.Err() == nil:
				return nil, nil, fmt.Errorf("webrtc: dial %s: send the offer: %w", c.s.peer.Short(), err)
			default:
				c.last = err
			}
		case <-news:
			c.s.tell(ctx)
		case <-again.C:
			pause *= 2
			again.Reset(pause)
			if sendc == nil {
				sendc = c.send(ctx, sdp)
			}
		case <-c.s.lostc:
			return nil, nil, c.failure(c.why(ctx, errLost))
		case <-ctx.Done():
			return nil, nil, c.failure(c.why(ctx, nil))
		}
	}
}

// refusal is what a refusal before the proof makes of the call: the device's
// word only if a Signaller has proven who sent it.
func (c *call) refusal(m *message) error {
	if c.t.cfg.Signaller == nil {
		return fmt.Errorf("webrtc: dial %s: %w", c.s.peer.Short(), &saidNo{m.reason})
	}
	return fmt.Errorf("webrtc: dial: %w", &RefusedError{Peer: c.s.peer, Reason: m.reason})
}

// send sends the offer; the channel tells the outcome.
func (c *call) send(ctx context.Context, sdp string) chan error {
	c.tries++
	m := &message{kind: kindOffer, id: c.s.id, sdp: sdp, candidates: c.s.all(), firmness: c.t.cfg.Politeness.firmness()}
	sendc := make(chan error, 1)
	if !c.t.spawn(func(context.Context) { sendc <- c.t.post(ctx, c.s.peer, m) }) {
		sendc <- errClosed
	}
	return sendc
}

// connect makes the stream, once the device has answered.
func (c *call) connect(ctx context.Context, m *message) (*Conn, identity.Peer, error) {
	trace.Note(ctx, trace.AnswerReceived, "webrtc, %d candidates", len(m.candidates))
	c.stage = "the answer came, but no path was found"
	if err := c.s.describe(pion.SDPTypeAnswer, m); err != nil {
		return nil, identity.Peer{}, err
	}
	c.s.trickle(ctx)
	conn, found, err := c.s.secure(ctx)
	switch {
	case err == nil:
		c.t.log.Debug("webrtc: connected", "peer", found.Device, "path", conn.path)
		return conn, found, nil
	case ctx.Err() != nil || c.t.closing.Err() != nil:
		return nil, identity.Peer{}, c.failure(c.why(ctx, err))
	}
	return nil, identity.Peer{}, fmt.Errorf("webrtc: dial %s: %w", c.s.peer.Short(), err)
}

// why is the reason of an end: the Transport's, the caller's, or else.
func (c *call) why(ctx context.Context, otherwise error) error {
	switch {
	case c.t.closing.Err() != nil:
		return context.Cause(c.t.closing)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return otherwise
}

// failure is the error of a call whose context, or connection, has ended.
func (c *call) failure(cause error) error {
	if errors.Is(cause, context.Canceled) || errors.Is(cause, net.ErrClosed) {
		// Somebody changed his mind, so nothing is known about paths.
		return fmt.Errorf("webrtc: dial %s given up: %s: %w", c.s.peer.Short(), c.stage, cause)
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return &noPathError{
		peer: c.s.peer, stage: c.stage, state: c.s.pc.ICEConnectionState().String(),
		sent: append([]string(nil), c.s.sent...), heard: append([]string(nil), c.s.heard...),
		tries: c.tries, last: c.last, cause: cause,
	}
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

// tell sends the candidates that the peer does not know.
func (s *session) tell(ctx context.Context) {
	if news := s.untold(); len(news) > 0 {
		s.t.say(ctx, s.peer, &message{kind: kindCandidates, id: s.id, candidates: news})
	}
}

// trickle tells them as they are found, until ctx or the session ends.
func (s *session) trickle(ctx context.Context) {
	s.t.spawn(func(context.Context) {
		for {
			select {
			case <-s.found:
				s.tell(ctx)
			case <-s.lostc:
				return
			case <-ctx.Done():
				return
			}
		}
	})
}
