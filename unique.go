package peerlink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"time"
	"weak"

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
	self    identity.DeviceID
	life    *life.Group  // the manager's
	running func() error // the manager's

	mu      sync.Mutex // taken before ConnectionManager.mu
	keys    map[uniqueKey]*unique
	sweepAt int // so many keys are looked through for channels that have ended
}

// unique is what there is under a key. uniques.mu guards it.
type unique struct {
	call      *uniqueCall                  // of this side, or nil
	theirs    weak.Pointer[channel.Socket] // that the peer has opened; its link holds it while it is open
	undecided int                          // requests of the peer that this side has not answered yet
	answered  pause.Bell                   // rings with each answer
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

var (
	// errTheirs is why a unique channel's request is taken back: the peer asked at
	// the same moment, and its request is the one that counts.
	errTheirs = errors.New("the peer's request for the same channel goes first")
	// errImpatient is the cause when the caller that began a unique call has no
	// time left.
	errImpatient = fmt.Errorf("its caller gave it no more time: %w", context.DeadlineExceeded)
)

// alive reports whether a channel can still be used for sending, as far as is
// known here. nil cannot.
func alive(s *channel.Socket) bool {
	err := s.TrySend(nil)
	return err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

// at returns what there is under a key, for the caller to change. us.mu is held.
func (us *uniques) at(key uniqueKey) *unique {
	e := us.keys[key]
	if e == nil {
		if len(us.keys) >= us.sweepAt {
			maps.DeleteFunc(us.keys, func(_ uniqueKey, e *unique) bool { return e.ended() })
			us.sweepAt = 2*len(us.keys) + 64
		}
		e = new(unique)
		us.keys[key] = e
	}
	return e
}

// ended reports whether there is nothing more to share.
func (e *unique) ended() bool {
	return e.undecided == 0 && (e.call == nil || e.call.over && !alive(e.call.sock)) && !alive(e.theirs.Value())
}

// settle forgets a key once there is nothing to share under it. us.mu is held.
func (us *uniques) settle(key uniqueKey) {
	if us.at(key).ended() {
		delete(us.keys, key)
	}
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
	if err := us.running(); err != nil {
		return nil, nil, nil, err
	}
	us.mu.Lock()
	defer us.mu.Unlock()
	e := us.at(key)
	if u = e.call; u == nil || u.over && !alive(u.sock) {
		switch theirs := e.theirs.Value(); {
		case alive(theirs):
			return theirs, nil, nil, nil
		case e.undecided > 0:
			return nil, nil, e.answered.Next(), nil
		}
		u = us.begin(ctx, key, ask)
		e.call = u
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
		cancel(nil)
		close(u.asked)
		us.end(key, u, nil, errClosed)
	}
	return u
}

// end gives all callers the channel, or why there is none. us.mu is held.
func (us *uniques) end(key uniqueKey, u *uniqueCall, sock *channel.Socket, err error) {
	u.over, u.sock, u.err = true, sock, err
	close(u.done)
	us.settle(key)
}

func (us *uniques) leave(u *uniqueCall) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if u.waiters--; u.waiters == 0 && !u.over {
		u.cancel(errAbandoned)
	}
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
	e := us.at(key)
	u := e.call
	if u == nil {
		e.undecided++
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
	us.at(key).undecided++
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

// decided notes that a request of the peer was answered.
func (us *uniques) decided(key uniqueKey) {
	us.mu.Lock()
	defer us.mu.Unlock()
	e := us.at(key)
	e.undecided--
	e.answered.Ring()
	us.settle(key)
}

// accepted notes a channel that the peer has opened.
func (us *uniques) accepted(key uniqueKey, s *channel.Socket) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if e := us.at(key); !alive(e.theirs.Value()) {
		e.theirs = weak.Make(s)
	}
}
