package localipc

import (
	"net"
	"slices"
	"sync"
	"time"
)

// Bounds on those who have not proven their device yet.
const (
	// maxPending is how many handshakes run at once; one holds a goroutine, a
	// descriptor and at most 20 KiB.
	maxPending = 64
	// grace is how long a handshake keeps its place whatever happens: a thousand
	// times what it takes.
	grace = time.Second
)

// pending are the handshakes under way, oldest first, and the proven streams
// that wait to be accepted. When all places are taken, a newcomer takes that of
// the oldest handshake, once it has had its grace; so whoever stalls loses to
// whoever comes.
type pending struct {
	mu    sync.Mutex
	slots []*slot
	freec chan struct{} // closed and replaced when a place is freed; nil until asked for
}

type slot struct {
	conn   net.Conn
	since  time.Time
	proven bool // the handshake is done: the place is kept
	out    bool // its place was taken
}

// enter gives conn a place, or says how long to wait for one at most; freed is
// closed before that if a place becomes free.
func (p *pending) enter(conn net.Conn, now time.Time) (s *slot, wait time.Duration, freed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.slots) >= maxPending {
		i := slices.IndexFunc(p.slots, func(s *slot) bool { return !s.proven })
		age := time.Duration(0)
		if i >= 0 {
			age = now.Sub(p.slots[i].since)
		}
		if age < grace {
			if p.freec == nil {
				p.freec = make(chan struct{})
			}
			return nil, grace - age, p.freec
		}
		p.slots[i].out = true
		_ = p.slots[i].conn.Close() // ends its handshake
		p.slots = slices.Delete(p.slots, i, i+1)
	}
	s = &slot{conn: conn, since: now}
	p.slots = append(p.slots, s)
	return s, 0, nil
}

// keep makes the place of a proven stream safe and reports whether it was still
// held.
func (p *pending) keep(s *slot) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.proven = true
	return !s.out
}

// leave frees a place, if it is still held.
func (p *pending) leave(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.slots, s); i >= 0 {
		p.slots = slices.Delete(p.slots, i, i+1)
	}
	if p.freec != nil {
		close(p.freec)
		p.freec = nil
	}
}
