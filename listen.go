package peerlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"peerlink/channel"
)

// backlog is how many accepted channels may wait for a listener's Accept.
// Further ones stay undecided until there is room, DecisionTimeout at most; of
// these each link has 256 at most. It is what most systems give listen(2).
const backlog = 128

// Listen claims channels by their URI: an exact one ("chat://bob") or all that
// begin alike ("file://*", "*"). Where several patterns fit, an exact one wins,
// then the longest. The listener accepts what it claims, 128 channels ahead of
// its Accept; PeerOf tells who a connection is with. A pattern can be claimed once; Close gives it up.
func (m *ConnectionManager) Listen(pattern string) (net.Listener, error) {
	if pattern == "" || strings.Contains(strings.TrimSuffix(pattern, "*"), "*") {
		return nil, fmt.Errorf("peerlink: listen %.100q: want a URI, or the start of one and a *", pattern)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.leaving:
		return nil, errClosed
	case m.patterns[pattern] != nil:
		return nil, fmt.Errorf("peerlink: listen %q: somebody listens on it already", pattern)
	}
	l := &listener{m: m, pattern: pattern, conns: make(chan *channel.Socket, backlog), room: make(chan struct{}, backlog), closed: make(chan struct{})}
	m.patterns[pattern] = l
	return l, nil
}

// listener is the net.Listener of a pattern.
type listener struct {
	m       *ConnectionManager
	pattern string
	conns   chan *channel.Socket
	room    chan struct{} // holds a place for each channel in conns, or about to be
	once    sync.Once
	closed  chan struct{}

	mu   sync.Mutex
	over bool // nothing more may be put into conns
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, l.errClosed()
	default:
	}
	select {
	case c := <-l.conns:
		<-l.room
		return c, nil
	case <-l.closed:
		return nil, l.errClosed()
	}
}

func (l *listener) errClosed() error {
	return &net.OpError{Op: "accept", Net: "peerlink", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close implements net.Listener: channels that nobody has accepted are closed.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.m.mu.Lock()
		if l.m.patterns[l.pattern] == l {
			delete(l.m.patterns, l.pattern)
		}
		l.m.mu.Unlock()
		l.mu.Lock()
		l.over = true
		l.mu.Unlock()
		close(l.closed)
		for {
			select {
			case c := <-l.conns:
				_ = c.Close()
			default:
				return
			}
		}
	})
	return nil
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
	errGone    = errors.New("nobody listens any more")
)

// offer waits for room, accepts the request and queues the channel, or says
// why not. ctx ends with the link or when the time for a decision is over.
func (l *listener) offer(ctx context.Context, accept func() (*channel.Socket, error)) error {
	select {
	case l.room <- struct{}{}:
	case <-l.closed:
		return errGone
	case <-ctx.Done():
		return errBacklog
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c, err := (*channel.Socket)(nil), errGone
	if !l.over {
		c, err = accept()
	}
	if err != nil {
		<-l.room
		return err
	}
	l.conns <- c // has room: its place is reserved
	return nil
}

// claimant returns the listener whose pattern fits best, or nil.
func (m *ConnectionManager) claimant(uri string) *listener {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.patterns[uri]; l != nil && !strings.HasSuffix(uri, "*") {
		return l
	}
	var best *listener
	for p, l := range m.patterns {
		prefix, wild := strings.CutSuffix(p, "*")
		if wild && strings.HasPrefix(uri, prefix) && (best == nil || len(p) > len(best.pattern)) {
			best = l
		}
	}
	return best
}
