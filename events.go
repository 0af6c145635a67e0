package peerlink

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/identity"
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
	// Initial marks what was so before the reader came (or after it has missed
	// some): At is then when it began.
	Initial bool
	// Peer is who it is about; of Connecting, Retrying and ConnectFailed only
	// Device is known.
	Peer identity.Peer
	// Link, Carrier and Direction are set for LinkUp and LinkDown.
	Link      LinkID
	Carrier   string
	Direction Direction
	Err       error
	// Lost is how many events Missed stands for.
	Lost uint64
}

// reader is one Events iterator's queue.
type reader struct {
	wake  chan struct{} // has room for one: something is to be read
	queue []Event       // guarded by ConnectionManager.mu, as is lost
	lost  uint64
}

// Events returns the manager's changes of state, in order, each exactly once,
// beginning with the links and connects that there are. It listens from the
// call on; the iterator may be ranged over once and ends with ctx, with Close,
// or when the loop is left. Whoever reads too slowly delays nobody: with 1 024
// events waiting, those are dropped and Missed says so.
func (m *ConnectionManager) Events(ctx context.Context) iter.Seq[Event] {
	r := &reader{wake: make(chan struct{}, 1)}
	m.mu.Lock()
	m.readers[r] = struct{}{}
	m.recapLocked(r)
	m.mu.Unlock()
	leave := sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.readers, r)
	})
	stop := context.AfterFunc(ctx, leave)
	var begun atomic.Bool
	return func(yield func(Event) bool) {
		if begun.Swap(true) {
			return
		}
		defer stop()
		defer leave()
		for over := false; ; {
			batch := m.drain(r)
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
			case <-m.done: // nothing comes any more, but some may wait
				over = true
			case <-ctx.Done():
				return
			}
		}
	}
}

// drain takes what waits for a reader; after a loss, the word of it and the
// state as it is.
func (m *ConnectionManager) drain(r *reader) []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.lost > 0 {
		r.queue = append(r.queue[:0:0], Event{Kind: Missed, At: time.Now(), Lost: r.lost})
		r.lost = 0
		m.recapLocked(r)
	}
	batch := r.queue
	r.queue = nil
	return batch
}

// recapLocked tells a reader of what there is. m.mu is held.
func (m *ConnectionManager) recapLocked(r *reader) {
	for _, of := range m.byDevice {
		for _, l := range of {
			r.queue = append(r.queue, Event{
				Kind: LinkUp, At: l.up, Initial: true, Peer: l.peer,
				Link: l.id, Carrier: l.carrier, Direction: l.direction,
			})
		}
	}
	for peer, of := range m.negotiations {
		for _, n := range of {
			r.queue = append(r.queue, Event{Kind: Connecting, At: n.begun, Initial: true, Peer: identity.Peer{Device: peer}})
		}
	}
	if len(r.queue) > 0 {
		r.tell()
	}
}

func (r *reader) tell() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// tellLocked tells all readers what has just happened. m.mu is held, which
// makes the order the same for all.
func (m *ConnectionManager) tellLocked(e Event) {
	e.At = time.Now()
	for r := range m.readers {
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
