package multiplex

import (
	"slices"
	"sync"
	"sync/atomic"

	"peerlink/channel"
)

// Sizes of what waits to be written, in bytes.
const (
	// lineCap is how much data may wait: 16 frames, what 200 µs take at 1.3 GB/s.
	// Writers of channels wait for more, in turns.
	lineCap = 256 << 10
	// minCap is what lineCap shrinks to where the conn is slow: a frame.
	minCap = 16 << 10
	// maxReplies bounds what a peer can make us owe it while it reads nothing.
	// Answers to requests are the largest, 270 bytes or less; an honest opener
	// waits for 256 of them at most (maxAsked).
	maxReplies = 256 << 10
	// mergeLen is up to which length control frames and data go out in one
	// write, which costs copying them together.
	mergeLen = 16 << 10
	// gatherLen is from how many bytes on it does not pay to wait for more before
	// sending: one record.
	gatherLen = 16 << 10
	// expressLen is up to which length a write goes ahead of bulk, while not more
	// than expressCap does.
	expressLen = 1 << 10
	expressCap = 16 << 10
	// maxTurns is for how many waiting channels an idle line keeps room.
	maxTurns = 256
)

// turn is where a channel with waiting data stands.
type turn uint8

const (
	idle   turn = iota // nothing waits
	queued             // in line.ready
	taken              // the writer is pulling from it
	again              // taken, and more has come since
)

// line is what waits to be written. Control frames go first. Data, ends and
// resets keep their order: that an end stands behind all data of its channel is
// what makes ids safe to use again. To queue is not to send: whoever queues
// calls Socket.flush when it has let go of its locks.
type line struct {
	size  frameSize // of frames
	pacer pacer
	eager bool        // the conn can be written to without waiting
	heard atomic.Bool // data has come since the last push: the peer may wait for an answer

	stager stager // the conn, if it is memory

	mu       sync.Mutex
	wake     sync.Cond // on mu: there is something for the writer
	urgent   []byte
	data     []byte
	staged   int             // bytes that the conn has already, to go ahead of both
	head     [headerLen]byte // of the frame that is being staged
	spare    []byte          // what data was written from last
	resets   bool            // there are resets in data
	replies  int             // bytes of urgent and data that the peer provoked
	promises uint64          // grows with what the peer is to have: data of channels, and their ends
	passed   uint64          // what promises was when a batch was taken last
	ready    []*entry
	pulls    bool       // data is pulled from channels that wait: they are not in ready now
	round    uint64     // counts the batches taken, from 1: see entry.round
	busy     bool       // somebody writes: it owns batch
	left     bool       // the writer is to go on where another stopped
	batch    batch      // what is being written
	last     channel.ID // that pushed
	streams  bool       // it pushes again, and nothing has come meanwhile
	prompt   bool       // something that waits is to be sent at once
	deferred bool       // a timer will flush
	closing  bool       // write what there is, then stop
	cut      bool       // stop at once
}

// pace says when a frame is to be sent.
type pace int

const (
	prompt pace = iota // at the next flush
	lazy               // with others, or a moment later
)

// control queues a frame ahead of all data.
func (l *line) control(id channel.ID, body []byte, p pace) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.urgent = append(appendHeader(l.urgent, id, len(body)), body...)
	l.prompt = l.prompt || p == prompt
}

// inOrder queues a frame behind the data that waits, whether there is room or not.
func (l *line) inOrder(id channel.ID, body []byte, p pace) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data = append(appendHeader(l.data, id, len(body)), body...)
	if len(body) == 0 && p == prompt { // an end, and no answer to one
		l.promises++
	}
	l.resets = l.resets || id == protocolID
	l.prompt = l.prompt || p == prompt
}

// keepBehind keeps the channel's data behind what waits now.
func (l *line) keepBehind(e *entry) {
	l.mu.Lock()
	e.round = l.round
	l.mu.Unlock()
}

// afterResets queues a frame ahead of the data, but behind the resets that
// wait: then behind all that waits.
func (l *line) afterResets(id channel.ID, body []byte) {
	l.mu.Lock()
	resets := l.resets // once set, only who writes clears it, by taking them
	l.mu.Unlock()
	if resets {
		l.inOrder(id, body, prompt)
	} else {
		l.control(id, body, prompt)
	}
}

