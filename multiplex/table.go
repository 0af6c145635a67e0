package multiplex

import (
	"peerlink/channel"
)

// entry is one channel in the table, and its Link.
type entry struct {
	s    *Socket
	id   channel.ID
	name string
	port *channel.Port
	turn turn // guarded by line.mu

	// Guarded by Socket.mu:
	sentEnd, gotEnd bool          // each direction has ended
	answered        chan struct{} // closed with the answer to our request; nil on the acceptor's side
	refused         error         // the answer was no
	undecided       *Request      // the peer's request, until it is decided
	condemned       bool          // the peer broke a rule: its data is dropped unseen
}

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

// Push implements channel.Link.
func (e *entry) Push(_ *channel.Port, p []byte) int { return e.s.line.push(e, p) }

// TryPush implements channel.Link.
func (e *entry) TryPush(_ *channel.Port, p []byte) bool { return e.s.line.tryPush(e, p) }

// Tell implements channel.Link.
func (e *entry) Tell(_ *channel.Port, n channel.Notice) {
	switch n.Kind {
	case channel.Granted:
		e.s.line.control(protocolID, encodeGrant(e.id, n.N))
	case channel.Ended:
		e.s.mu.Lock()
		defer e.s.mu.Unlock()
		e.endLocked()
	case channel.Stopped:
		e.s.mu.Lock()
		defer e.s.mu.Unlock()
		e.stopLocked(n.Code)
	}
}

// endLocked sends the end of this direction, once. s.mu is held.
func (e *entry) endLocked() {
	if e.sentEnd {
		return
	}
	e.sentEnd = true
	e.s.line.inOrder(e.id, nil)
	e.settleLocked()
}

// stopLocked tells the peer that nothing more is read nor, if this direction
// had not ended, sent. s.mu is held.
func (e *entry) stopLocked(code channel.Code) {
	if e.sentEnd && e.gotEnd {
		return
	}
	if e.s.basic() { // knows no reset
		e.endLocked()
		return
	}
	e.s.line.inOrder(protocolID, encodeReset(e.id, code))
	e.sentEnd = true
	e.settleLocked()
}

// gotEndLocked notes that the peer's direction has ended. s.mu is held.
func (e *entry) gotEndLocked() {
	e.gotEnd = true
	e.settleLocked()
}

// settleLocked forgets the channel once both directions have ended. s.mu is held.
func (e *entry) settleLocked() {
	if !e.sentEnd || !e.gotEnd {
		return
	}
	s := e.s
	if s.table[e.id] != e {
		return
	}
	delete(s.table, e.id)
	s.ended++
	switch {
	case !s.ours(e.id):
	case s.basic(): // has no beacons; requests go in order instead
		s.ids.free = append(s.ids.free, e.id)
	default:
		s.ids.retired = append(s.ids.retired, e.id)
	}
}

// ours reports whether an id is of this side's half.
func (s *Socket) ours(id channel.ID) bool {
	return (id <= lastClientID) == s.isClient
}
