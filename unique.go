package peerlink

import (
	"context"
	"errors"
	"fmt"
	"os"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
)

// uniqueKey names what is unique: a URI with one device.
type uniqueKey struct {
	peer identity.DeviceID
	uri  string
}

// uniqueCall makes, or has made, the one channel of a key. Fields without a
// comment are guarded by ConnectionManager.mu until done is closed.
type uniqueCall struct {
	cancel  context.CancelCauseFunc
	asked   chan struct{} // closed when this side's own request is over
	done    chan struct{} // closed when sock or err stands
	over    bool
	waiters int
	sock    *channel.Socket
	err     error
}

// decisions are requests of the peer under one key that this side has not
// answered yet. next is closed, and replaced, with each answer.
type decisions struct {
	n    int
	next chan struct{}
}

// errTheirs is why a unique channel's request is taken back: the peer asked at
// the same moment, and its request is the one that counts.
var errTheirs = errors.New("the peer's request for the same channel goes first")

// alive reports whether a channel can still be used for sending, as far as is
// known here.
func alive(s *channel.Socket) bool {
	err := s.TrySend(nil)
	return err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

// connectUnique is ConnectDevice with UniqueName.
func (m *ConnectionManager) connectUnique(ctx context.Context, peer identity.DeviceID, uri string, opts ConnectOptions) (*channel.Socket, error) {
	key := uniqueKey{peer, uri}
	for {
		m.mu.Lock()
		if m.leaving {
			m.mu.Unlock()
			return nil, errClosed
		}
		u := m.unique[key]
		if u != nil && u.over && !alive(u.sock) {
			delete(m.unique, key)
			u = nil
		}
		if u == nil {
			if s := m.acceptedLocked(key); s != nil {
				m.mu.Unlock()
				return s, nil
			}
			if d := m.deciding[key]; d != nil { // the peer asks for it now
				next := d.next
				m.mu.Unlock()
				select {
				case <-next:
					continue
				case <-ctx.Done():
					return nil, uniqueFailed(ctx, key)
				}
			}
			u = m.beginUniqueLocked(ctx, key, opts)
		}
		u.waiters++
		m.mu.Unlock()
		select {
		case <-u.done:
		case <-ctx.Done():
			m.leaveUnique(u)
			return nil, uniqueFailed(ctx, key)
		}
		if u.err != nil && ctx.Err() == nil && errors.Is(u.err, errImpatient) {
			continue // the caller who began it had less time
		}
		return u.sock, u.err
	}
}

func uniqueFailed(ctx context.Context, key uniqueKey) error {
	return fmt.Errorf("peerlink: channel %q to device %s, the only one of its name: %w", key.uri, key.peer.Short(), context.Cause(ctx))
}

// errImpatient is the cause when the caller who began a unique call has no
// time left.
var errImpatient = fmt.Errorf("its caller gave it no more time: %w", context.DeadlineExceeded)

// beginUniqueLocked asks for the channel on behalf of all who want it. m.mu is held.
func (m *ConnectionManager) beginUniqueLocked(ctx context.Context, key uniqueKey, opts ConnectOptions) *uniqueCall {
	u := &uniqueCall{asked: make(chan struct{}), done: make(chan struct{})}
	m.sweepUniqueLocked()
	m.unique[key] = u
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	u.cancel = cancel
	stop := func() {}
	if deadline, ok := ctx.Deadline(); ok {
		run, stop = context.WithDeadlineCause(run, deadline, errImpatient)
	}
	opts.UniqueName = false
	m.wg.Go(func() {
		defer stop()
		defer cancel(nil)
		sock, err := m.connect(run, key.peer, key.uri, opts)
		close(u.asked)
		m.mu.Lock()
		defer m.mu.Unlock()
		if !u.over && (err == nil || !errors.Is(context.Cause(run), errTheirs)) {
			m.endUniqueLocked(key, u, sock, err)
		}
	})
	return u
}

// endUniqueLocked gives all who wait the channel, or why there is none. m.mu is held.
func (m *ConnectionManager) endUniqueLocked(key uniqueKey, u *uniqueCall, sock *channel.Socket, err error) {
	u.over, u.sock, u.err = true, sock, err
	if err != nil && m.unique[key] == u {
		delete(m.unique, key)
	}
	close(u.done)
}

func (m *ConnectionManager) leaveUnique(u *uniqueCall) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u.waiters--; u.waiters == 0 && !u.over {
		u.cancel(errAbandoned)
	}
}

