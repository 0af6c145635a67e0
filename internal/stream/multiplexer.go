package stream

import (
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"time"
)

// Framed counts a frame of the peer, whose bytes follow by Deliver, in pieces
// perhaps.
func (s *Stream) Framed() { atomic.AddUint32(&s.framesIn, 1) }

// Room returns where the Read in Link.Lead wants the next n bytes, as far as it
// does; nothing if it wants none. They may be put there until that Lead returns,
// and are then given to Deliver as they lie there.
func (s *Stream) Room(n int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.leading || s.rerr != nil || s.in.n > 0 {
		return nil
	}
	return s.want[:min(len(s.want), n)]
}

// Deliver hands over bytes from the peer; they are copied, unless they are where
// Room said. woke says that a Read waited for them. It returns an error that
// matches ErrFlowControl, and takes nothing, if the peer had no credit for them.
// What arrives after the local end was closed is dropped.
func (s *Stream) Deliver(b []byte) (woke bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if over := len(b) - s.allowed; over > 0 {
		if !s.link.Overdraw(over, s.received-s.datagrams.taken()+uint64(len(b))) {
			return false, fmt.Errorf("%w: %d bytes with a credit of %d", ErrFlowControl, len(b), s.allowed)
		}
		s.allowed += over
	}
	s.allowed -= len(b)
	s.received += uint64(len(b))
	s.lastActive = now()
	if s.rerr != nil {
		return false, nil
	}
	if s.in.n == 0 && len(s.want) > 0 && len(b) > 0 {
		n := len(b)
		if &b[0] != &s.want[0] {
			n = copy(s.want, b)
		}
		s.want = s.want[n:]
		b = b[n:]
		woke = s.got == 0
		s.got += n
		s.unfollow()
	}
	if len(b) > 0 {
		s.in.write(b)
		s.link.Hold(len(b))
	}
	if s.reading > 0 {
		s.wakes.readers()
	}
	return woke, nil
}

// Waits reports whether the Read that leads still has to wait.
func (s *Stream) Waits() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leading && !s.readable()
}

// End says that the peer sends no more: after what is buffered, io.EOF.
func (s *Stream) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endRead(io.EOF)
}

// Stop says that the peer reads no more: writes fail with cause from now on.
func (s *Stream) Stop(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endWrite(cause)
}

// Widen adds to the window what f returns, of which repaid is for bytes that have
// come already. f tells the peer. The channel's lock is held while it runs.
func (s *Stream) Widen(f func() (more, repaid int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	more, repaid := f()
	s.window += more
	s.allowed += more - repaid
	if s.rerr != nil { // meanwhile
		s.link.Shrink(s.in.n)
	}
}

// Return takes n bytes of credit back that the peer will not use, and does not
// owe it any more what was read. More than the peer has, or a whole window, is
// an error that matches ErrFlowControl.
func (s *Stream) Return(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.allowed + s.in.n + s.got - n // got: a Read is about to have it
	if n <= 0 || n > s.allowed || left == 0 {
		return fmt.Errorf("%w: %d given back of %d", ErrFlowControl, n, s.allowed)
	}
	s.allowed -= n
	s.window, s.owed = left, 0
	if s.rerr == nil {
		s.link.Shrink(s.window)
	}
	return nil
}

// Unused gives up what credit there is above so many bytes, if nothing has gone
// over the channel for so long and nothing waits to be sent. If there is some, tell
// is called with how much, while the channel's lock is held: it queues the news for
// the peer, ahead of what is sent from then on.
func (s *Stream) Unused(above int, idle time.Duration, tell func(n int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.credit - above
	if n <= 0 || s.unlimited || s.writing || s.werr != nil || now()-max(s.lastActive, s.created) < int64(idle) {
		return
	}
	s.credit -= n
	tell(n)
}

// Stale returns how many bytes wait unread, and for how long the application
// has not read so much that it was granted again.
func (s *Stream) Stale() (unread int, age time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in.n + s.datagrams.bytes(), time.Duration(now() - s.granted)
}

// Drop is Fail, but what waits unread is dropped. A clean end behind dropped
// bytes is none: Reads fail with cause then, too.
func (s *Stream) Drop(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rerr == io.EOF && s.in.n > 0 {
		s.rerr = nil
	}
	s.endRead(cause)
	s.endWrite(cause)
	s.drop()
}

// Fail ends both directions with cause, which must not be io.EOF. Whatever
// ended before keeps its own reason, and buffered bytes remain readable.
func (s *Stream) Fail(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endRead(cause)
	s.endWrite(cause)
}

// Covered says that the peer has given credit, all of it for what was sent
// before: what is needed now it is to be told again.
func (s *Stream) Covered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = false
	s.wakes.writers()
}

// Grant adds to what may be sent. n must be positive; a sum past 2³¹-1 is an
// error that matches ErrFlowControl.
func (s *Stream) Grant(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n <= 0 || n > math.MaxInt32-s.credit {
		return fmt.Errorf("%w: %d granted on top of %d", ErrFlowControl, n, s.credit)
	}
	s.credit += n
	s.wanted = false
	s.wakes.writers()
	return nil
}

// Want says that the peer has a message of n bytes to send at once: what was read
// is granted, also later, as soon as that is enough, and more where the window is
// too small. False says that it is still too small. Flush must follow.
func (s *Stream) Want(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rerr != nil || s.window == 0 {
		return true
	}
	s.need = int32(n) // also with enough credit: data that this has overtaken uses some of it
	if n > s.allowed {
		s.grant()
	}
	return n <= s.window
}

// Needs returns what the last Want asked for, where that is not granted yet; 0
// otherwise.
func (s *Stream) Needs() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(s.need)
}

// Wake has Writes look again whether they may go on.
func (s *Stream) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakes.writers()
}

// WithoutCredit tells that the peer knows no credit: what is sent is bounded by
// the link alone, and the peer may have limit bytes unread.
func (s *Stream) WithoutCredit(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unlimited, s.credit = true, math.MaxInt32
	s.window, s.allowed = 0, limit
	s.wakes.writers()
}

// Pull moves waiting data into dst, as much as fits, and reports whether more
// waits. 0, false means that the writer has given up meanwhile.
func (s *Stream) Pull(dst []byte) (n int, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.werr != nil {
		return 0, false // an end may have been queued already: nothing may follow it
	}
	n = copy(dst, s.pending)
	if n == 0 {
		return 0, false
	}
	s.sent(n)
	s.pending = s.pending[n:]
	if len(s.pending) == 0 {
		s.wakes.writers()
	}
	return n, len(s.pending) > 0
}
