package peerlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"peerlink/identity"
	"peerlink/internal/trace"
)

type result struct {
	link    *link
	err     error
	attempt int
}

// race is one round of a negotiation: it starts the dialers in order, each a
// head start after the one before or as soon as all before have failed, and
// returns the one link that comes up: register turns away what comes later, so
// that no channel comes about on a link that is then closed. A refusal by the
// device ends the race. hopeless says that another round would be no better.
func (m *ConnectionManager) race(ctx context.Context, n *negotiation, dialers []Dialer) (l *link, hopeless bool, err error) {
	timeout := fmt.Errorf("gave up after %v", m.cfg.ConnectTimeout)
	ctx, stop := context.WithTimeoutCause(ctx, m.cfg.ConnectTimeout, timeout)
	defer stop()
	runs, cancel := context.WithCancelCause(ctx)
	results := make(chan result, len(dialers))
	running := 0
	defer func() { // losers: stop them, and wait for them
		cancel(errLost)
		m.wg.Go(func() {
			for ; running > 0; running-- {
				<-results
			}
		})
	}()
	hopeless = true
	next := after(0) // dialer
	for {
		switch {
		case len(dialers) == 0 && running == 0:
			return nil, hopeless, m.failure(n, context.Cause(ctx))
		case len(dialers) == 0:
			next = nil
		}
		select {
		case <-next:
			d, i := dialers[0], m.began(n, dialers[0])
			dialers = dialers[1:]
			running++
			go func() {
				l, err := m.dial(runs, d, n)
				results <- result{l, err, i}
			}()
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
			m.ended(n, r.attempt, verdict.err)
			noteFailure(ctx, verdict.err)
			hopeless = hopeless && verdict.hopeless
			if verdict.final {
				return nil, true, m.failure(n, nil)
			}
			if running == 0 {
				next = after(0)
			}
		case <-ctx.Done():
			m.overran(ctx, n, timeout)
			return nil, false, m.failure(n, context.Cause(ctx))
		}
	}
}

// after is time.After, but for the past a channel that is ready by itself: in a
// test's time bubble, channel timers that have run out before anybody waited
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

// errLost is why a carrier was stopped that another one has overtaken.
var errLost = errors.New("another carrier was faster")

// verdict is what a failed attempt means.
type verdict struct {
	err      error
	final    bool // the device itself said no: other carriers would hear the same
	hopeless bool // this carrier would fail again
}

// judge tells how an attempt failed (see Dialer). A TLS alert is the device's refusal over
// that carrier, but somebody on the path can forge one: the others still try.
func judge(err error) verdict {
	var said interface{ Refused() string }
	var lasting interface{ Permanent() bool }
	var alert *net.OpError
	switch {
	case errors.As(err, &said):
		return verdict{refusal{err}, true, true}
	case errors.Is(err, ErrRefused):
		return verdict{err, true, true}
	case errors.As(err, &alert) && alert.Op == "remote error": // crypto/tls's word for an alert
		return verdict{refusal{err}, false, true}
	case errors.Is(err, identity.ErrNotTrusted), errors.Is(err, ErrCapacity), errors.Is(err, errClosed):
		return verdict{err, false, true}
	case errors.As(err, &lasting) && lasting.Permanent():
		return verdict{err, false, true}
	}
	return verdict{err, false, false}
}

// dial has one carrier make a stream and raises a link on it.
func (m *ConnectionManager) dial(ctx context.Context, d Dialer, n *negotiation) (*link, error) {
	conn, proven, err := d.Dial(ctx, n.peer)
	if err != nil {
		return nil, err
	}
	if proven.Device != n.peer {
		_ = conn.Close()
		return nil, fmt.Errorf("the stream ends at device %s", proven.Device)
	}
	if !m.mayRaise(n) {
		_ = conn.Close()
		return nil, errLost
	}
	defer m.raised(n)
	l := &link{peer: proven, carrier: carrierOf(d), direction: Outbound, deliberate: n.deliberate || n.carriers != nil, of: n}
	if _, err := m.raise(ctx, l, conn); err != nil {
		return nil, fmt.Errorf("%s: %w", l.path, err)
	}
	trace.Note(ctx, trace.LinkUp, "%s", l.path)
	return l, nil
}