// owe accounts for n bytes of frames that the peer provoked; false says that
// too much of that waits already.
func (l *line) owe(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replies += n
	return l.replies <= maxReplies
}

// push queues data of a channel as far as there is room and nobody else waits,
// and puts the channel in the queue for the rest.
func (l *line) push(e *entry, p []byte) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e.turn {
	case taken:
		e.turn = again
		return 0
	case queued, again:
		return 0
	}
	l.streams = l.last == e.id && !l.heard.Swap(false)
	l.last, l.prompt = e.id, true
	if len(l.ready) == 0 && !l.pulls || len(p) <= expressLen {
		n = l.appendLocked(e, p, l.pacer.limit)
	}
	if n < len(p) {
		e.turn = queued
		l.ready = append(l.ready, e)
	}
	return n
}

// tryPush queues all of p or nothing.
func (l *line) tryPush(e *entry, p []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.fitsLocked(e, len(p)) {
		return false
	}
	l.appendLocked(e, p, lineCap) // not the pacer's limit: all or nothing
	l.prompt = true
	return true
}

// fitsLocked reports whether n bytes can be queued at once. What other channels
// wait to send goes first, unless this one has waited for its turn. l.mu is held.
func (l *line) fitsLocked(e *entry, n int) bool {
	return e.turn == idle && (len(l.ready) == 0 || e.called) && n <= l.size.fitting(lineCap-len(l.data))
}

// hasRoom reports whether n bytes can be queued at once. If not, the channel takes
// its turn, of which it is told by its stream's Wake.
func (l *line) hasRoom(e *entry, n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fitsLocked(e, n) {
		return true
	}
	if e.turn == idle {
		e.turn = queued
		l.ready = append(l.ready, e)
		l.prompt = true
	}
	return false
}

// appendLocked queues as much of p as there is room for where so much data may
// wait. A small frame goes ahead of the bulk of other channels, but never of
// what waits of its own. l.mu is held.
func (l *line) appendLocked(e *entry, p []byte, limit int) (n int) {
	l.promises++
	if len(p) <= expressLen && e.round != l.round && len(l.urgent) < expressCap {
		l.urgent = append(appendHeader(l.urgent, e.id, len(p)), p...)
		return len(p)
	}
	if len(l.ready) > 0 && !e.called {
		return 0
	}
	e.called = false
	n = min(len(p), l.size.fitting(limit-len(l.data)))
	k := l.stageLocked(e.id, p[:n])
	if k < n {
		e.round = l.round
	}
	l.data = l.size.appendFrames(l.data, e.id, p[k:n])
	return n
}

// batch is what is written at once. Its slices are swapped with the line's.
type batch struct {
	urgent, data []byte
	staged       int // bytes that the conn has already, to go ahead of the rest
	turns        []*entry
	rest         [2][]byte // of urgent and data, what is not written yet
}

// verdict is who sends what waits.
type verdict int

const (
	sendOthers verdict = iota // somebody else does, or there is nothing
	sendNow                   // the caller, who is the one who writes now
	sendLater                 // a timer that the caller has to set
)

// claim settles who sends what waits. The caller does where few use the link,
// but the writer gathers a stream of small writes and what many have to say.
func (l *line) claim(few bool) verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.busy || l.emptyLocked():
		return sendOthers
	case !l.eager || l.cut:
		l.wake.Signal()
		return sendOthers
	case !l.prompt && l.deferred:
		return sendOthers
	case !l.prompt:
		l.deferred = true
		return sendLater
	case l.staged+len(l.data) < gatherLen && (l.streams || !few):
		l.wake.Signal()
		return sendOthers
	}
	l.busy = true
	return sendNow
}

// hurry makes what waits prompt.
func (l *line) hurry() {
	l.mu.Lock()
	l.prompt, l.deferred = true, false
	l.mu.Unlock()
}

// await waits until there is something for the writer, makes it the one who
// writes, and reports whether it is to go on where another stopped. ok false
// ends the writer.
func (l *line) await() (left, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.left && !l.cut && (l.busy || l.emptyLocked() && !l.closing) {
		l.wake.Wait()
	}
	if l.cut || !l.left && l.emptyLocked() {
		return false, false
	}
	left = l.left
	l.busy, l.left = true, false
	return left, true
}

