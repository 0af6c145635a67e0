package peerlink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"peerlink/identity"
	"peerlink/internal/life"
)

const (
	// maxCallbacks is how many callbacks of the application run at once.
	maxCallbacks = 4096
	// maxCallbacksPerDevice is how many of them may be about one device: what
	// its openers ask at once.
	maxCallbacksPerDevice = 256
)

// workers run the callbacks of the application, and bound how many run at once. A
// callback that never returns holds its place for good; in the end only its own
// device has none left.
type workers struct {
	life     *life.Group              // the manager's
	timeout  time.Duration            // of a decision
	panicked func(name string, p any) // is told of each callback that panicked

	all chan struct{}

	mu      sync.Mutex // taken alone
	devices map[identity.DeviceID]*places
}

// places are the places of one device; they exist while they are used.
type places struct {
	c     chan struct{}
	users int
}

// enter waits for a place, until ctx ends. leave must be called once.
func (w *workers) enter(ctx context.Context, device identity.DeviceID) (leave func(), err error) {
	p := w.use(device)
	if err = take(ctx, p.c); err == nil {
		if err = take(ctx, w.all); err == nil {
			return func() { <-w.all; <-p.c; w.unuse(device, p) }, nil
		}
		<-p.c
	}
	w.unuse(device, p)
	return nil, err
}

// take waits for a place in c, until ctx ends.
func take(ctx context.Context, c chan<- struct{}) error {
	select {
	case c <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *workers) use(device identity.DeviceID) *places {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.devices[device]
	if p == nil {
		p = &places{c: make(chan struct{}, maxCallbacksPerDevice)}
		w.devices[device] = p
	}
	p.users++
	return p
}

func (w *workers) unuse(device identity.DeviceID, p *places) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.users--; p.users == 0 {
		delete(w.devices, device)
	}
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
func (w *workers) notify(ctx context.Context, name string, device identity.DeviceID, f func()) bool {
	leave, err := w.enter(ctx, device)
	if err != nil {
		return false
	}
	defer leave()
	return w.guard(name, f)
}

// ask runs a decision of the application. A panic is a no, and so is a decision
// that takes longer than DecisionTimeout.
func (w *workers) ask(ctx context.Context, name string, device identity.DeviceID, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, w.timeout, os.ErrDeadlineExceeded)
	leave, err := w.enter(ctx, device)
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
	m.lock()
	full, closing := m.links.room(peer.Device) != nil, m.leaving
	m.mu.Unlock()
	switch {
	case closing:
		return busy{errShuttingDown}
	case full:
		return busy{ErrCapacity}
	case m.cfg.OnICERequest == nil:
		return nil
	}
	return m.workers.ask(ctx, "OnICERequest", peer.Device, func(ctx context.Context) error { return m.cfg.OnICERequest(ctx, peer) })
}

// panicked counts a callback that panicked, and logs where.
func (m *ConnectionManager) panicked(name string, p any) {
	m.locked(func() { m.totals.Panics++ })
	m.cfg.Logger.Error("callback panicked", "callback", name, "panic", p, "stack", string(debug.Stack()))
}
