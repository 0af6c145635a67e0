package ice

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"peerlink/identity"
	"peerlink/internal/calls"
	"peerlink/internal/trace"
)

// Dial makes a stream to the device. It blocks until the stream is proven to
// end there, the device refuses (*RefusedError), ctx ends, or Config.Timeout
// has passed (an error that matches ErrNoPath and os.ErrDeadlineExceeded and
// tells what was tried). The connection is a complete net.Conn whose Path
// method describes the way it takes. Milestones are noted on ctx.
func (t *Transport) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	return t.board.Dial(ctx, peer)
}

// carrier is what the Transport's calls have of their own.
type carrier struct{ *Transport }

// Decode reads a peer's signal.
func (t carrier) Decode(b []byte) (*message, error) { return decode(b, t.cfg.Loopback) }

// Refusal makes one.
func (t carrier) Refusal(h calls.Head) *message {
	return &message{kind: h.Kind, id: h.ID, code: h.Code, reason: h.Reason}
}

// Post sends a signal.
func (t carrier) Post(ctx context.Context, to identity.DeviceID, m *message) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	return t.cfg.Signaller.Send(ctx, to, b)
}

// negotiate begins a negotiation. end does not wait for what has lost.
func (t *Transport) negotiate(ctx context.Context, r role, id requestID, peer identity.DeviceID) (n *negotiation, end func(), err error) {
	if !t.board.Enter() {
		return nil, nil, errClosed
	}
	n = newNegotiation(ctx, r, id, peer)
	return n, func() {
		go func() {
			defer t.board.Leave()
			n.end()
		}()
	}, nil
}

// Call makes the stream of a call from here.
func (t carrier) Call(ctx context.Context, out *calls.Call[*message]) (net.Conn, identity.Peer, error) {
	n, end, err := t.negotiate(ctx, controlling, out.ID, out.Peer)
	if err != nil {
		return nil, identity.Peer{}, err
	}
	defer end()
	rand.Read(n.key[:])
	out.Attach(n)
	c := call{Call: out, t: t.Transport, n: n, order: classes(t.cfg.Engines)}
	conn, proven, err := c.run()
	c.report(err)
	return conn, proven, err
}

// call is the caller's side of one negotiation.
type call struct {
	*calls.Call[*message]
	t        *Transport
	n        *negotiation
	order    []class  // of paths that may still win, the best first
	msg      *message // the offer; of next, once it runs
	reminded int      // of next
	madeAt   time.Time
	taken    *path // the one that led to the stream
	foundAt  time.Time
	found    atomic.Bool // foundAt is set
	stage    string      // how far it came since the device was heard, for the error
}

func (c *call) run() (net.Conn, identity.Peer, error) {
	c.msg = &message{kind: calls.Offer, id: c.ID}
	if err := c.t.describe(c.n, c.msg); err != nil {
		return nil, identity.Peer{}, err
	}
	c.madeAt = time.Now()
	c.Offer(c.next, func(ctx context.Context) { c.t.trickle(ctx, c.n) })
	patient, direct := true, true
	var preferred, relayed <-chan struct{} // run from the first path on, and from the answer
	for {
		if conn, peer, err := c.take(patient, direct); conn != nil || err != nil {
			return conn, peer, err
		}
		select {
		case <-c.n.notify:
			if patient && preferred == nil {
				preferred = c.n.pause(patience)
			}
		case <-preferred:
			patient, preferred = false, nil
		case <-relayed:
			direct, relayed = false, nil
		case m := <-c.Answers:
			if err := c.answered(m); err != nil {
				return nil, identity.Peer{}, err
			}
			relayed = c.n.pause(c.relayPatience())
		case <-c.n.ctx.Done():
			return nil, identity.Peer{}, c.Failure(c.stage, c.t.tale(c.n), nil)
		}
	}
}

