package multiplex

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"peerlink/internal/stream"
)

// The patrol comes after minPatrol, and while it finds that applications keep
// reading, twice as late each time up to maxPatrol: each visit costs the round
// trip it falls into 20 µs.
const (
	minPatrol = 2 * time.Millisecond
	maxPatrol = 16 * time.Millisecond
)

// longReads is how often the patrol may find the same Read at it until it ends:
// whoever reads sends it again when it leaves.
const longReads = 3

// besideBulk is how many small frames after a piece of bulk, in either
// direction, count as beside it.
const besideBulk = 16

// baton settles who reads the conn. A goroutine of the link's own does, the
// watch, as long as several wait for what comes. Where a single application
// waits in Read, it reads by itself, and what comes needs no second goroutine
// to reach it: that saves a third of a round trip. When it leaves with its
// data, it is expected back in no time; a patrol looks whether it was, and
// becomes the watch if not. Whoever else waits for the peer (expected) has the
// watch called at once.
type baton struct {
	fixed    bool         // the conn knows no deadline, so only the watch may read
	held     atomic.Bool  // somebody reads
	expected atomic.Int32 // goroutines that wait for the peer and do not read
	epoch    atomic.Uint32
	armed    atomic.Bool  // the patrol is under way
	bulk     atomic.Int32 // for so many small frames more the link counts as busy with bulk
	patrol   *time.Timer

	// Of whoever reads: for whose Read it does; nil for the watch.
	leader *stream.Stream

	// Of the patrol:
	seen uint32
	wait time.Duration // until it comes again
	long int           // how often it found the same Read at it

	// Of the watch: of one read, the channel that data came for, whether there
	// were others, and whether a Read waited; and how many reads in a row were for
	// a single Read that waited.
	last   *stream.Stream
	mixed  bool
	woke   bool
	streak int
}

// Lead implements stream.Link.
func (e *entry) Lead() bool {
	s, st := e.s, &e.stream
	if s.baton.fixed || !s.baton.held.CompareAndSwap(false, true) {
		return false
	}
	s.baton.epoch.Add(1)
	s.baton.leader = st
	s.flush()
	for st.Waits() {
		if err := s.readFor(st); err != nil && !s.interrupted(err) {
			go s.endRead(err)
			return true
		}
		if err := s.handle(&s.intake); err != nil {
			go s.endRead(err)
			return true
		}
		s.flush()
	}
	s.leave()
	return true
}

// interrupted reports whether a read was ended by Interrupt, and lets the next
// one go on.
func (s *Socket) interrupted(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) && s.conn.SetReadDeadline(time.Time{}) == nil
}

// Interrupt implements stream.Link.
func (e *entry) Interrupt() { _ = e.s.conn.SetReadDeadline(time.Unix(1, 0)) }

// leave lets go of the baton. The conn is read again at the latest when the
// patrol comes.
func (s *Socket) leave() {
	b := &s.baton
	b.held.Store(false)
	if b.expected.Load() > 0 {
		s.callWatch()
	} else if !b.armed.Swap(true) {
		b.patrol.Reset(minPatrol)
	}
}

// Expect implements stream.Link.
func (e *entry) Expect(n int) { e.s.expect(n) }

// expect notes that n more goroutines wait for what the peer sends, and sees to
// it that somebody reads.
func (s *Socket) expect(n int) {
	if s.baton.expected.Add(int32(n)); n > 0 {
		s.callWatch()
	}
}

// callWatch has the watch read if nobody does.
func (s *Socket) callWatch() {
	if s.baton.held.CompareAndSwap(false, true) {
		go s.watch()
	}
}

// look is the patrol.
func (s *Socket) look() {
	b := &s.baton
	epoch := b.epoch.Load()
	same := epoch == b.seen
	b.seen = epoch
	switch {
	case !same:
		b.long, b.wait = 0, min(max(2*b.wait, minPatrol), maxPatrol)
	case b.held.CompareAndSwap(false, true):
		b.long, b.wait = 0, minPatrol
		b.armed.Store(false)
		s.watch()
		return
	default:
		b.long++
	}
	if b.long < longReads {
		b.patrol.Reset(b.wait)
		return
	}
	b.long, b.wait = 0, minPatrol
	b.armed.Store(false)                       // from here on another patrol may be under way: b.wait is its own
	if !b.held.Load() && !b.armed.Swap(true) { // it has left meanwhile
		b.patrol.Reset(minPatrol)
	}
}

// watch reads until the conn ends, or a single application can do it better.
func (s *Socket) watch() {
	b := &s.baton
	b.streak, b.leader = 0, nil
	for {
		s.flush()
		if err := s.intake.read(s.conn); err != nil && !s.interrupted(err) {
			s.endRead(err)
			return
		}
		b.last, b.mixed, b.woke = nil, false, false
		if err := s.handle(&s.intake); err != nil {
			s.endRead(err)
			return
		}
		switch {
		case b.mixed || b.expected.Load() > 0:
			b.streak = 0
		case b.woke:
			b.streak++
		}
		if b.streak >= 2 && !b.fixed {
			s.flush()
			s.leave()
			return
		}
	}
}

// saw notes that data came for a channel, and whether a Read waited for it.
func (b *baton) saw(st *stream.Stream, woke bool) {
	b.mixed = b.mixed || b.last != st && b.last != nil
	b.last = st
	b.woke = b.woke || woke
}

// sawBulk notes a piece of bulk that is written or has come.
func (b *baton) sawBulk() {
	if b.bulk.Load() != besideBulk {
		b.bulk.Store(besideBulk)
	}
}

// makesWay reports whether the reader, having handed over n bytes, is to let
// others run. Beside bulk the Read that waited for a small frame would get this
// processor only when the reader sleeps, and lose it to a Write that is given
// credit until then: 64 bytes there and back took 133 µs so, and take 83. Without
// bulk the reader sleeps at once anyway.
func (b *baton) makesWay(st *stream.Stream, n int, woke bool) bool {
	if n > expressLen {
		b.sawBulk()
		return false
	}
	return woke && st != b.leader && b.bulk.Load() > 0 && b.bulk.Add(-1) >= 0
}

// endRead ends the link because reading has ended. The baton is never let go.
func (s *Socket) endRead(err error) {
	defer close(s.readerDone)
	if errors.Is(err, os.ErrDeadlineExceeded) { // the conn was closed while Interrupt ended the Read: the next one says how
		if _, now := s.conn.Read(make([]byte, 1)); now != nil {
			err = now
		}
	}
	s.mu.Lock()
	closing, writeErr := s.closing, s.writeErr
	if s.readErr = err; errors.Is(err, io.EOF) && !s.line.caughtUp() {
		s.readErr = io.ErrUnexpectedEOF // the peer has left before our going away
	}
	s.mu.Unlock()
	switch {
	case errors.Is(err, ErrProtocol):
		s.violate(err)
	case closing: // Close ends the link
	case writeErr != nil:
		s.fail(writeErr)
	default:
		s.fail(transportError("read", err))
	}
}
