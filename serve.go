package peerlink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"unicode"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
)

// serve is a link's life: its peer's channel requests, until it ends.
func (m *ConnectionManager) serve(l *link, first bool) {
	defer m.unregister(l)
	defer func() { _ = l.mux.Close() }() // waits for its goroutines
	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	if first && m.cfg.OnNewDevice != nil {
		m.goFunc(func() { m.notify(m.ctx, "OnNewDevice", l.peer, func() { m.cfg.OnNewDevice(l.peer) }) })
	}
	for {
		r, err := l.mux.Accept(ctx)
		if err != nil {
			if m.ctx.Err() == nil {
				m.about(l.peer.Device, "link ended", "carrier", l.carrier, "err", err)
			}
			return
		}
		// As many at once as the link lets wait undecided, and no more.
		if !m.goFunc(func() { m.route(ctx, l, r) }) {
			_ = r.Decline(reasonFor(errClosed))
		}
	}
}

// notify runs a notice to the application in its turn. It reports whether the
// callback has returned without a panic.
func (m *ConnectionManager) notify(ctx context.Context, name string, peer identity.Peer, f func()) bool {
	leave, err := m.workers.enter(ctx, peer.Device)
	if err != nil {
		return false
	}
	defer leave()
	return m.guard(name, f)
}

// route gives a channel request to whoever it is for.
func (m *ConnectionManager) route(ctx context.Context, l *link, r *multiplex.Request) {
	m.mu.Lock()
	leaving := m.leaving
	m.mu.Unlock()
	if leaving {
		m.decline(r, errShuttingDown)
		return
	}
	if m.joinUnique(ctx, l, r) {
		return
	}
	sock, err := m.answer(ctx, l, r)
	m.decided(uniqueKey{l.peer.Device, r.Name()})
	if err != nil || sock == nil {
		return
	}
	if m.cfg.OnConnectionReady == nil {
		_ = sock.Close()
		return
	}
	if !m.notify(ctx, "OnConnectionReady", l.peer, func() { m.cfg.OnConnectionReady(l.peer, sock) }) {
		_ = sock.Reset(channel.CodeInternal)
	}
}

// errShuttingDown is what peers are told while this side waits for its channels.
var errShuttingDown = errors.New("shutting down")

// answer decides on a request. It returns the channel if that is for
// OnConnectionReady; an error is one that the peer knows, or has caused.
func (m *ConnectionManager) answer(ctx context.Context, l *link, r *multiplex.Request) (*channel.Socket, error) {
	if c := m.claimant(r.Name()); c != nil {
		ctx, cancel := context.WithTimeout(ctx, m.cfg.DecisionTimeout)
		defer cancel()
		err := c.offer(ctx, func() (*channel.Socket, error) { return m.accept(l, r) })
		if errors.Is(err, errBacklog) || errors.Is(err, errGone) {
			m.decline(r, err)
		}
		return nil, err
	}
	err := errors.New("nobody listens on " + r.Name())
	if m.cfg.OnChannelRequest != nil {
		err = m.ask(ctx, "OnChannelRequest", l.peer, func(ctx context.Context) error {
			return m.cfg.OnChannelRequest(ctx, l.peer, r.Name())
		})
	}
	if err != nil {
		m.decline(r, err)
		return nil, err
	}
	return m.accept(l, r)
}

// accept opens a channel that the peer has asked for.
func (m *ConnectionManager) accept(l *link, r *multiplex.Request) (*channel.Socket, error) {
	if !m.admitChannel(l) {
		return nil, errRetired
	}
	sock, err := r.Accept()
	if err == nil {
		m.count(func(t *Metrics) { t.Accepted++ })
		m.noteAccepted(l, sock)
	}
	return sock, err
}

func (m *ConnectionManager) decline(r *multiplex.Request, why error) {
	if r.Decline(reasonFor(why)) == nil {
		m.count(func(t *Metrics) { t.Declined++ })
	}
}

// decide asks trust and the application whether a device may connect.
func (m *ConnectionManager) decide(ctx context.Context, peer identity.Peer) error {
	err := m.mayConnect(ctx, peer)
	if err != nil {
		m.count(func(t *Metrics) { t.Refused++ })
	}
	return err
}

func (m *ConnectionManager) mayConnect(ctx context.Context, peer identity.Peer) error {
	if err := m.cfg.Trust.Check(peer); err != nil {
		return err
	}
	m.mu.Lock()
	full := m.links >= m.cfg.Capacity || len(m.byDevice[peer.Device]) >= m.cfg.PerDevice
	closing := m.leaving
	m.mu.Unlock()
	switch {
	case closing:
		return errClosed
	case full:
		return ErrCapacity
	case m.cfg.OnICERequest == nil:
		return nil
	}
	return m.ask(ctx, "OnICERequest", peer, func(ctx context.Context) error { return m.cfg.OnICERequest(ctx, peer) })
}

// ask runs a decision of the application. One that panics says no; one that
// takes longer than DecisionTimeout is not waited for.
func (m *ConnectionManager) ask(ctx context.Context, name string, peer identity.Peer, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, m.cfg.DecisionTimeout, os.ErrDeadlineExceeded)
	leave, err := m.workers.enter(ctx, peer.Device)
	if err != nil {
		cancel()
		return fmt.Errorf("too many decisions wait: %w", err)
	}
	answer := make(chan error, 1)
	run := func() {
		defer leave()
		defer cancel()
		err := errInternal
		m.guard(name, func() { err = f(ctx) })
		answer <- err
	}
	if !m.goFunc(run) {
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

// reasonFor is what a peer is told of an error: its text, but for what is none
// of the peer's business.
func reasonFor(err error) string {
	switch {
	case errors.Is(err, errClosed):
		return reasonClosing
	case errors.Is(err, identity.ErrNotTrusted):
		return "not trusted"
	case errors.Is(err, errLost), errors.Is(err, errAbandoned):
		return reasonNotNeeded
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
