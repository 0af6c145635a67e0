package ice

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"peerlink/identity"
	"peerlink/internal/trace"
)

// Dial makes a stream to the device. It blocks until the stream is proven to
// end there, the device refuses (*RefusedError), ctx ends, or Config.Timeout
// has passed (an error that matches ErrNoPath and os.ErrDeadlineExceeded and
// tells what was tried). The connection is a complete net.Conn whose Path
// method describes the way it takes. Milestones are noted on ctx.
func (t *Transport) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	if err := t.mayDial(peer); err != nil {
		return nil, identity.Peer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	n, err := t.begin(ctx, peer)
	if err != nil {
		return nil, identity.Peer{}, err
	}
	// The losers are cleared away behind the caller's back: begin has reserved
	// the goroutine for it.
	defer func() { go t.finish(n) }()
	c := call{t: t, n: n, order: classes(t.cfg.Engines)}
	conn, proven, err := c.run()
	c.report(err)
	return conn, proven, err
}

func (t *Transport) mayDial(peer identity.DeviceID) error {
	switch {
	case peer.IsZero():
		return errors.New("ice: dial: no device id given")
	case peer == t.cfg.Identity.DeviceID():
		return errors.New("ice: dial: this device cannot dial itself")
	case t.cfg.Trust != nil && t.cfg.Trust.Decision(peer) == identity.Banned:
		return fmt.Errorf("ice: dial: %w: device %s is banned here", identity.ErrBanned, peer)
	}
	return nil
}

// begin registers a negotiation, so that even a check that overtakes the
// answer finds it. Each successful begin needs one finish.
func (t *Transport) begin(ctx context.Context, peer identity.DeviceID) (*negotiation, error) {
	n := newNegotiation(ctx, controlling, newRequestID(), peer)
	rand.Read(n.key[:])
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		n.cancel(errClosed)
		return nil, errClosed
	case len(t.outgoing) >= t.cfg.MaxNegotiations:
		n.cancel(errEnded)
		return nil, fmt.Errorf("ice: dial %s: %d dials run already", peer.Short(), len(t.outgoing))
	}
	t.outgoing[n.id] = n
	t.running.Add(1)
	return n, nil
}

func (t *Transport) finish(n *negotiation) {
	defer t.running.Done()
	t.mu.Lock()
	delete(t.outgoing, n.id)
	t.mu.Unlock()
	n.end()
}

// repeatAfter is when an offer that nothing came of is sent once more, for the
// first time; then after twice as long, and so on. It is what a signal needs
// there and back on the worst link we care for (600 ms), and some. Signals do
// get lost: at a node that dies, or at the callee's limit of them.
const repeatAfter = 1500 * time.Millisecond

// call is the caller's side of one negotiation.
type call struct {
	t                           *Transport
	n                           *negotiation
	order                       []class       // of paths that may still win, the best first
	again                       *time.Timer   // when to repeat the offer
	repeats                     time.Duration // how long the timer was set to last
	msg                         *message      // the offer
	sendc                       chan error
	tallies                     []*trace.Tally // of the offer, each time it was sent
	sentAt                      time.Time
	reminded                    int
	offered                     bool      // the offer has been sent
	taken                       *path     // the one that led to the stream
	offeredAt, heardAt, foundAt time.Time // for the report
	heard                       bool      // the device has answered, by a signal or by connecting
	stage                       string    // how far it came, for the error
}

func (c *call) run() (net.Conn, identity.Peer, error) {
	defer context.AfterFunc(c.t.closing, func() { c.n.cancel(errClosed) })()
	c.again, c.repeats = time.NewTimer(repeatAfter), repeatAfter
	defer c.again.Stop()
	if err := c.offer(); err != nil {
		return nil, identity.Peer{}, err
	}
	patient, direct := c.t.cfg.Patience > 0, c.t.cfg.Patience > 0
	var patience, relayed <-chan struct{} // run from the first path on, and from the answer
	for {
		if conn, peer, err := c.take(patient, direct); conn != nil || err != nil {
			return conn, peer, err
		}
		select {
		case <-c.n.notify:
			if patient && patience == nil {
				patience = c.n.pause(c.t.cfg.Patience)
			}
		case <-patience:
			patient, patience = false, nil
		case <-relayed:
			direct, relayed = false, nil
		case m := <-c.n.answerc:
			if err := c.answered(m); err != nil {
				return nil, identity.Peer{}, err
			}
			relayed = c.n.pause(c.relayPatience())
		case err := <-c.sendc:
			if err != nil && !c.offered && c.n.ctx.Err() == nil {
				return nil, identity.Peer{}, fmt.Errorf("ice: dial %s: send the offer: %w", c.n.peer.Short(), err)
			}
			c.sent("")
		case <-c.again.C:
			c.repeat()
		case <-c.n.ctx.Done():
			return nil, identity.Peer{}, c.failure()
		}
	}
}

// offer makes the offer and has it sent.
func (c *call) offer() error {
	m := &message{kind: kindOffer, id: c.n.id}
	if err := c.t.describe(c.n, m); err != nil {
		return err
	}
	c.msg = m
	c.sentAt = time.Now()
	c.stage = "the offer could not be sent"
	return c.send()
}

// send has the offer sent; sendc tells the outcome.
func (c *call) send() error {
	c.n.tell(c.msg)
	body, err := c.msg.encode()
	if err != nil {
		return err
	}
	sendc, tally := make(chan error, 1), new(trace.Tally)
	c.n.spawn(func(ctx context.Context) {
		sendc <- c.t.cfg.Signaller.Send(trace.WithTally(ctx, tally), c.n.peer, body)
	})
	c.sendc, c.tallies = sendc, append(c.tallies, tally)
	return nil
}

