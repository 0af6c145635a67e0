package calls

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"peerlink/identity"
	"peerlink/internal/pause"
	"peerlink/internal/trace"
)

const (
	// repeatAfter is when an offer that nothing came of is sent once more, for the
	// first time; then after twice as long, and so on. It is what a signal needs
	// there and back on the worst link we care for (600 ms), and some. Signals do
	// get lost: at a node that dies, or at the callee's limit of them.
	repeatAfter = 1500 * time.Millisecond
	// crossedGrace is how long, after the device's own call has come through, a
	// Dial leaves its caller to see that it needs no other.
	crossedGrace = 500 * time.Millisecond
	// sendGrace is how long the signaller may take to say why it sent nothing: its
	// context has ended, too.
	sendGrace = 100 * time.Millisecond
)

// Call is one call that this device makes. Its methods are for Carrier.Call.
type Call[S Signal] struct {
	// ID names the call, and Peer is the device that is called.
	ID   ID
	Peer identity.DeviceID
	// Answers holds the device's answer, once it has come.
	Answers <-chan S

	b       *Board[S]
	ctx     context.Context // of the call; its cause is a verdict where that says all
	cancel  context.CancelCauseFunc
	began   time.Time
	answerc chan S
	then    func(ctx context.Context) // of Offer
	firstc  chan struct{}             // closed when the first offer was sent, or could not be
	offered sync.Once                 // the offer is on its way: noted before an answer is

	// Under Board.mu:
	side               Side[S]
	settled, refused   bool          // nothing more is taken for an answer
	first              *Visit[S]     // the device's own call, which goes first
	from               identity.Peer // of the answer
	offeredAt, heardAt time.Time
	tries              int
	tallies            []*trace.Tally // of the offer, each time it was sent
	last               error          // of sending it
}

// Dial makes a stream to the device. It blocks until the stream is proven to end
// there, the device refuses (*RefusedError), ctx ends, or Config.Timeout has passed
// (an error that matches ErrNoPath and os.ErrDeadlineExceeded).
func (b *Board[S]) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	if err := b.mayDial(peer); err != nil {
		return nil, identity.Peer{}, fmt.Errorf("%s: dial: %w", b.cfg.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	for {
		conn, found, first, err := b.call(ctx, peer)
		if first == nil || err == nil {
			return conn, found, err
		}
		if err := first.waitFor(ctx); err != nil {
			return nil, identity.Peer{}, fmt.Errorf("%s: dial %s: %w: %w", b.cfg.Name, peer.Short(), errCrossed, err)
		}
	}
}

func (b *Board[S]) mayDial(peer identity.DeviceID) error {
	switch {
	case peer.IsZero():
		return errors.New("no device id given")
	case peer == b.cfg.Self:
		return errors.New("this device cannot dial itself")
	case b.banned(peer):
		return fmt.Errorf("%w: device %s is banned here", identity.ErrBanned, peer)
	}
	return nil
}

func (b *Board[S]) banned(peer identity.DeviceID) bool {
	return b.cfg.Trust != nil && b.cfg.Trust.Decision(peer) == identity.Banned
}

// call makes one call. first is the device's own call where that goes first.
func (b *Board[S]) call(ctx context.Context, peer identity.DeviceID) (conn net.Conn, found identity.Peer, first *Visit[S], err error) {
	c, err := b.begin(ctx, peer)
	if err != nil {
		return nil, found, nil, err
	}
	defer c.cancel(nil)
	defer context.AfterFunc(b.Context(), func() { c.cancel(b.cfg.Closed) })()
	conn, found, err = b.carrier.Call(c.ctx, c)
	if err != nil && b.Ended() && !errors.Is(err, net.ErrClosed) {
		err = b.cfg.Closed // the carrier has seen what it uses end before it saw why
	}
	b.mu.Lock()
	delete(b.outgoing, c.ID)
	first = c.first
	withdraw := err != nil && c.tries > 0 && !c.refused
	b.mu.Unlock()
	if withdraw {
		c.Withdraw()
	}
	return conn, found, first, err
}

// begin registers a call, so that an answer finds it.
func (b *Board[S]) begin(ctx context.Context, peer identity.DeviceID) (*Call[S], error) {
	c := &Call[S]{ID: NewID(), Peer: peer, b: b, began: time.Now(), answerc: make(chan S, 1), firstc: make(chan struct{})}
	c.Answers = c.answerc
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.Ended():
		return nil, b.cfg.Closed
	case len(b.outgoing) >= b.cfg.Most:
		return nil, fmt.Errorf("%s: dial %s: %d dials run already", b.cfg.Name, peer.Short(), len(b.outgoing))
	}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	b.outgoing[c.ID] = c
	return c, nil
}

// Attach has the carrier's side told of the device's candidates, and found by Side.
func (c *Call[S]) Attach(s Side[S]) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.side = s
}

