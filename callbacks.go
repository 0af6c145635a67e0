package peerlink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/quota"
)

var (
	// memberCallbacks is how many callbacks of the application run at once about
	// members. One device has what its openers ask at once.
	memberCallbacks = quota.Limits{Each: 256, All: 4096}
	// strangerCallbacks is the same about strangers: half as much.
	strangerCallbacks = quota.Limits{Each: 128, All: 2048}
)

// workers run the callbacks of the application, and bound how many run at once. A
// callback that never returns holds its place for good; in the end only its own
// device has none left.
type workers struct {
	life     *life.Group              // the manager's
	timeout  time.Duration            // of a decision
	panicked func(name string, p any) // is told of each callback that panicked
	*rooms
}

// guard runs a callback and survives its panic.
func (w *workers) guard(name string, f func()) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			w.panicked(name, p)
		}
	}()
	f()
	return true
}

// notify runs a notice to the application in its turn. It reports whether the
// callback has returned without a panic.
func (w *workers) notify(ctx context.Context, name string, about asker, f func()) bool {
	leave, err := w.enter(ctx, about)
	if err != nil {
		return false
	}
	defer leave()
	return w.guard(name, f)
}

// ask runs a decision of the application. A panic is a no, and so is a decision
// that takes longer than DecisionTimeout.
func (w *workers) ask(ctx context.Context, name string, about asker, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, w.timeout, os.ErrDeadlineExceeded)
	leave, err := w.enter(ctx, about)
	if err != nil {
		cancel()
		return fmt.Errorf("too many decisions wait: %w", err)
	}
	answer := make(chan error, 1)
	if !w.life.Go(func(context.Context) {
		defer leave()
		defer cancel()
		err := errInternal
		w.guard(name, func() { err = f(ctx) })
		answer <- err
	}) {
		leave()
		cancel()
		return errClosed
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		select {
		case err := <-answer: // the decision itself ended the context
			return err
		default:
		}
		return fmt.Errorf("no decision: %w", context.Cause(ctx))
	}
}

var errInternal = errors.New("internal error")

// busy is why a device is turned away that may come again (see Negotiator).
type busy struct{ error }

// Busy reports true.
func (busy) Busy() bool { return true }

// Unwrap returns the reason.
func (b busy) Unwrap() error { return b.error }

// decide asks trust and the application whether a device may connect.
func (m *ConnectionManager) decide(ctx context.Context, peer identity.Peer) (err error) {
	defer func() {
		if err != nil {
			m.locked(func() { m.totals.Refused++ })
		}
	}()
	if err := m.cfg.Trust.Check(peer); err != nil {
		return err
	}
	a := m.asker(peer)
	m.refresh()
	m.lock()
	_, full := m.links.room(a, time.Now())
	closing := m.leaving
	m.mu.Unlock()
	switch {
	case closing:
		return busy{errShuttingDown}
	case full != nil:
		return busy{ErrCapacity}
	case m.cfg.OnICERequest == nil:
		return nil
	}
	return m.workers.ask(ctx, "OnICERequest", a, func(ctx context.Context) error { return m.cfg.OnICERequest(ctx, peer) })
}

// panicked counts a callback that panicked, and logs where.
func (m *ConnectionManager) panicked(name string, p any) {
	m.locked(func() { m.totals.Panics++ })
	m.cfg.Logger.Error("callback panicked", "callback", name, "panic", p, "stack", string(debug.Stack()))
}
