package peerlink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"time"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/pause"
)

// uniqueKey names what is unique: a URI with one device.
type uniqueKey struct {
	peer identity.DeviceID
	uri  string
}

// uniques owns the calls with ConnectOptions.UniqueName. Each key's calls of
// this side and requests of the peer meet here, so that one channel comes of
// them.
type uniques struct {
	self   identity.DeviceID
	life   *life.Group                              // the manager's
	theirs func(uniqueKey) (*channel.Socket, error) // the open channel that the peer asked for, or nil; an error: the manager ends

	mu       sync.Mutex // taken before ConnectionManager.mu
	calls    map[uniqueKey]*uniqueCall
	sweepAt  int // so many calls are looked through for channels that have ended
	deciding map[uniqueKey]*decisions
}

// uniqueCall makes, or has made, the one channel of a key. uniques.mu guards the
// fields without a comment until done is closed.
type uniqueCall struct {
	cancel  context.CancelCauseFunc
	asked   chan struct{} // closed when this side's own request is over
	done    chan struct{} // closed when sock or err is final
	over    bool
	waiters int
	sock    *channel.Socket
	err     error
}

// decisions are requests of the peer under one key that this side has not
// answered yet. next rings with each answer.
type decisions struct {
	n    int
	next pause.Bell
}

var (
	// errTheirs is why a unique channel's request is taken back: the peer asked at
	// the same moment, and its request is the one that counts.
	errTheirs = errors.New("the peer's request for the same channel goes first")
	// errImpatient is the cause when the caller that began a unique call has no
	// time left.
	errImpatient = fmt.Errorf("its caller gave it no more time: %w", context.DeadlineExceeded)
)

// alive reports whether a channel can still be used for sending, as far as is
// known here.
func alive(s *channel.Socket) bool {
	err := s.TrySend(nil)
	return err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

// connect returns the channel of a key, and asks for it if need be: once for all
// callers.
func (us *uniques) connect(ctx context.Context, key uniqueKey, ask func(context.Context) (*channel.Socket, error)) (*channel.Socket, error) {
	for {
		theirs, u, wait, err := us.join(ctx, key, ask)
		if theirs != nil || err != nil {
			return theirs, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			if u != nil {
				us.leave(u)
			}
			return nil, fmt.Errorf("peerlink: channel %q to device %s, the only one of its name: %w", key.uri, key.peer.Short(), context.Cause(ctx))
		}
		switch {
		case u == nil:
			continue
		case !errors.Is(u.err, errImpatient):
			return u.sock, u.err
		}
		if d, ok := ctx.Deadline(); ok && time.Until(d) <= 0 {
			<-ctx.Done() // at the same moment, but perhaps later
		}
		if ctx.Err() != nil {
			return nil, u.err
		}
		// The caller that began it had less time.
	}
}

// join returns the channel that the peer has opened under a key. Otherwise it
// counts the caller in to the call of the key, begun if need be; wait is closed
// when that is done. While the peer's own request is undecided, it returns no
// call; wait is closed when that changes.
func (us *uniques) join(ctx context.Context, key uniqueKey, ask func(context.Context) (*channel.Socket, error)) (theirs *channel.Socket, u *uniqueCall, wait <-chan struct{}, err error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if theirs, err = us.theirs(key); err != nil {
		return nil, nil, nil, err
	}
	u = us.calls[key]
	if u == nil || u.over && !alive(u.sock) {
		switch d := us.deciding[key]; {
		case theirs != nil:
			return theirs, nil, nil, nil
		case d != nil:
			return nil, nil, d.next.Next(), nil
		}
		if u = us.begin(ctx, key, ask); u == nil {
			return nil, nil, nil, errClosed
		}
	}
	u.waiters++
	return nil, u, u.done, nil
}

// begin asks for the channel on behalf of all callers. us.mu is held.
func (us *uniques) begin(ctx context.Context, key uniqueKey, ask func(context.Context) (*channel.Socket, error)) *uniqueCall {
	u := &uniqueCall{asked: make(chan struct{}), done: make(chan struct{})}
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	u.cancel = cancel
	stop := func() {}
	if deadline, ok := ctx.Deadline(); ok {
		run, stop = context.WithDeadlineCause(run, deadline, errImpatient)
	}
	if !us.life.Go(func(context.Context) {
		defer stop()
		defer cancel(nil)
		sock, err := ask(run)
		close(u.asked)
		us.mu.Lock()
		defer us.mu.Unlock()
		if !u.over && (err == nil || !errors.Is(context.Cause(run), errTheirs)) {
			us.end(key, u, sock, err)
		}
	}) {
		stop()
		cancel(errClosed)
		return nil
	}
	us.sweep()
	us.calls[key] = u
	return u
}

// end gives all callers the channel, or why there is none. us.mu is held.
func (us *uniques) end(key uniqueKey, u *uniqueCall, sock *channel.Socket, err error) {
	u.over, u.sock, u.err = true, sock, err
	if err != nil && us.calls[key] == u {
		delete(us.calls, key)
	}
	close(u.done)
}

func (us *uniques) leave(u *uniqueCall) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if u.waiters--; u.waiters == 0 && !u.over {
		u.cancel(errAbandoned)
	}
}

