package multiplex

import (
	"fmt"
	"time"

	"peerlink/channel"
	"peerlink/internal/stream"
)

// entry is one channel in the table, and its Link.
type entry struct {
	s      *Socket
	stream stream.Stream
	id     channel.ID

	epoch  uint8  // active.epoch when it was read last; guarded by Socket.mu
	turn   turn   // guarded by line.mu
	called bool   // it has had its turn since it sent last; guarded by line.mu
	round  uint64 // line.round when it put data behind that of others; guarded by line.mu

	// Guarded by Socket.mu:
	sentEnd, gotEnd bool          // each direction has ended
	condemned       bool          // declined, or the peer broke a rule: its data is dropped unseen
	basic           bool          // the peer knows no credit
	waits           bool          // for the answer to our request
	cut             bool          // its reset waits, see cuts
	told            bool          // the answer has come
	promise         int32         // its window, of what Socket.promised counts
	debt            int32         // bytes sent early, by its opener, that no credit covers yet
	answered        chan struct{} // closed with it, where somebody waits for that
	refused         error         // the answer was no
	undecided       *Request      // the peer's request, until it is decided
	asked           int64         // when the channel was asked for: Unix time in ns, as left
	left            int64         // since when this side has nothing to do with it any more; 0: it has
}

// socket returns the application's end.
func (e *entry) socket() *channel.Socket { return (*channel.Socket)(&e.stream) }

// ids hands out the ids of this side's half. An id is used again only after
// both directions have ended and then a beacon has come back: what the peer
// said of the old channel (late credit above all) has arrived by then and
// cannot be taken for the new one.
type ids struct {
	next, last channel.ID
	exhausted  bool         // every id has been used once
	free       []channel.ID // may be used again
	retired    []channel.ID // ended, not yet fenced
	fenced     []channel.ID // ended before the beacon under way was sent
	freed      chan struct{}
	fence      uint64 // the beacon's nonce
}

// get returns an id; ok false says that there is none now.
func (i *ids) get() (id channel.ID, ok bool) {
	if !i.exhausted {
		id = i.next
		i.exhausted = id == i.last
		i.next++
		return id, true
	}
	if len(i.free) == 0 {
		return 0, false
	}
	id, i.free = i.free[0], i.free[1:]
	return id, true
}

// unfence frees what was fenced by the beacon of this nonce.
func (i *ids) unfence(nonce uint64) bool {
	if i.freed == nil || nonce != i.fence {
		return false
	}
	i.free, i.fenced = append(i.free, i.fenced...), nil
	close(i.freed)
	i.freed = nil
	return true
}

// Push implements stream.Link.
func (e *entry) Push(p []byte) int { return e.s.line.push(e, p) }

// TryPush implements stream.Link.
func (e *entry) TryPush(p []byte) bool { return e.s.line.tryPush(e, p) }

// MaxPush implements stream.Link.
func (e *entry) MaxPush() int { return e.s.line.size.fitting(lineCap) }

// Room implements stream.Link.
func (e *entry) Room(n int) bool { return e.s.line.hasRoom(e, n) }

// Took implements stream.Link.
func (e *entry) Took(n int) (frames int) {
	frames = (n + int(e.s.line.size) - 1) / int(e.s.line.size)
	e.s.stats.framesOut.Add(uint64(frames))
	return frames
}

// Note implements stream.Link.
func (e *entry) Note(what stream.Event) {
	switch what {
	case stream.Stalled:
		e.s.stats.stalls.Add(1)
	case stream.Blocked:
		e.s.stats.blocked.Add(1)
	}
}

// Flush implements stream.Link.
func (e *entry) Flush() { e.s.flush() }

// Tell implements stream.Link.
func (e *entry) Tell(n stream.Notice) {
	switch n.Kind {
	case stream.Granted:
		e.s.line.control(protocolID, encodeGrant(e.id, n.N), prompt)
	case stream.Wanted:
		if !e.s.plain.Load() {
			e.s.line.control(protocolID, encodeNumbers("n", uint64(e.id), uint64(n.N)), prompt)
		}
	case stream.Ended:
		e.s.mu.Lock()
		defer e.s.mu.Unlock()
		e.endLocked(prompt)
	case stream.Stopped:
		e.s.mu.Lock()
		defer e.s.mu.Unlock()
		e.stopLocked(channel.Code(n.Code))
	}
}

// endLocked sends the end of this direction, once. s.mu is held.
func (e *entry) endLocked(p pace) {
	if e.sentEnd {
		return
	}
	e.sentEnd = true
	e.s.line.inOrder(e.id, nil, p)
	e.settleLocked()
}

// stopLocked tells the peer that nothing more is read nor, if this direction
// had not ended, sent. s.mu is held.
func (e *entry) stopLocked(code channel.Code) {
	if e.sentEnd && e.gotEnd || e.cut {
		return
	}
	now := time.Now()
	e.left = now.UnixNano()
	switch {
	case e.s.basic(): // knows no reset
		e.endLocked(prompt)
	case !e.s.holdLocked(e, code, now):
		e.cutLocked(code)
	}
}

// cutLocked sends the reset of a channel. s.mu is held.
func (e *entry) cutLocked(code channel.Code) {
	e.cut = false
	if e.s.table[e.id] != e {
		return
	}
	e.s.line.inOrder(protocolID, encodeReset(e.id, code), prompt)
	e.sentEnd = true
	e.settleLocked()
}

// settleLocked forgets the channel once both directions have ended. s.mu is held.
func (e *entry) settleLocked() {
	if !e.sentEnd || !e.gotEnd || e.debt > 0 && !e.waits || !e.forgetLocked() {
		return
	}
	s := e.s
	switch {
	case !s.ours(e.id):
	case s.basic(): // has no beacons; requests go in order instead
		s.ids.free = append(s.ids.free, e.id)
	default:
		s.ids.retired = append(s.ids.retired, e.id)
	}
}

// forgetLocked takes the channel out of the table; false if it is not there.
// s.mu is held.
func (e *entry) forgetLocked() bool {
	s := e.s
	if s.table[e.id] != e {
		return false
	}
	delete(s.table, e.id)
	delete(s.needs, e)
	s.ended++
	if s.ours(e.id) {
		s.repayLocked(e, int(e.debt))
	}
	if s.drained != nil && len(s.table) == 0 {
		close(s.drained)
		s.drained = nil
	}
	e.answerLocked(errUnanswered)
	return true
}

// errUnanswered is why a request failed that the peer ended without an answer.
var errUnanswered = fmt.Errorf("%w: it ended the channel without an answer to the request", ErrProtocol)

// sweepLocked forgets the channels whose peer has not ended its half long after
// this side was done with them. An id of ours is lost then: what the peer might
// still send on it must not be taken for the data of another channel. s.mu is held.
func (s *Socket) sweepLocked(now time.Time) {
	for _, e := range s.table {
		if e.left != 0 && now.Sub(time.Unix(0, e.left)) >= s.cfg.linger {
			e.forgetLocked()
		}
	}
}

// ours reports whether an id is of this side's half.
func (s *Socket) ours(id channel.ID) bool {
	return (id <= lastClientID) == s.isClient
}
