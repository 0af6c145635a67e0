package peerlink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"unicode"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
)

// serve is a link's life: its peer's channel requests, until it ends.
func (m *ConnectionManager) serve(l *link, first bool) {
	defer m.unregister(l)
	defer func() { _ = l.mux.Close() }() // waits for its goroutines
	if first && m.cfg.OnNewDevice != nil {
		m.goFunc(func() { m.guard("OnNewDevice", func() { m.cfg.OnNewDevice(l.peer) }) })
	}
	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	for {
		r, err := l.mux.Accept(ctx)
		if err != nil {
			if m.ctx.Err() == nil {
				m.cfg.Logger.Debug("link ended", "peer", l.peer.Device, "carrier", l.carrier, "err", err)
			}
			return
		}
		// As many at once as the link lets wait undecided, and no more.
		if !m.goFunc(func() { m.route(ctx, l, r) }) {
			_ = r.Decline("closing")
		}
	}
}

// route gives a channel request to whoever it is for.
func (m *ConnectionManager) route(ctx context.Context, l *link, r *multiplex.Request) {
	if c := m.claimant(r.Name()); c != nil {
		if err := c.offer(r.Accept); errors.Is(err, errBacklog) || errors.Is(err, errGone) {
			_ = r.Decline(err.Error())
		}
		return
	}
	if m.cfg.OnChannelRequest == nil {
		_ = r.Decline("nobody listens on " + r.Name())
		return
	}
	err := m.ask(ctx, "OnChannelRequest", func(ctx context.Context) error {
		return m.cfg.OnChannelRequest(ctx, l.peer, r.Name())
	})
	if err != nil {
		_ = r.Decline(reasonFor(err))
		return
	}
	sock, err := r.Accept()
	if err != nil {
		return // withdrawn, or the link has ended
	}
	if m.cfg.OnConnectionReady == nil {
		_ = sock.Close()
		return
	}
	if !m.guard("OnConnectionReady", func() { m.cfg.OnConnectionReady(l.peer, sock) }) {
		_ = sock.Reset(channel.CodeInternal)
	}
}

// decide asks trust and the application whether a device may connect.
func (m *ConnectionManager) decide(ctx context.Context, peer identity.Peer) error {
	if err := m.cfg.Trust.Check(peer); err != nil {
		return err
	}
	m.mu.Lock()
	full, closing := m.links >= m.cfg.Capacity, m.closing
	m.mu.Unlock()
	switch {
	case closing:
		return errClosed
	case full:
		return ErrCapacity
	case m.cfg.OnICERequest == nil:
		return nil
	}
	return m.ask(ctx, "OnICERequest", func(ctx context.Context) error { return m.cfg.OnICERequest(ctx, peer) })
}

// ask runs a decision of the application. One that panics says no; one that
// takes longer than DecisionTimeout is not waited for.
func (m *ConnectionManager) ask(ctx context.Context, name string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, m.cfg.DecisionTimeout, os.ErrDeadlineExceeded)
	answer := make(chan error, 1)
	run := func() {
		defer cancel()
		err := errInternal
		m.guard(name, func() { err = f(ctx) })
		answer <- err
	}
	if !m.goFunc(run) {
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

// guard runs a callback of the application and survives its panic.
func (m *ConnectionManager) guard(name string, f func()) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			m.cfg.Logger.Error("callback panicked", "callback", name, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	f()
	return true
}

// reasonFor is what a peer is told of an error: its text, but for what is none
// of the peer's business.
func reasonFor(err error) string {
	switch {
	case errors.Is(err, errClosed):
		return "closing"
	case errors.Is(err, identity.ErrNotTrusted):
		return "not trusted"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "no decision in time"
	}
	for _, r := range err.Error() {
		if !unicode.IsPrint(r) {
			return fmt.Sprintf("%q", err.Error())
		}
	}
	return err.Error()
}
