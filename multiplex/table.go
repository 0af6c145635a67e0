package multiplex

import (
	"fmt"
	"maps"
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
	sentEnd, gotEnd bool // each direction has ended
	declined        bool
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

// channelCost is what a channel counts in a Budget beside what it holds: its entry,
// its name and what the application remembers of it, 1 KiB on a 64-bit machine.
const channelCost = 1 << 10

// smallTable is how many channels a table may have had, and still keep its room.
const smallTable = 256

// idSet are ids, 64 of which share a word: all ids of a side take 20 KiB.
type idSet struct {
	words map[channel.ID]uint64 // by id / 64
	n     int
}

func (i *idSet) has(id channel.ID) bool { return i.words[id/64]>>(id%64)&1 == 1 }

// add adds an id that is not there.
func (i *idSet) add(id channel.ID) {
	if i.words == nil {
		i.words = make(map[channel.ID]uint64)
	}
	i.words[id/64] |= 1 << (id % 64)
	i.n++
}

// remove removes an id; false if it is not there.
func (i *idSet) remove(id channel.ID) bool {
	if !i.has(id) {
		return false
	}
	if i.words[id/64] &^= 1 << (id % 64); i.words[id/64] == 0 {
		delete(i.words, id/64)
	}
	i.n--
	return true
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
		e.settleLocked()
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

// settleLocked forgets the channel once both directions have ended. If this side
// has nothing to do with it any more, and only the peer's end is to come, it
// remembers the id alone: the peer may take its time. s.mu is held.
func (e *entry) settleLocked() {
	switch {
	case !e.sentEnd || e.debt > 0 && !e.waits:
	case e.gotEnd:
		if e.forgetLocked() {
			e.s.overLocked(e.id)
		}
	case e.left == 0 || e.waits || e.cut || !e.forgetLocked():
	case e.declined:
		e.s.declined.add(e.id)
	default:
		e.s.left.add(e.id)
	}
}

// overLocked notes that both directions of a channel have ended. s.mu is held.
func (s *Socket) overLocked(id channel.ID) {
	switch {
	case !s.ours(id):
	case s.basic(): // has no beacons; requests go in order instead
		s.ids.free = append(s.ids.free, id)
	default:
		s.ids.retired = append(s.ids.retired, id)
	}
	s.goneLocked()
}

// goneLocked notes that a channel is forgotten, its id too. s.mu is held.
func (s *Socket) goneLocked() {
	s.ended++
	if s.drained != nil && s.openLocked() == 0 {
		close(s.drained)
		s.drained = nil
	}
}

// openLocked returns how many channels have not ended on both sides. s.mu is held.
func (s *Socket) openLocked() int { return len(s.table) + s.left.n + s.declined.n }

// leftLocked reports whether only the peer's end of a channel is to come. s.mu is held.
func (s *Socket) leftLocked(id channel.ID) bool { return s.left.has(id) || s.declined.has(id) }

// endedLocked notes the end of a channel of which only that was to come, if it is
// one. s.mu is held.
func (s *Socket) endedLocked(id channel.ID) (declined bool) {
	if declined = s.declined.remove(id); declined || s.left.remove(id) {
		s.overLocked(id)
	}
	return declined
}

// forgetLocked takes the channel out of the table; false if it is not there.
// s.mu is held.
func (e *entry) forgetLocked() bool {
	s := e.s
	if s.table[e.id] != e {
		return false
	}
	delete(s.table, e.id)
	if s.peak > smallTable && len(s.table) < s.peak/4 { // a map keeps the room that it once needed
		s.table, s.peak = maps.Collect(maps.All(s.table)), len(s.table)
	}
	delete(s.needs, e)
	s.cfg.Budget.enter(-1)
	if s.ours(e.id) {
		s.repayLocked(e, int(e.debt))
	}
	e.answerLocked(errUnanswered)
	return true
}

// errUnanswered is why a request failed that the peer ended without an answer.
var errUnanswered = fmt.Errorf("%w: it ended the channel without an answer to the request", ErrProtocol)

// sweepLocked forgets the channels of this side that the peer has not answered, or
// given no credit for what was sent early, long after this side was done with them.
// The id is lost then: what the peer might still send on it must not be taken for the
// data of another channel. s.mu is held.
func (s *Socket) sweepLocked(now time.Time) {
	for _, e := range s.table {
		if e.left != 0 && now.Sub(time.Unix(0, e.left)) >= s.cfg.linger && e.forgetLocked() {
			s.goneLocked()
		}
	}
}

// ours reports whether an id is of this side's half.
func (s *Socket) ours(id channel.ID) bool {
	return (id <= lastClientID) == s.isClient
}
