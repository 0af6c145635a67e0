package peerlink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/quota"
	"peerlink/multiplex"
)

var (
	// memberBacklog is how many accepted channels of members may wait for a listener's
	// Accept, as many as most systems give listen(2). Further requests stay undecided
	// until there is room, DecisionTimeout at most; a link has at most 256 such requests.
	memberBacklog = quota.Limits{Each: 128, All: 128}
	// strangerBacklog is the same of strangers, so that they keep no member waiting.
	strangerBacklog = quota.Limits{Each: 64, All: 128}
)

// Listen claims channels by their URI: an exact one ("chat://bob") or all that
// begin alike ("file://*", "*"). Where several patterns fit, an exact one wins,
// then the longest. The listener accepts what it claims, 128 channels of members and as
// many of strangers (identity.Trust.Member; 64 of one) ahead of its Accept; PeerOf returns the device at a connection's far end. Channels that it
// has accepted, and the program has not before Close, are reset: their peers' errors match
// ErrNotAccepted. A pattern can be claimed once, also before Start: if it has a
// listener, the error matches ErrClaimed. Close gives it up. The listener is a
// ChannelListener, and each connection a *channel.Socket.
func (m *ConnectionManager) Listen(pattern string) (net.Listener, error) {
	return m.ListenChannels(pattern)
}

// ListenChannels is Listen for a program that uses what a channel has besides a
// net.Conn: its URI, CloseWrite, TrySend, Stats.
func (m *ConnectionManager) ListenChannels(pattern string) (ChannelListener, error) {
	return m.ListenFunc(pattern, nil)
}

// ListenFunc is ListenChannels with a decision on each request, before the channel
// is accepted: the error of decide declines the channel, and the peer is told its
// text. decide is called as Config.OnChannelRequest is. A nil decide accepts all.
func (m *ConnectionManager) ListenFunc(pattern string, decide func(ctx context.Context, peer identity.Peer, uri string) error) (ChannelListener, error) {
	m.made()
	l, err := m.router.listen(pattern, decide)
	if err != nil {
		return nil, err // and not a nil *listener in an interface
	}
	return l, nil
}

// ChannelListener is what Listen and ListenChannels return. Its methods may be
// called concurrently.
type ChannelListener interface {
	net.Listener
	// AcceptChannel is Accept with the channel's own type. The error after Close
	// matches net.ErrClosed, as Accept's does; if ctx ends first, the error matches
	// its cause.
	AcceptChannel(ctx context.Context) (*channel.Socket, error)
}

// router finds the listener of a channel request.
type router struct {
	mu       sync.Mutex // taken alone
	over     bool       // no pattern can be claimed
	patterns map[string]*listener
}

// listen claims a pattern.
func (r *router) listen(pattern string, decide decision) (*listener, error) {
	start, wild := strings.CutSuffix(pattern, "*")
	if pattern == "" || strings.Contains(start, "*") {
		return nil, fmt.Errorf("peerlink: listen %.100q: want a URI, or the start of one and a *", pattern)
	}
	if err := multiplex.CheckName(start); err != nil && (start != "" || !wild) {
		return nil, fmt.Errorf("peerlink: listen: no channel has such a URI: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.over:
		return nil, errClosed
	case r.patterns[pattern] != nil:
		return nil, fmt.Errorf("peerlink: listen %q: %w", pattern, ErrClaimed)
	case r.patterns == nil:
		r.patterns = make(map[string]*listener)
	}
	l := &listener{of: r, pattern: pattern, decide: decide, conns: make(chan waiting, memberBacklog.All+strangerBacklog.All), rooms: newRooms(memberBacklog, strangerBacklog)}
	r.patterns[pattern] = l
	return l, nil
}

// claimant returns the listener of the pattern that fits best, or nil.
func (r *router) claimant(uri string) *listener {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.patterns[uri]; l != nil && !strings.HasSuffix(uri, "*") {
		return l
	}
	var best *listener
	for p, l := range r.patterns {
		prefix, wild := strings.CutSuffix(p, "*")
		if wild && strings.HasPrefix(uri, prefix) && (best == nil || len(p) > len(best.pattern)) {
			best = l
		}
	}
	return best
}

// forget gives up a pattern.
func (r *router) forget(l *listener) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.patterns[l.pattern] == l {
		delete(r.patterns, l.pattern)
	}
}

// close closes all listeners; no pattern can be claimed afterwards.
func (r *router) close() {
	r.mu.Lock()
	r.over = true
	all := slices.Collect(maps.Values(r.patterns))
	r.mu.Unlock()
	for _, l := range all {
		_ = l.Close()
	}
}

// decision says yes to a request for a channel, or why not.
type decision func(ctx context.Context, peer identity.Peer, uri string) error

// listener is the net.Listener of a pattern.
type listener struct {
	of      *router
	pattern string
	decide  decision // nil: all are accepted
	conns   chan waiting
	rooms   *rooms // have a place for each channel in conns, or about to be

	mu   sync.Mutex // taken before life's own
	life life.Group // once it has ended, nothing more is put into conns
}

// waiting is a channel that waits for Accept, in its place.
type waiting struct {
	*channel.Socket
	leave func()
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.AcceptChannel(context.Background())
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptChannel implements ChannelListener.
func (l *listener) AcceptChannel(ctx context.Context) (*channel.Socket, error) {
	err := net.ErrClosed
	if !l.life.Ended() {
		select {
		case c := <-l.conns:
			c.leave()
			return c.Socket, nil
		case <-l.life.Done():
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	return nil, &net.OpError{Op: "accept", Net: "peerlink", Addr: l.Addr(), Err: err}
}

// Close implements net.Listener: channels that wait for Accept are reset, so that
// their peers do not take them for read.
func (l *listener) Close() error {
	l.of.forget(l)
	l.mu.Lock()
	l.life.End()
	l.mu.Unlock()
	for {
		select {
		case c := <-l.conns:
			_ = c.Reset(channel.CodeNotAccepted)
			c.leave()
		default:
			return nil
		}
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return patternAddr(l.pattern) }

type patternAddr string

// Network returns "peerlink".
func (a patternAddr) Network() string { return "peerlink" }

// String returns the pattern.
func (a patternAddr) String() string { return string(a) }

var (
	errBacklog = errors.New("too many channels wait to be accepted")
	errGone    = errors.New("the listener was closed")
)

// place waits for room, until ctx or the listener ends.
func (l *listener) place(ctx context.Context, a asker) (leave func(), err error) {
	if leave, ok := l.rooms.try(a); ok {
		return leave, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.life.Context(), func() { cancel(errGone) })()
	leave, err = l.rooms.enter(ctx, a)
	if err != nil && !errors.Is(err, errGone) {
		err = errBacklog
	}
	return leave, err
}

// offer waits for room, accepts the request and queues the channel, or returns
// why not. ctx ends with the link or when the time for a decision is over.
func (l *listener) offer(ctx context.Context, a asker, accept func() (*channel.Socket, error)) error {
	leave, err := l.place(ctx, a)
	if err != nil {
		return err
	}
	c, err := (*channel.Socket)(nil), errGone
	if !l.life.Ended() {
		c, err = accept()
	}
	if err != nil {
		leave()
		return err
	}
	l.mu.Lock()
	over := l.life.Ended()
	if !over {
		l.conns <- waiting{c, leave} // has room: its place is reserved
	}
	l.mu.Unlock()
	if over {
		_ = c.Reset(channel.CodeNotAccepted) // as Close does with channels that wait
		leave()
	}
	return nil
}