// The wait for a direct path before a relay is taken, from the answer on. A
// direct path shows itself a round trip and a check later, and the way of the
// signals is hardly shorter than that round trip.
const (
	minRelayPatience = 50 * time.Millisecond
	maxRelayPatience = 300 * time.Millisecond
)

func (c *call) relayPatience() time.Duration {
	return min(max(time.Since(c.sentAt)+checkInterval, minRelayPatience), maxRelayPatience)
}

// repeat sends the offer once more, if it has been sent and nothing was heard.
func (c *call) repeat() {
	c.repeats *= 2
	c.again.Reset(c.repeats)
	if c.heard {
		c.remind()
		return
	}
	if c.sendc == nil { // else the signaller has not even taken the last one
		c.t.refresh(c.n, c.msg)
		if err := c.send(); err != nil {
			c.n.tried("signaller", "offer", err)
		}
	}
}

// remind tells a device that has answered, but to which no path is found, all
// candidates once more: what it was told since the offer may have been lost.
func (c *call) remind() {
	if c.foundAt.IsZero() && c.reminded < maxReminders {
		c.reminded++
		c.n.spawn(func(ctx context.Context) { c.t.tellAll(ctx, c.n) })
	}
}

// maxReminders leaves most of the signals that the callee takes for news.
const maxReminders = 2

// failure is the error of a call whose context has ended. As long as nothing was
// heard of the device, it says how the offer fared.
func (c *call) failure() error {
	err := c.n.failure(c.stage)
	var none *noPathError
	if c.heard || !errors.As(err, &none) {
		return err
	}
	for _, t := range slices.Backward(c.tallies) { // the last that was under way at all
		if fared := t.String(); fared != "" {
			none.through, none.fared = t.Through(), fared
			return err
		}
	}
	if c.sendc != nil { // nobody was asked yet
		select {
		case why := <-c.sendc:
			if why != nil {
				none.fared = why.Error()
			}
		case <-time.After(sendGrace):
		}
	}
	return err
}

// sendGrace is how long the signaller may take to say why it sent nothing: its
// context has ended, too.
const sendGrace = 100 * time.Millisecond

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

// sent notes, once, that the offer is under way. An answer may overtake the
// return of Send.
func (c *call) sent(how string) {
	if c.sendc != nil {
		c.sendc = nil
		c.stage = "no answer"
		if !c.offered {
			c.offered, c.offeredAt = true, time.Now()
			trace.Note(c.n.ctx, trace.OfferSent, "request %x%s", c.n.id[:4], how)
			c.n.spawn(func(ctx context.Context) { c.t.trickle(ctx, c.n) })
		}
	}
}

func (c *call) answered(m *message) error {
	c.sent(", its answer overtook the signaller's receipt")
	if m.kind == kindRefuse {
		return &RefusedError{Peer: c.n.peer, Reason: m.reason}
	}
	c.stage = "the answer came, but no candidate could be reached"
	common := c.n.start(c.t.engines, m)
	c.order = classes(common)
	if !c.heard {
		c.heard, c.heardAt = true, time.Now()
		trace.Note(c.n.ctx, trace.AnswerReceived, "engines %v, %d candidates", common, m.candidates())
	}
	if len(common) == 0 {
		return fmt.Errorf("ice: dial %s: %w: the device answers for no engine that this one has (%v)", c.n.peer.Short(), ErrNoPath, c.t.cfg.Engines)
	}
	return nil
}

// take makes a stream of the best path, if there is one that need not wait for
// a better one. Without a stream and without an error the call goes on.
func (c *call) take(patient, direct bool) (net.Conn, identity.Peer, error) {
	p := c.n.takePath(c.order, func(p *path) bool {
		switch {
		case p.class == relaysClass: // one relay may do, and is found hardly later
			return !direct && !patient
		case p.class == relayClass, p.vague:
			return !direct
		case p.class == c.order[0]:
			return true
		default: // far away there is nothing better to wait for
			return !patient || !p.near
		}
	})
	if p == nil {
		return nil, identity.Peer{}, nil
	}
	c.sent(", the device connected before the signaller's receipt")
	if !c.heard {
		c.heard, c.heardAt = true, time.Now()
		trace.Note(c.n.ctx, trace.AnswerReceived, "the device connected before its answer came")
	}
	c.foundAt = time.Now()
	trace.Note(c.n.ctx, trace.PairSelected, "%s", p.desc)
	conn, peer, err := p.take(c.n.ctx)
	if err == nil && peer.Device != c.n.peer {
		conn.Close()
		err = fmt.Errorf("device %s is at the other end", peer.Device)
	}
	switch {
	case err == nil:
		c.taken = p
		c.t.log.Debug("ice: connected", "peer", peer.Device, "way", c.t.way(c.n, p.remote, p.class), "path", p.desc)
		trace.Note(c.n.ctx, trace.Secured, "%s, %s", p.desc, peer)
		if p.apart {
			c.t.withdraw(c.n)
		}
		return conn, peer, nil
	case errors.Is(err, identity.ErrNotTrusted), refusedInTLS(err):
		return nil, identity.Peer{}, &refusedError{c.n.peer, err}
	}
	trace.Note(c.n.ctx, trace.AttemptFailed, "%s: %v", p.desc, err)
	c.n.tried(p.engine, p.desc.String(), err)
	c.stage = "a path was found, but no stream could be made"
	return nil, identity.Peer{}, nil
}
