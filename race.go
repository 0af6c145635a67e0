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
// returns the first link that comes up. What comes later is closed. A refusal
// by the device ends the race. hopeless says that another round would be no
// better.
func (m *ConnectionManager) race(ctx context.Context, n *negotiation, dialers []Dialer) (l *link, hopeless bool, err error) {
	timeout := fmt.Errorf("gave up after %v", m.cfg.ConnectTimeout)
	ctx, stop := context.WithTimeoutCause(ctx, m.cfg.ConnectTimeout, timeout)
	defer stop()
	runs, cancel := context.WithCancelCause(ctx)
	results := make(chan result, len(dialers))
	running := 0
	defer func() { // losers: stop them, and close what they still bring
		cancel(errLost)
		m.wg.Go(func() {
			for ; running > 0; running-- {
				if r := <-results; r.link != nil {
					_ = r.link.mux.Close()
				}
			}
		})
	}()
	hopeless = true
	headStart := time.NewTimer(0)
	defer headStart.Stop()
	for {
		if running == 0 && len(dialers) == 0 {
			return nil, hopeless, m.failure(n, context.Cause(ctx))
		}
		next := headStart.C
		if len(dialers) == 0 {
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
			headStart.Reset(m.headStart(d))
		case r := <-results:
			running--
			if r.err == nil {
				return r.link, false, nil
			}
			verdict := judge(r.err)
			m.ended(n, r.attempt, verdict.err)
			noteFailure(ctx, verdict.err)
			hopeless = hopeless && verdict.hopeless
			if verdict.final {
				return nil, true, m.failure(n, nil)
			}
			if running == 0 {
				headStart.Reset(0)
			}
		case <-ctx.Done():
			m.overran(ctx, n, timeout)
			return nil, false, m.failure(n, context.Cause(ctx))
		}
	}
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
	l := &link{peer: proven, carrier: carrierOf(d), direction: Outbound, deliberate: n.deliberate || n.carriers != nil}
	if _, err := m.raise(ctx, l, conn); err != nil {
		return nil, fmt.Errorf("%s: %w", l.path, err)
	}
	trace.Note(ctx, trace.LinkUp, "%s", l.path)
	return l, nil
}