// next is what the device is told in each round: the offer, with the candidates of
// then, while nothing is heard. Later, as long as no path is found, it is all
// candidates, as what was told since the offer may have been lost.
func (c *call) next(round int) (*message, bool) {
	if _, heard := c.Times(); heard.IsZero() {
		if round > 0 {
			c.t.refresh(c.n, c.msg)
		}
		c.n.tell(c.msg)
		return c.msg, true
	}
	if c.found.Load() || c.reminded == maxReminders {
		return nil, false
	}
	c.reminded++
	m, err := c.t.candidates(c.n)
	if err != nil {
		return nil, false
	}
	c.n.tell(m)
	return m, true
}

// maxReminders leaves most of the signals that the callee takes for news.
const maxReminders = 2

// The wait for a direct path before a relay is taken, from the answer on. A
// direct path shows itself a round trip and a check later, and the way of the
// signals is seldom shorter than that round trip.
const (
	minRelayPatience = 50 * time.Millisecond
	maxRelayPatience = 300 * time.Millisecond
)

// relayPatience is longest while no server has told this device its address: the
// question may be lost, and the device cannot be punched through to before it is
// repeated, after askPause.
func (c *call) relayPatience() time.Duration {
	if c.t.outside.isAwaited(engineUDP) {
		return maxRelayPatience
	}
	return min(max(time.Since(c.madeAt)+checkInterval, minRelayPatience), maxRelayPatience)
}

// describe puts every engine's part into m.
func (t *Transport) describe(n *negotiation, m *message) error {
	addrs, err := t.cfg.Addresses()
	if err != nil {
		return fmt.Errorf("ice: own addresses: %w", err)
	}
	n.own = addrs
	for _, e := range t.engines {
		if err := e.describe(n, m, addrs); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) answered(m *message) error {
	c.stage = "the answer came, but no candidate could be reached"
	c.n.price.Store(c.Price())
	common := c.n.start(c.t.engines, m)
	c.order = classes(common)
	c.Heard("engines %v, %d candidates", common, m.candidates())
	if len(common) == 0 {
		return fmt.Errorf("ice: dial %s: %w: the device answers for no engine that this one has (%v)", c.Peer.Short(), ErrNoPath, c.t.cfg.Engines)
	}
	return nil
}

// best removes and returns the best path, if there is one that need not wait for a
// better one.
func (c *call) best(patient, direct bool) *path {
	return c.n.takePath(c.order, func(p *path) bool {
		switch {
		case p.class == relaysClass: // one relay may do, and is found at about the same time
			return !direct && !patient
		case p.class == relayClass, p.vague:
			return !direct
		case p.class == c.order[0]:
			return true
		default: // far away there is nothing better to wait for
			return !patient || !p.near
		}
	})
}

// take makes a stream of the best path. Without a stream and without an error the
// call goes on.
func (c *call) take(patient, direct bool) (net.Conn, identity.Peer, error) {
	p := c.best(patient, direct)
	if p == nil {
		return nil, identity.Peer{}, nil
	}
	c.Heard("the device connected before its answer came")
	c.foundAt = time.Now()
	c.found.Store(true)
	trace.Note(c.n.ctx, trace.PairSelected, "%s", p.Path)
	conn, peer, err := p.take(c.n.ctx)
	if err == nil && peer.Device != c.Peer {
		conn.Close()
		err = fmt.Errorf("device %s is at the other end", peer.Device)
	}
	switch {
	case err == nil:
		c.taken = p
		c.t.log.Debug("ice: connected", "peer", peer.Device, "way", c.t.way(c.n, p.Remote, p.class), "path", p.Path)
		trace.Note(c.n.ctx, trace.Secured, "%s, %s", p.Path, peer)
		if p.apart {
			c.Withdraw()
		}
		return conn, peer, nil
	case errors.Is(err, identity.ErrNotTrusted), refusedInTLS(err):
		return nil, identity.Peer{}, &refusedError{c.Peer, err}
	}
	trace.Note(c.n.ctx, trace.AttemptFailed, "%s: %v", p.Path, err)
	c.n.tried(p.Engine, p.String(), err)
	c.stage = "a path was found, but no stream could be made"
	return nil, identity.Peer{}, nil
}
