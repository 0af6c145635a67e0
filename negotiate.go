package peerlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"peerlink/identity"
	"peerlink/internal/pause"
	"peerlink/internal/trace"
)

// The pauses between rounds of a negotiation: a quarter of a second at first,
// which a restarted peer needs, then twice as long each time, up to 10 s, with
// a random half more or less so that many devices that lost one peer come back
// apart.
const (
	firstPause = 250 * time.Millisecond
	maxPause   = 10 * time.Second
)

// pausesOfRounds returns the pauses of one negotiation, or of one call whose links
// the device did not want.
func pausesOfRounds() *backoff.ExponentialBackOff {
	pauses := pause.Backoff(firstPause, maxPause)
	pauses.RandomizationFactor = 0.5
	return pauses
}

// errAbandoned is the cause when a negotiation or a unique call has no callers left.
var errAbandoned = errors.New("no caller waits for it")

// talks are the links that this side is making. ConnectionManager.mu guards
// them and their negotiations: the methods are called while that is held.
type talks struct {
	n        int // negotiations
	byDevice map[identity.DeviceID][]*negotiation
	greeting map[identity.DeviceID]int // streams on which this side has said hello, and which are not links yet
	quiet    pause.Bell                // rings when a device has no such streams left
}

// negotiation is the making of one link, for every caller that waits for it. It
// goes in rounds: each tries all carriers.
type negotiation struct {
	peer       identity.DeviceID
	carriers   []string // nil: all
	deliberate bool     // made for one caller; neither others nor an inbound link join
	cancel     context.CancelCauseFunc
	done       chan struct{} // closed when link or err is final
	kick       pause.Bell    // ends the pause
	begun      time.Time

	waiters int        // callers; without any it ends
	patient int        // callers that wait for further rounds
	failed  pause.Bell // rings when a round has failed
	rounds  int        // rounds that have failed
	now     []attempt  // of the round under way
	before  []Attempt  // of the round before
	won     bool       // a carrier's link is known; the others' are not needed
	link    *link      // the link, once it is over
	err     error      // why there is none, or why the round before failed
	over    bool
}

// attempt is an Attempt, when it began, and the carrier that counts it.
type attempt struct {
	Attempt
	began time.Time
	of    string
}

// joinable returns the negotiation that a caller may join, or nil.
func (ts *talks) joinable(peer identity.DeviceID, opts ConnectOptions) *negotiation {
	if opts.Mode == NewLink {
		return nil
	}
	for _, n := range ts.byDevice[peer] {
		if !n.deliberate && n.waiters > 0 && !n.over && slices.Equal(n.carriers, opts.Carriers) && (n.carriers == nil) == (opts.Carriers == nil) {
			return n
		}
	}
	return nil
}

// begin adds a negotiation.
func (ts *talks) begin(peer identity.DeviceID, opts ConnectOptions, cancel context.CancelCauseFunc) *negotiation {
	n := &negotiation{
		peer: peer, carriers: opts.Carriers, deliberate: opts.Mode == NewLink, cancel: cancel, begun: time.Now(),
		done: make(chan struct{}),
	}
	ts.byDevice[peer] = append(ts.byDevice[peer], n)
	ts.n++
	return n
}

// end gives the callers a link, or why there is none; false if they have it.
func (ts *talks) end(n *negotiation, l *link, err error) bool {
	if n.over {
		return false
	}
	n.over, n.link, n.err = true, l, err
	of := slices.DeleteFunc(ts.byDevice[n.peer], func(o *negotiation) bool { return o == n })
	if ts.byDevice[n.peer] = of; len(of) == 0 {
		delete(ts.byDevice, n.peer)
	}
	ts.n--
	close(n.done)
	return true
}

// complete gives an inbound link to the callers that wait for one to its device:
// there is no need to make another.
func (ts *talks) complete(l *link) {
	for _, n := range slices.Clone(ts.byDevice[l.peer.Device]) {
		if !n.deliberate && (n.carriers == nil || slices.Contains(n.carriers, l.carrier)) {
			ts.end(n, l, nil)
			n.cancel(errCrossed)
		}
	}
}

// greet notes that this side is about to say hello on a stream; false if the
// negotiation is over, so that the peer does not hear of a link without use.
func (ts *talks) greet(n *negotiation) bool {
	if n.over || n.deliberate {
		return !n.over
	}
	ts.greeting[n.peer]++
	return true
}