// sweepUniqueLocked forgets channels that have ended, whenever there are twice
// as many as were left the last time. m.mu is held.
func (m *ConnectionManager) sweepUniqueLocked() {
	if len(m.unique) < m.uniqueSweep {
		return
	}
	for k, u := range m.unique {
		if u.over && !alive(u.sock) {
			delete(m.unique, k)
		}
	}
	m.uniqueSweep = 2*len(m.unique) + 64
}

// noteAccepted remembers a channel that the peer opened, for unique calls.
func (m *ConnectionManager) noteAccepted(l *link, s *channel.Socket) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(l.accepted) >= l.acceptedSweep {
		for uri, s := range l.accepted {
			if !alive(s) {
				delete(l.accepted, uri)
			}
		}
		l.acceptedSweep = 2*len(l.accepted) + 16
	}
	if old := l.accepted[s.URI()]; old != nil && alive(old) {
		return
	}
	if l.accepted == nil {
		l.accepted = make(map[string]*channel.Socket)
	}
	l.accepted[s.URI()] = s
}

// acceptedLocked returns the open channel that the peer asked for under a URI,
// or nil. m.mu is held.
func (m *ConnectionManager) acceptedLocked(key uniqueKey) *channel.Socket {
	for _, l := range m.links.byDevice[key.peer] {
		if s := l.accepted[key.uri]; s != nil && alive(s) && !l.mux.Ending() {
			return s
		}
	}
	return nil
}

// joinUnique looks at a request of the peer under a URI for which this side
// has or asks for a unique channel, and reports whether it has dealt with it.
// If not, somebody else decides, and decided must be called then.
//
// Of two requests at once, that of the device with the smaller id counts. The
// other one takes its own back *before* it accepts; so when the first has the
// answer and a beacon has come back, what remains of the other's request is
// known to be a call that wants a channel of its own.
func (m *ConnectionManager) joinUnique(ctx context.Context, l *link, r *multiplex.Request) bool {
	key := uniqueKey{l.peer.Device, r.Name()}
	m.mu.Lock()
	u := m.unique[key]
	if u == nil {
		m.decideLocked(key)
	}
	m.mu.Unlock()
	switch {
	case u == nil:
		return false
	case smaller(m.links.self, l.peer.Device):
		select {
		case <-u.done:
			if u.err == nil {
				_, _ = l.mux.Ping(ctx) // on an error the link is done for, and so is r
			}
		case <-ctx.Done():
		}
	default:
		u.cancel(errTheirs)
		select {
		case <-u.asked:
			if m.takeTheirs(key, u, l, r) {
				return true
			}
		case <-ctx.Done():
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.decideLocked(key)
	return false
}

// takeTheirs makes the channel that the peer asks for the unique one, unless
// this side's own came about first.
func (m *ConnectionManager) takeTheirs(key uniqueKey, u *uniqueCall, l *link, r *multiplex.Request) bool {
	m.mu.Lock()
	over := u.over
	m.mu.Unlock()
	if over {
		return false
	}
	sock, err := m.accept(l, r)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !u.over {
		m.endUniqueLocked(key, u, sock, err)
	}
	return true
}

// decideLocked notes that a request of the peer is being decided. m.mu is held.
func (m *ConnectionManager) decideLocked(key uniqueKey) {
	d := m.deciding[key]
	if d == nil {
		d = &decisions{next: make(chan struct{})}
		m.deciding[key] = d
	}
	d.n++
}

// decided notes that it was answered.
func (m *ConnectionManager) decided(key uniqueKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.deciding[key]
	close(d.next)
	d.next = make(chan struct{})
	if d.n--; d.n == 0 {
		delete(m.deciding, key)
	}
}