// sweep forgets channels that have ended, whenever there are twice as many as
// were left the last time. us.mu is held.
func (us *uniques) sweep() {
	if len(us.calls) < us.sweepAt {
		return
	}
	for k, u := range us.calls {
		if u.over && !alive(u.sock) {
			delete(us.calls, k)
		}
	}
	us.sweepAt = 2*len(us.calls) + 64
}

// request looks at a request of the peer: if this side has, or asks for, the
// unique channel of the key, the two are settled. It reports whether the request
// was answered. If not, the caller decides on it and then calls decided.
//
// Of two requests at once, that of the device with the smaller id counts. The
// other device takes its own back before it accepts. So when the first has its
// answer and a beacon (ping) has come back, a request that remains is known to
// be a call that wants a channel of its own.
func (us *uniques) request(ctx context.Context, key uniqueKey, ping func(), accept func() (*channel.Socket, error)) bool {
	us.mu.Lock()
	u := us.calls[key]
	if u == nil {
		us.decide(key)
	}
	us.mu.Unlock()
	switch {
	case u == nil:
		return false
	case smaller(us.self, key.peer):
		select {
		case <-u.done:
			if u.err == nil {
				ping()
			}
		case <-ctx.Done():
		}
	default:
		u.cancel(errTheirs)
		select {
		case <-u.asked:
			if us.take(key, u, accept) {
				return true
			}
		case <-ctx.Done():
		}
	}
	us.mu.Lock()
	defer us.mu.Unlock()
	us.decide(key)
	return false
}

// take makes the channel that the peer asks for the unique one, unless this
// side's own was opened first.
func (us *uniques) take(key uniqueKey, u *uniqueCall, accept func() (*channel.Socket, error)) bool {
	us.mu.Lock()
	over := u.over
	us.mu.Unlock()
	if over {
		return false
	}
	sock, err := accept()
	us.mu.Lock()
	defer us.mu.Unlock()
	if !u.over {
		us.end(key, u, sock, err)
	}
	return true
}

// decide notes that a request of the peer is undecided. us.mu is held.
func (us *uniques) decide(key uniqueKey) {
	d := us.deciding[key]
	if d == nil {
		d = &decisions{}
		us.deciding[key] = d
	}
	d.n++
}

// decided notes that a request of the peer was answered.
func (us *uniques) decided(key uniqueKey) {
	us.mu.Lock()
	defer us.mu.Unlock()
	d := us.deciding[key]
	d.next.Ring()
	if d.n--; d.n == 0 {
		delete(us.deciding, key)
	}
}

// accepted are the channels that the peer opened on a link, one for each URI.
type accepted struct {
	byURI   map[string]*channel.Socket
	sweepAt int // so many are looked through for channels that have ended
}

// add remembers a channel, unless another one of its URI is open.
func (a *accepted) add(s *channel.Socket) {
	if len(a.byURI) >= a.sweepAt {
		maps.DeleteFunc(a.byURI, func(_ string, s *channel.Socket) bool { return !alive(s) })
		a.sweepAt = 2*len(a.byURI) + 16
	}
	if a.find(s.URI()) == nil {
		if a.byURI == nil {
			a.byURI = make(map[string]*channel.Socket)
		}
		a.byURI[s.URI()] = s
	}
}

// find returns the open channel of a URI, or nil.
func (a *accepted) find(uri string) *channel.Socket {
	if s := a.byURI[uri]; s != nil && alive(s) {
		return s
	}
	return nil
}

// accepted returns the open channel that the peer asked for, or nil.
func (m *ConnectionManager) accepted(key uniqueKey) (*channel.Socket, error) {
	m.lock()
	defer m.mu.Unlock()
	if m.leaving {
		return nil, errClosed
	}
	for _, l := range m.links.byDevice[key.peer] {
		if s := l.accepted.find(key.uri); s != nil && !l.mux.Ending() {
			return s, nil
		}
	}
	return nil, nil
}
