package peerlink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"peerlink/identity"
	"peerlink/internal/trace"
)

// negotiation is the making of one link, for everyone who waits for it.
type negotiation struct {
	peer    identity.DeviceID
	private bool // made for one caller; others do not join
	cancel  context.CancelCauseFunc
	done    chan struct{}

	mu       sync.Mutex
	waiters  int
	attempts []Attempt
	began    []time.Time

	link *link // set before done is closed
	err  error
}

// errAbandoned is the cause when nobody waits for a negotiation any more.
var errAbandoned = errors.New("nobody waits for it any more")

// joinLocked returns the negotiation for a device, beginning it if need be, and
// counts the caller in. m.mu is held.
func (m *ConnectionManager) joinLocked(ctx context.Context, peer identity.DeviceID, dialers []Dialer, opts ConnectOptions) *negotiation {
	private := opts.Mode == NewLink || opts.Carriers != nil
	if n := m.negotiations[peer]; n != nil && !private {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.waiters > 0 { // else it is being cancelled
			n.waiters++
			return n
		}
	}
	n := &negotiation{peer: peer, private: private, done: make(chan struct{}), waiters: 1}
	// The first caller's values go along (its trace), its end does not.
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	n.cancel = cancel
	if private {
		m.private++
	} else {
		m.negotiations[peer] = n
	}
	m.wg.Go(func() {
		stop := context.AfterFunc(m.ctx, func() { cancel(errClosed) })
		defer stop()
		defer cancel(nil)
		n.link, n.err = m.race(run, n, dialers)
		m.mu.Lock()
		if private {
			m.private--
		} else if m.negotiations[peer] == n {
			delete(m.negotiations, peer)
		}
		if n.err != nil {
			m.totals.Failed++
		}
		m.mu.Unlock()
		close(n.done)
	})
	return n
}

// wait waits for a negotiation's end, or the caller's.
func (m *ConnectionManager) wait(ctx context.Context, n *negotiation) (*link, error) {
	select {
	case <-n.done:
		return n.link, n.err
	case <-ctx.Done():
	}
	n.mu.Lock()
	n.waiters--
	if n.waiters == 0 {
		n.cancel(errAbandoned)
	}
	n.mu.Unlock()
	return nil, n.failure(context.Cause(ctx))
}

// failure tells of all attempts so far.
func (n *negotiation) failure(cause error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := &ConnectError{Peer: n.peer, Err: cause}
	for i, a := range n.attempts {
		if a.Err == nil {
			a.Took = time.Since(n.began[i])
		}
		e.Attempts = append(e.Attempts, a)
	}
	return e
}

func (n *negotiation) begin(carrier string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.attempts = append(n.attempts, Attempt{Carrier: carrier})
	n.began = append(n.began, time.Now())
	return len(n.attempts) - 1
}

func (n *negotiation) ended(i int, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.attempts[i].Err = err
	n.attempts[i].Took = time.Since(n.began[i])
}

type result struct {
	link    *link
	err     error
	attempt int
}

// race starts the dialers in order, each a head start after the one before or
// as soon as all before have failed, and returns the first link that comes up.
// What comes later is closed. A refusal by the device ends the race.
func (m *ConnectionManager) race(ctx context.Context, n *negotiation, dialers []Dialer) (*link, error) {
	timeout := fmt.Errorf("gave up after %v", m.cfg.ConnectTimeout)
	ctx, stop := context.WithTimeoutCause(ctx, m.cfg.ConnectTimeout, timeout)
	defer stop()
	runs, cancel := context.WithCancel(ctx)
	results := make(chan result, len(dialers))
	running := 0
	defer func() { // losers: stop them, and close what they still bring
		cancel()
		m.wg.Go(func() {
			for ; running > 0; running-- {
				if r := <-results; r.link != nil {
					_ = r.link.mux.Close()
				}
			}
		})
	}()
	headStart := time.NewTimer(0)
	defer headStart.Stop()
	for {
		if running == 0 && len(dialers) == 0 {
			return nil, n.failure(nil)
		}
		next := headStart.C
		if len(dialers) == 0 {
			next = nil
		}
		select {
		case <-next:
			d := dialers[0]
			dialers = dialers[1:]
			i := n.begin(d.Name())
			running++
			go func() {
				l, err := m.dial(runs, d, n.peer)
				results <- result{l, err, i}
			}()
			headStart.Reset(max(m.cfg.HeadStart, 0))
		case r := <-results:
			running--
			if r.err == nil {
				return r.link, nil
			}
			err, refused := asRefusal(r.err)
			n.ended(r.attempt, err)
			trace.Note(ctx, trace.AttemptFailed, "%v", err)
			if refused {
				return nil, n.failure(nil)
			}
			if running == 0 {
				headStart.Reset(0)
			}
		case <-ctx.Done():
			return nil, n.failure(context.Cause(ctx))
		}
	}
}

// dial has one carrier make a stream and raises a link on it.
func (m *ConnectionManager) dial(ctx context.Context, d Dialer, peer identity.DeviceID) (*link, error) {
	conn, proven, err := d.Dial(ctx, peer)
	if err != nil {
		return nil, err
	}
	if proven.Device != peer {
		_ = conn.Close()
		return nil, fmt.Errorf("the stream ends at device %s", proven.Device)
	}
	l, err := m.raise(ctx, d.Name(), conn, proven, Outbound)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pathOf(d.Name(), conn), err)
	}
	trace.Note(ctx, trace.LinkUp, "%s", l.path)
	return l, nil
}
