package peerlink

import (
	"context"
	"iter"
	"sync/atomic"
	"time"

	"peerlink/identity"
	"peerlink/internal/pause"
)

// maxEvents is how many events wait for one reader. At about 200 bytes each
// that is 200 KB; a burst of a thousand links fits.
const maxEvents = 1024

// EventKind says what happened.
type EventKind int

// The kinds of events. A connect goes through Connecting, then Retrying for
// each round of carriers that failed and will be followed by another, then
// LinkUp or ConnectFailed; a link through LinkUp, LinkDown.
const (
	// Connecting: this side begins to make a link to Peer.
	Connecting EventKind = iota + 1
	// Retrying: a round failed with Err, another one follows after a pause.
	Retrying
	// ConnectFailed: no link was made, because of Err.
	ConnectFailed
	// LinkUp: Link exists. It ends the connects that it serves.
	LinkUp
	// LinkDown: Link has ended, because of Err.
	LinkDown
	// Missed: the reader was too slow and Lost events are gone. What follows
	// are the state as it is, marked Initial, and what happens from there.
	Missed
)

// String returns the kind's name, as "link up".
func (k EventKind) String() string {
	names := [...]string{"none", "connecting", "retrying", "connect failed", "link up", "link down", "missed"}
	if k < 0 || int(k) >= len(names) {
		return "unknown"
	}
	return names[k]
}

// Event is a change of state.
type Event struct {
	Kind EventKind
	At   time.Time
	// Initial marks the state when the reader began (or after it has missed
	// events): At is then when the link or connect began.
	Initial bool
	// Peer is the device concerned; for Connecting, Retrying and ConnectFailed
	// only its Device is known.
	Peer identity.Peer
	// Link, Carrier and Direction are set for LinkUp and LinkDown.
	Link      LinkID
	Carrier   string
	Direction Direction
	Err       error
	// Lost is how many events Missed stands for.
	Lost uint64
}

// bus hands each event to all readers, in one order. ConnectionManager.mu guards
// it: the methods are called while that is held.
type bus struct {
	readers map[*reader]struct{}
	recap   func() []Event // the state as it is, for a reader that begins or has missed events
}

// reader is one Events iterator's queue.
type reader struct {
	wake  chan struct{} // has room for one: there is something to read
	queue []Event
	lost  uint64 // events that were dropped; not 0: the queue is empty
}

// join adds a reader and queues the state for it.
func (b *bus) join() *reader {
	r := &reader{wake: make(chan struct{}, 1), queue: b.recap()}
	b.readers[r] = struct{}{}
	r.tell()
	return r
}

// tell queues what has just happened for all readers.
func (b *bus) tell(e Event) {
	e.At = time.Now()
	for r := range b.readers {
		switch {
		case r.lost > 0:
			r.lost++
		case len(r.queue) >= maxEvents:
			r.lost = uint64(len(r.queue)) + 1
			r.queue = nil
		default:
			r.queue = append(r.queue, e)
		}
		r.tell()
	}
}

// drain returns what waits for a reader: after a loss Missed and the state.
func (b *bus) drain(r *reader) []Event {
	batch := r.queue
	if r.lost > 0 {
		batch = append([]Event{{Kind: Missed, At: time.Now(), Lost: r.lost}}, b.recap()...)
	}
	r.queue, r.lost = nil, 0
	return batch
}

func (r *reader) tell() { pause.Tell(r.wake, struct{}{}) }

// Events returns the manager's changes of state, in order, each exactly once,
// beginning with the links and connects that there are. It listens from the
// call on; the iterator may be ranged over once and ends with ctx, with Close,
// or when the loop is left. A slow reader delays nothing: with 1 024 events
// waiting, they are dropped and Missed says so.
func (m *ConnectionManager) Events(ctx context.Context) iter.Seq[Event] {
	m.lock()
	r := m.bus.join()
	m.mu.Unlock()
	leave := func() { m.locked(func() { delete(m.bus.readers, r) }) }
	stop := context.AfterFunc(ctx, leave)
	var begun atomic.Bool
	return func(yield func(Event) bool) {
		if begun.Swap(true) {
			return
		}
		defer stop()
		defer leave()
		for over := false; ; {
			m.lock()
			batch := m.bus.drain(r)
			m.mu.Unlock()
			for _, e := range batch {
				if ctx.Err() != nil || !yield(e) {
					return
				}
			}
			if over && len(batch) == 0 {
				return
			}
			select {
			case <-r.wake:
			case <-m.done: // nothing follows, but events may wait
				over = true
			case <-ctx.Done():
				return
			}
		}
	}
}

// recapLocked returns an event for each link and connect that there is. m.mu is held.
func (m *ConnectionManager) recapLocked() []Event {
	var es []Event
	for _, l := range m.links.all() {
		e := l.event(LinkUp, nil)
		e.At, e.Initial = l.up, true
		es = append(es, e)
	}
	for peer, of := range m.talks.byDevice {
		for _, n := range of {
			es = append(es, Event{Kind: Connecting, At: n.begun, Initial: true, Peer: identity.Peer{Device: peer}})
		}
	}
	return es
}