// take moves what waits into the batch. If nothing does, the caller writes no
// more. Only who writes may call it.
func (l *line) take() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &l.batch
	l.recycleLocked(b)
	if l.cut || l.emptyLocked() {
		l.busy = false
		if l.closing || l.cut {
			l.wake.Signal()
		}
		return false
	}
	b.urgent, l.urgent = l.urgent, b.urgent[:0]
	b.staged, l.staged = l.staged, 0
	if len(l.data)+len(l.ready) > 0 { // else the buffers stay here, for trim
		b.data, l.data, l.spare = l.data, l.spare, nil
	}
	l.resets, l.replies, l.prompt = false, 0, false
	l.round++
	b.turns, l.ready = l.ready, b.turns[:0]
	l.pulls = len(b.turns) > 0
	for _, e := range b.turns {
		e.turn = taken
		l.promises++
	}
	l.passed = l.promises
	return true
}

// recycleLocked forgets what was written. A link that is to survive its conn
// would keep it here until the peer has said that it has it ({"a":bytes}).
// l.mu is held.
func (l *line) recycleLocked(b *batch) {
	if b.data != nil && cap(b.data) <= 2*lineCap { // more: grown by a burst of ends
		l.spare = b.data[:0]
	}
	b.data = nil
	if cap(b.urgent) > 2*mergeLen {
		b.urgent = nil
	}
}

// handOver has the writer go on with the batch.
func (l *line) handOver() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = true
	l.wake.Signal()
}

// promised returns how many promises there were so far.
func (l *line) promised() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.promises
}

// ahead returns how many promises are certain to go ahead of a control frame that
// is queued now: all that was taken, and what waits if that is control frames alone.
func (l *line) ahead() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.caughtUpLocked() {
		return l.promises
	}
	return l.passed
}

// caughtUp reports whether all data and what is in order with it was taken.
func (l *line) caughtUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.caughtUpLocked()
}

func (l *line) caughtUpLocked() bool { return len(l.data)+len(l.ready) == 0 }

func (l *line) emptyLocked() bool { return l.staged+len(l.urgent)+len(l.data)+len(l.ready) == 0 }

// trim lets go of the buffers of a line that has no data to write, so that a
// link that was busy once holds no memory for it.
func (l *line) trim() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.busy && len(l.data)+len(l.ready) == 0 {
		l.data, l.spare, l.ready = nil, nil, nil
		if len(l.urgent) == 0 {
			l.urgent = nil
		}
	}
}

// settle notes the outcome of one pull: the channel waits on, or is done
// unless it has asked again meanwhile. It reports whether to pull again.
func (l *line) settle(e *entry, more bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if more || e.turn == again {
		e.turn = taken
		return true
	}
	e.turn, e.called = idle, true
	return false
}

// putBack queues channels whose turn did not come, ahead of others.
func (l *line) putBack(es []*entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pulls = false
	for _, e := range es {
		e.turn = queued
	}
	l.ready = slices.Insert(l.ready, 0, es...)
}

// end stops the writer: when all is written, or at once. It needs no flush.
func (l *line) end(how endKind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing = true
	l.cut = l.cut || how == cutOff
	l.wake.Broadcast()
}

type endKind int

const (
	drained endKind = iota
	cutOff
)

// pull fills the batch from the channels whose turn it is, a frame each, until
// it is full or nobody waits, and puts the others back.
func (l *line) pull() {
	b := &l.batch
	turns := b.turns
	for len(turns) > 0 && len(b.data) < l.pacer.limit {
		e := turns[0]
		turns = turns[1:]
		at := len(b.data)
		room := at + headerLen + int(l.size)
		b.data = slices.Grow(b.data, room-at)[:room]
		n, more := e.stream.Pull(b.data[at+headerLen:])
		if n == 0 {
			b.data = b.data[:at]
		} else {
			appendHeader(b.data[:at], e.id, n)
			b.data = b.data[:at+headerLen+n]
		}
		if l.settle(e, more) {
			turns = append(turns, e)
		} else if n == 0 {
			e.stream.Wake() // it may have waited for this
		}
	}
	if len(b.turns) > 0 {
		l.putBack(turns)
	}
	if clear(b.turns[:cap(b.turns)]); cap(b.turns) > maxTurns {
		b.turns = nil
	}
	b.rest = [2][]byte{b.urgent, b.data}
	if len(b.urgent)+len(b.data) <= mergeLen {
		b.urgent = append(b.urgent, b.data...)
		b.rest = [2][]byte{b.urgent, nil}
	}
}