// greeted notes that the link of a stream is known, or is not to be.
func (ts *talks) greeted(n *negotiation) {
	if n.deliberate {
		return
	}
	if ts.greeting[n.peer]--; ts.greeting[n.peer] == 0 {
		delete(ts.greeting, n.peer)
		ts.quiet.Ring()
	}
}

// join counts a caller in. ends is closed when the round under way has failed,
// after which a caller that is not patient waits no longer.
func (n *negotiation) join(ctx context.Context) (ends <-chan struct{}) {
	n.waiters++
	n.kick.Ring()
	if isPatient(ctx) {
		n.patient++
		return nil
	}
	return n.failed.Next()
}

// leave counts a caller out, and returns what it is told.
func (n *negotiation) leave(ctx context.Context) error {
	n.waiters--
	if isPatient(ctx) {
		n.patient--
	}
	if ctx.Err() != nil {
		return n.failure(context.Cause(ctx))
	}
	return n.err
}

// isPatient reports whether a caller waits for further rounds: until the
// deadline of its context, if it has one.
func isPatient(ctx context.Context) bool {
	_, ok := ctx.Deadline()
	return ok
}

// pause ends a round that failed: callers that are not patient are told. It
// reports whether there are others.
func (n *negotiation) pause(err error) bool {
	if n.over || n.patient == 0 {
		return false
	}
	n.rounds++
	n.before = n.before[:0:0]
	for _, a := range n.now {
		n.before = append(n.before, a.Attempt)
	}
	n.now, n.err = nil, err
	n.failed.Ring()
	return true
}

// failure tells of the attempts of this round and the one before.
func (n *negotiation) failure(cause error) error {
	e := &ConnectError{Peer: n.peer, Rounds: n.rounds + 1, Err: cause, Attempts: slices.Clone(n.before)}
	if len(n.now) == 0 && n.rounds > 0 {
		e.Rounds = n.rounds
	}
	for _, a := range n.now {
		if a.Err == nil {
			a.Took = time.Since(a.began)
		}
		e.Attempts = append(e.Attempts, a.Attempt)
	}
	return e
}

// join returns the link to a device that the options allow. If there is none, it
// returns the negotiation for one, begun if need be, with the caller counted in;
// ends is what negotiation.join returns.
func (m *ConnectionManager) join(ctx context.Context, peer identity.DeviceID, dialers []Dialer, opts ConnectOptions) (l *link, n *negotiation, ends <-chan struct{}, err error) {
	m.lock()
	defer m.mu.Unlock()
	if m.leaving {
		return nil, nil, nil, errClosed
	}
	if opts.Mode != NewLink {
		l = m.links.best(peer, opts.Carriers)
	}
	switch {
	case l != nil && (!l.suspect || opts.Mode == OnlyIfConnected):
		return l, nil, nil, nil
	case opts.Mode == OnlyIfConnected:
		return nil, nil, nil, ErrNotConnected
	}
	if n = m.talks.joinable(peer, opts); n == nil {
		if n := len(m.links.byID); !m.links.yields(m.talks.n) {
			return nil, nil, nil, fmt.Errorf("%w: %d exist, and %d are being made", ErrCapacity, n, m.talks.n)
		}
		n = m.beginLocked(ctx, peer, dialers, opts)
	}
	return nil, n, n.join(ctx), nil
}

// beginLocked begins a negotiation. m.mu is held.
func (m *ConnectionManager) beginLocked(ctx context.Context, peer identity.DeviceID, dialers []Dialer, opts ConnectOptions) *negotiation {
	// The first caller's values go along (its trace), its end does not.
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	n := m.talks.begin(peer, opts, cancel)
	m.bus.tell(Event{Kind: Connecting, Peer: identity.Peer{Device: peer}})
	m.life.Go(func(ctx context.Context) { // it has not ended: m.leaving is set before
		stop := context.AfterFunc(ctx, func() { cancel(errClosed) })
		defer stop()
		defer cancel(nil)
		m.negotiate(run, n, dialers)
	})
	return n
}

