package multiplex

import (
	"slices"
	"sync"

	"peerlink/channel"
)

// Sizes of what waits to be written, in bytes.
const (
	// lineCap is how much data may wait: 16 frames, what 200 µs take at 1.3 GB/s.
	// Writers of channels wait for more, in turns.
	lineCap = 256 << 10
	// maxReplies bounds what a peer can make us owe it while it reads nothing.
	// Answers to requests are the largest, 270 bytes or less; an honest opener
	// waits for 256 of them at most (maxAsked).
	maxReplies = 256 << 10
	// mergeLen is up to which length control frames and data go out in one
	// write, which costs copying them together.
	mergeLen = 16 << 10
	// maxTurns is for how many waiting channels an idle line keeps room.
	maxTurns = 256
)

// turn is where a channel with waiting data stands.
type turn int

const (
	idle   turn = iota // nothing waits
	queued             // in line.ready
	taken              // the writer is pulling from it
	again              // taken, and more has come since
)

// line is what waits to be written. Control frames go first. Data, ends and
// resets keep their order: that an end stands behind all data of its channel is
// what makes ids safe to use again.
type line struct {
	mu      sync.Mutex
	wake    sync.Cond // on mu: there is something to write, or the line closes
	urgent  []byte
	data    []byte
	spare   []byte // what data was written from last, while the writer waits
	resets  bool   // there are resets in data
	replies int    // bytes of urgent and data that the peer provoked
	ready   []*entry
	closing bool // write what there is, then stop
	cut     bool // stop at once
}

// control queues a frame ahead of all data.
func (l *line) control(id channel.ID, body []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.urgent = append(appendHeader(l.urgent, id, len(body)), body...)
	l.wake.Signal()
}

// inOrder queues a frame behind the data that waits, whether there is room or not.
func (l *line) inOrder(id channel.ID, body []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data = append(appendHeader(l.data, id, len(body)), body...)
	l.resets = l.resets || id == protocolID
	l.wake.Signal()
}

// afterResets queues a frame ahead of the data, but behind the resets that
// wait: then behind all that waits.
func (l *line) afterResets(id channel.ID, body []byte) {
	l.mu.Lock()
	resets := l.resets // once set, only the writer clears it, by taking them
	l.mu.Unlock()
	if resets {
		l.inOrder(id, body)
	} else {
		l.control(id, body)
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
	if len(l.ready) == 0 {
		n = min(len(p), fitting(lineCap-len(l.data)))
		l.data = appendFrames(l.data, e.id, p[:n])
	}
	if n < len(p) {
		e.turn = queued
		l.ready = append(l.ready, e)
	}
	l.wake.Signal()
	return n
}

// tryPush queues all of p or nothing.
func (l *line) tryPush(e *entry, p []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.turn != idle || len(l.ready) > 0 || len(p) > fitting(lineCap-len(l.data)) {
		return false
	}
	l.data = appendFrames(l.data, e.id, p)
	l.wake.Signal()
	return true
}

// batch is what the writer writes next. Its slices are swapped with the line's.
type batch struct {
	urgent, data []byte
	turns        []*entry
}

// take waits for something to write and moves it into b; false ends the writer.
func (l *line) take(b *batch) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.data != nil {
		l.spare, b.data = b.data[:0], nil
	}
	for l.emptyLocked() && !l.closing && !l.cut {
		l.wake.Wait()
	}
	if l.cut || l.emptyLocked() {
		return false
	}
	b.urgent, l.urgent = l.urgent, b.urgent[:0]
	if len(l.data)+len(l.ready) > 0 { // else the buffers stay here, for trim
		b.data, l.data, l.spare = l.data, l.spare, nil
	}
	l.resets, l.replies = false, 0
	b.turns, l.ready = l.ready, b.turns[:0]
	for _, e := range b.turns {
		e.turn = taken
	}
	return true
}

func (l *line) emptyLocked() bool { return len(l.urgent)+len(l.data)+len(l.ready) == 0 }

// trim lets go of the buffers of a line that has no data to write, so that a
// link that was busy once holds no memory for it.
func (l *line) trim() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.data)+len(l.ready) == 0 {
		l.data, l.spare, l.ready = nil, nil, nil
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
	e.turn = idle
	return false
}

// putBack queues channels whose turn did not come, ahead of others.
func (l *line) putBack(es []*entry) {
	if len(es) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range es {
		e.turn = queued
	}
	l.ready = slices.Insert(l.ready, 0, es...)
}

// end stops the writer: when all is written, or at once.
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

// pull fills b.data from the channels whose turn it is, a frame each, until it
// is full or nobody waits, and puts the others back.
func (l *line) pull(b *batch) {
	turns := b.turns
	for len(turns) > 0 && len(b.data) < lineCap {
		e := turns[0]
		turns = turns[1:]
		at := len(b.data)
		b.data = slices.Grow(b.data, headerLen+cutBody)[:at+headerLen+cutBody]
		n, more := e.port.Pull(b.data[at+headerLen:])
		if n == 0 {
			b.data = b.data[:at]
		} else {
			appendHeader(b.data[:at], e.id, n)
			b.data = b.data[:at+headerLen+n]
		}
		if l.settle(e, more) {
			turns = append(turns, e)
		}
	}
	l.putBack(turns)
	if clear(b.turns[:cap(b.turns)]); cap(b.turns) > maxTurns {
		b.turns = nil
	}
}