// Offer has an offer sent, and again while the call runs. next gives the signal of
// each round, counted from 0, or false when there is no more to say; it runs on a
// goroutine of its own. then runs at the same time, once the first offer is on its way, until
// the call's context ends. Offer does not block. An offer that cannot even be sent
// for the first time ends the call.
func (c *Call[S]) Offer(next func(round int) (S, bool), then func(ctx context.Context)) {
	c.then = then
	c.b.Go(func(context.Context) { c.offer(next) })
}

func (c *Call[S]) offer(next func(round int) (S, bool)) {
	due, every := time.Now(), repeatAfter
	for round := 0; c.ctx.Err() == nil; round++ {
		s, ok := next(round)
		if !ok {
			return
		}
		err := c.send(s)
		if round == 0 {
			close(c.firstc)
		}
		switch {
		case err == nil:
			c.sent("")
		case c.ctx.Err() == nil && c.stage() == stageUnsent:
			c.cancel(verdict{fmt.Errorf("%s: dial %s: send the offer: %w", c.b.cfg.Name, c.Peer.Short(), err)})
			return
		}
		for now := time.Now(); !due.After(now); every *= 2 { // what is past is not made up for
			due = due.Add(every)
		}
		if pause.For(c.ctx, time.Until(due)) != nil {
			return
		}
	}
}

// send sends one offer, and notes how it fares.
func (c *Call[S]) send(s S) error {
	tally := new(trace.Tally)
	c.b.mu.Lock()
	c.tries++
	c.tallies = append(c.tallies, tally)
	c.b.mu.Unlock()
	err := c.b.carrier.Post(trace.WithTally(c.ctx, tally), c.Peer, s)
	if err != nil {
		c.b.mu.Lock()
		c.last = err
		c.b.mu.Unlock()
	}
	return err
}

// sent notes, once, that the offer is on its way.
func (c *Call[S]) sent(how string) {
	c.offered.Do(func() {
		c.b.mu.Lock()
		c.offeredAt = time.Now()
		c.b.mu.Unlock()
		trace.Note(c.ctx, trace.OfferSent, "%s request %x%s", c.b.cfg.Name, c.ID[:4], how)
		c.b.Go(func(context.Context) { c.then(c.ctx) })
	})
}

// Heard notes, once, that the device has answered, by a signal or by connecting;
// the words say how. Either may overtake the signaller's receipt for the offer.
func (c *Call[S]) Heard(format string, args ...any) {
	c.sent(", and the device was quicker than the signaller's receipt")
	c.b.mu.Lock()
	first := c.heardAt.IsZero()
	if first {
		c.heardAt = time.Now()
	}
	c.b.mu.Unlock()
	if first {
		trace.Note(c.ctx, trace.AnswerReceived, format, args...)
	}
}

// Times returns when the offer was first on its way, and when the device was
// first heard; zero where that has not happened.
func (c *Call[S]) Times() (offered, heard time.Time) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	return c.offeredAt, c.heardAt
}

// Tries counts the offers that were sent, or were to be.
func (c *Call[S]) Tries() int {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	return c.tries
}

// Withdraw tells the device that the call is over. It does not block.
func (c *Call[S]) Withdraw() {
	c.b.Go(func(ctx context.Context) { c.b.tell(ctx, c.Peer, c.ID, no{CodeWithdrawn, "withdrawn"}) })
}

// How far a call came while nothing was heard of the device.
const (
	stageUnsent = "the offer could not be sent"
	stageSent   = "no answer"
)

// stage says how far the call came; it is empty once the device was heard.
func (c *Call[S]) stage() string {
	offered, heard := c.Times()
	switch {
	case !heard.IsZero():
		return ""
	case !offered.IsZero():
		return stageSent
	}
	return stageUnsent
}

// Failure is the error of a call that came to nothing: why its context has ended,
// or else otherwise. stage says how far the call came if the device was heard, and
// tried, if it is not empty, what was tried.
func (c *Call[S]) Failure(stage, tried string, otherwise error) error {
	cause := otherwise
	if c.ctx.Err() != nil {
		cause = context.Cause(c.ctx)
	}
	var v verdict
	if errors.As(cause, &v) {
		return v.error
	}
	e := &noPathError{carrier: c.b.cfg.Name, peer: c.Peer, stage: stage, took: time.Since(c.began), tried: tried, cause: cause}
	silent := c.stage()
	if silent != "" {
		e.stage = silent
	}
	if givenUp(cause) {
		return fmt.Errorf("%s: dial %s given up: %s: %w", e.carrier, e.peer.Short(), e.stage, cause)
	}
	if silent != "" {
		e.through, e.fared = c.fared()
	}
	return e
}

// fared says how the offer did, the last time that it was under way at all.
func (c *Call[S]) fared() (through, how string) {
	c.b.mu.Lock()
	tallies := slices.Clone(c.tallies)
	c.b.mu.Unlock()
	for _, t := range slices.Backward(tallies) {
		if how := t.String(); how != "" {
			return t.Through(), how
		}
	}
	select {
	case <-c.firstc:
	case <-time.After(sendGrace):
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if c.last != nil && !bare(c.last) {
		how = c.last.Error()
	}
	return "", how
}