// negotiate runs rounds until one brings a link, no caller waits for the next, or
// there is no hope in one.
func (m *ConnectionManager) negotiate(ctx context.Context, n *negotiation, dialers []Dialer) {
	pauses := pausesOfRounds()
	for {
		l, hopeless, cause := m.race(ctx, n, dialers)
		kicked := n.kick.Next() // not for the round that is over
		if m.concludes(ctx, n, l, hopeless, cause) {
			return
		}
		select {
		case <-after(pauses.NextBackOff()):
		case <-kicked:
			pauses.Reset()
		case <-ctx.Done():
			m.locked(func() { m.settleLocked(n, nil, n.failure(context.Cause(ctx))) })
			return
		}
	}
}

// concludes reports whether a round was the last one, and then ends the
// negotiation. It counts the carriers that failed.
func (m *ConnectionManager) concludes(ctx context.Context, n *negotiation, l *link, hopeless bool, cause error) bool {
	m.lock()
	defer m.mu.Unlock()
	late := cause != nil && ctx.Err() == nil // the round had no more time, and its caller has
	for _, a := range n.now {
		// A carrier whose link crossed another, or was given up by the peer, did get there.
		if a.Err == nil && late || a.Err != nil && !errors.Is(a.Err, errCrossed) && !givenUpThere(a.Err) {
			m.totals.carrier(a.of).Failed++
		}
	}
	if l != nil {
		m.settleLocked(n, l, nil)
		return true
	}
	err := n.failure(cause)
	if hopeless || ctx.Err() != nil || !n.pause(err) {
		m.settleLocked(n, nil, err)
		return true
	}
	m.bus.tell(Event{Kind: Retrying, Peer: identity.Peer{Device: n.peer}, Err: err})
	return false
}

// settleLocked ends a negotiation, unless an inbound link has done so before. m.mu
// is held.
func (m *ConnectionManager) settleLocked(n *negotiation, l *link, err error) {
	if m.talks.end(n, l, err) && err != nil {
		m.totals.Failed++
		m.bus.tell(Event{Kind: ConnectFailed, Peer: identity.Peer{Device: n.peer}, Err: err})
	}
}

// wait waits for a negotiation's end, or the caller's. ends is what join returned.
func (m *ConnectionManager) wait(ctx context.Context, n *negotiation, ends <-chan struct{}) (*link, error) {
	select {
	case <-n.done:
		return n.link, n.err
	case <-ends:
	case <-ctx.Done():
	}
	m.lock()
	defer m.mu.Unlock()
	if n.over {
		return n.link, n.err
	}
	err := n.leave(ctx)
	if n.waiters == 0 {
		m.settleLocked(n, nil, n.failure(errAbandoned))
		n.cancel(errAbandoned)
	}
	return nil, err
}

// began notes that a carrier begins to try, and returns the attempt's number.
func (m *ConnectionManager) began(n *negotiation, d Dialer) int {
	m.lock()
	defer m.mu.Unlock()
	n.now = append(n.now, attempt{Attempt{Carrier: d.Name()}, time.Now(), carrierOf(d)})
	return len(n.now) - 1
}

// result is how an attempt ended.
type result struct {
	link    *link
	err     error
	attempt int
}

