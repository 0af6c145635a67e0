package multiplex

import (
	"time"

	"peerlink/channel"
)

// Channels that their opener cuts off within a second of asking: each may have
// cost the acceptor a handler that is still at work, though its id is free.
const (
	// maxCuts is how many of those an acceptor takes in a second, before it
	// declines what the peer asks for in the rest of that second.
	maxCuts = 4 * maxAsked
	// floodCuts in a second are more than any honest program can cause, however
	// its messages bunch up: an opener tells of pacedCuts a second.
	floodCuts = 4 * maxCuts
	// pacedCuts is how many this side tells of in a second: twice as many, in the
	// seconds of an acceptor, are less than maxCuts.
	pacedCuts = 3 * maxAsked / 2
)

// cuts are the resets that wait until the peer may be told of more.
type cuts struct {
	told  rate
	queue []heldCut
	clock *time.Timer
	short chan struct{} // closed when the queue is short again; nil unless an opener waits
}

type heldCut struct {
	e    *entry
	code channel.Code
}

// holdLocked keeps the reset of a channel back if the peer has been told of many
// lately: the channel lives on there until its turn comes. s.mu is held.
func (s *Socket) holdLocked(e *entry, code channel.Code, now time.Time) bool {
	c := &s.cuts
	if e.sentEnd || !s.ours(e.id) || now.Sub(time.Unix(0, e.asked)) >= time.Second {
		return false
	}
	if len(c.queue) == 0 && !c.told.over(now, pacedCuts) {
		return false
	}
	e.cut = true
	if c.queue = append(c.queue, heldCut{e, code}); c.clock == nil {
		c.clock = time.AfterFunc(time.Second, s.tellCuts)
	} else if len(c.queue) == 1 {
		c.clock.Reset(time.Second)
	}
	return true
}

// tellCuts tells the peer of as many of the resets that wait as a second allows.
func (s *Socket) tellCuts() {
	s.mu.Lock()
	c := &s.cuts
	if s.cause != nil {
		c.queue = nil
	}
	for now := time.Now(); len(c.queue) > 0 && !c.told.over(now, pacedCuts); {
		next := c.queue[0]
		c.queue[0] = heldCut{}
		c.queue = c.queue[1:]
		next.e.cutLocked(next.code)
	}
	if len(c.queue) > 0 {
		c.clock.Reset(time.Second)
	}
	if len(c.queue) < maxAsked && c.short != nil {
		close(c.short)
		c.short = nil
	}
	s.mu.Unlock()
	s.flush()
}

// crowdedLocked returns what is closed when there are few resets left to tell; nil
// if there are. s.mu is held.
func (s *Socket) crowdedLocked() <-chan struct{} {
	c := &s.cuts
	if len(c.queue) < maxAsked {
		return nil
	}
	if c.short == nil {
		c.short = make(chan struct{})
	}
	return c.short
}

// floodLocked counts a channel of the peer that was cut off soon, or though it had been
// declined, and reports what only a hostile peer does. s.mu is held.
func (s *Socket) floodLocked() error {
	if !s.cancels.over(time.Now(), floodCuts) {
		return nil
	}
	return violation("more than %d channels in a second opened and cut off", floodCuts)
}

// rate counts events per second.
type rate struct {
	n     int
	since time.Time
}

// over counts one more and reports whether this second has had more than most.
func (r *rate) over(now time.Time, most int) bool {
	if now.Sub(r.since) >= time.Second {
		r.n, r.since = 0, now
	}
	r.n++
	return r.n > most
}

// reached reports whether this second has had so many.
func (r *rate) reached(now time.Time, most int) bool {
	return r.n >= most && now.Sub(r.since) < time.Second
}