// race is one round of a negotiation: it starts the dialers in order, each a
// head start after the one before or as soon as all before have failed, and
// returns the one link that comes up: register turns away later ones, so that no
// channel is opened on a link that is then closed. A refusal by the device ends
// the race. Without a link, hopeless tells that another round would be no better,
// and cause why no more was tried: nil after the last attempt's failure.
func (m *ConnectionManager) race(ctx context.Context, n *negotiation, dialers []Dialer) (l *link, hopeless bool, cause error) {
	ctx, stop := context.WithTimeoutCause(ctx, m.cfg.ConnectTimeout, fmt.Errorf("gave up after %v", m.cfg.ConnectTimeout))
	defer stop()
	runs, cancel := context.WithCancelCause(ctx)
	results := make(chan result, len(dialers))
	running := 0
	defer cancel(errLost) // stops the others; Close waits for them
	hopeless = true
	nowhere := len(dialers) > 0 // no carrier was a way to the device, which may change
	next := after(0)            // dialer
	for {
		switch {
		case len(dialers) == 0 && running == 0:
			return nil, hopeless && !nowhere, context.Cause(ctx)
		case len(dialers) == 0:
			next = nil
		}
		select {
		case <-next:
			d, i := dialers[0], m.began(n, dialers[0])
			dialers = dialers[1:]
			running++
			if !m.life.Go(func(context.Context) {
				l, err := m.dial(runs, d, n)
				results <- result{l, err, i}
			}) {
				results <- result{nil, errClosed, i}
			}
			next = after(m.headStart(d))
		case r := <-results:
			running--
			if r.err == nil {
				return r.link, false, nil
			}
			if errors.Is(r.err, errLost) {
				continue // the winner's result is on its way
			}
			verdict := judge(r.err)
			m.locked(func() {
				a := &n.now[r.attempt]
				a.Err, a.Took = verdict.err, time.Since(a.began)
			})
			trace.Note(ctx, trace.AttemptFailed, "%v", verdict.err)
			if verdict.hopeless || !elsewhere(Attempt{Err: r.err}) {
				hopeless, nowhere = hopeless && verdict.hopeless, false
			}
			if verdict.final {
				return nil, true, nil
			}
			if running == 0 {
				next = after(0)
			}
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
	}
}

// after is time.After, but for the past a channel that is ready by itself: in a
// test's time bubble, channel timers that have run out before a goroutine waited
// for them crash Go 1.26's race detector if two goroutines meet them at once.
func after(d time.Duration) <-chan time.Time {
	if d > 0 {
		return time.After(d)
	}
	c := make(chan time.Time)
	close(c)
	return c
}

// headStart is how long a dialer is alone before the next one starts.
func (m *ConnectionManager) headStart(d Dialer) time.Duration {
	if _, ok := d.(addressed); ok {
		return addressStep
	}
	return max(m.cfg.HeadStart, 0)
}

// errLost is why a carrier was stopped: another one has overtaken it.
var errLost = errors.New("another carrier was faster")

// verdict is what a failed attempt means.
type verdict struct {
	err      error
	final    bool // the device itself said no: other carriers would hear the same
	hopeless bool // this carrier would fail again
}

// judge tells how an attempt failed (see Dialer). A TLS alert is the device's
// refusal over that carrier, but an attacker on the path can forge one: the
// others still try.
func judge(err error) verdict {
	var said interface{ Refused() string }
	var unproven interface{ Unproven() bool }
	var passing interface{ Temporary() bool }
	var lasting interface{ Permanent() bool }
	var alert *net.OpError
	switch {
	case errors.As(err, &said) && errors.As(err, &passing) && passing.Temporary():
		return verdict{refusal{err, ErrBusy}, false, false}
	case errors.As(err, &said):
		return verdict{refusal{err, ErrRefused}, !errors.As(err, &unproven) || !unproven.Unproven(), true}
	case errors.Is(err, ErrRefused):
		return verdict{err, true, true}
	case errors.As(err, &alert) && alert.Op == "remote error": // crypto/tls's word for an alert
		return verdict{refusal{err, ErrRefused}, false, true}
	case errors.Is(err, identity.ErrNotTrusted), errors.Is(err, ErrCapacity), errors.Is(err, errClosed):
		return verdict{err, false, true}
	case errors.As(err, &lasting) && lasting.Permanent():
		return verdict{err, false, true}
	}
	return verdict{err, false, false}
}

// lasting is an error of a carrier that would fail again.
type lasting struct{ error }

// Permanent reports true.
func (lasting) Permanent() bool { return true }

// dial has one carrier make a stream and raises a link on it.
func (m *ConnectionManager) dial(ctx context.Context, d Dialer, n *negotiation) (*link, error) {
	conn, proven, err := d.Dial(ctx, n.peer)
	if err != nil {
		return nil, err
	}
	if proven.Device != n.peer {
		_ = conn.Close()
		return nil, lasting{fmt.Errorf("the stream ends at device %s", proven.Device)}
	}
	m.lock()
	wanted := m.talks.greet(n)
	m.mu.Unlock()
	if !wanted {
		_ = conn.Close()
		return nil, errLost
	}
	defer m.locked(func() { m.talks.greeted(n) })
	l := &link{peer: proven, carrier: carrierOf(d), direction: Outbound, deliberate: n.deliberate || n.carriers != nil, of: n}
	if err := m.raise(ctx, l, conn); err != nil {
		return nil, fmt.Errorf("%s: %w", l.path, err)
	}
	trace.Note(ctx, trace.LinkUp, "%s", l.path)
	return l, nil
}
