package multiplex

import (
	"context"
	"fmt"
	"net"
	"time"
)

// maxBeacons bounds the beacons under way; Ping waits for none beyond it.
const maxBeacons = 16

// firstBeacons follow each other at once when a link begins: the first answer
// may be late because both sides are still setting up.
const firstBeacons = 4

// looks is how often in a BeaconTimeout the link is looked at while an answer is
// under way: so much later than BeaconTimeout after the last sign of life a
// peer counts as dead at the most.
const looks = 4

// idleTick is how often the clock ticks on links without beacons.
const idleTick = 10 * time.Second

// beacons keep the link's liveness and its round-trip time. Socket.mu guards
// all of it.
type beacons struct {
	count int           // answers so far
	low   time.Duration // the quickest of late; it counts from the second answer on
	sent  map[uint64]*beacon

	// What the peer does while its answer is under way.
	progress int64         // what Socket.progress was when last looked at
	moved    time.Time     // when it was seen to have grown
	rtt      time.Duration // smoothed; 0 until the first answer
}

type beacon struct {
	at     time.Time
	behind uint64        // how many of line.promises are ahead of it
	done   chan struct{} // closed when the answer has come
	rtt    time.Duration
}

// oldest returns how long the first unanswered beacon has waited.
func (b *beacons) oldest(now time.Time) (wait time.Duration) {
	for _, b := range b.sent {
		wait = max(wait, now.Sub(b.at))
	}
	return wait
}

// startClock starts the timer behind liveness. It is a timer of its own: no
// blocked write delays it.
func (s *Socket) startClock() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock = time.AfterFunc(s.cfg.BeaconTimeout, s.tick)
}

// tick ends the link if a beacon is overdue, and sends the next one when it is
// time. While a beacon is under way it runs when that is due, and else once per
// interval.
func (s *Socket) tick() {
	now := time.Now()
	s.mu.Lock()
	if s.cause != nil {
		s.mu.Unlock()
		return
	}
	if err := s.deadLocked(now); err != nil {
		s.mu.Unlock()
		s.fail(err)
		return
	}
	if len(s.beacons.sent) == 0 && s.cfg.BeaconInterval > 0 && s.version.Load() >= version2 {
		s.sendBeaconLocked()
	}
	s.windLocked(now)
	s.mu.Unlock()
	s.flush()
}

// windLocked sets the clock to the next thing to do, and does what has no hour
// of its own. s.mu is held.
func (s *Socket) windLocked(now time.Time) {
	s.sweepLocked(now)
	s.line.trim()
	switch {
	case len(s.beacons.sent) > 0:
		look := s.cfg.BeaconTimeout / looks
		if due := s.cfg.BeaconTimeout - s.beacons.oldest(now); due > 0 {
			look = min(look, due)
		}
		s.clock.Reset(look)
	case s.cfg.BeaconInterval > 0:
		s.clock.Reset(s.cfg.BeaconInterval)
	default:
		s.clock.Reset(idleTick)
	}
}

// deadLocked says why the peer counts as dead, if it does: an answer is overdue
// and nothing comes that it could be waiting behind. A peer that keeps data or
// credit coming lives, but has to answer in three intervals. s.mu is held.
func (s *Socket) deadLocked(now time.Time) error {
	b := &s.beacons
	if n := s.progress.Load(); n != b.progress {
		b.progress, b.moved = n, now
	}
	wait := b.oldest(now)
	if wait >= s.cfg.patience() || wait >= s.cfg.BeaconTimeout && now.Sub(b.moved) >= s.cfg.BeaconTimeout {
		return fmt.Errorf("%w: no answer to a beacon in %v", ErrDead, wait.Round(time.Millisecond))
	}
	if s.version.Load() == 0 && s.cfg.MinVersion >= version2 { // a peer of version 1 may well be silent
		return fmt.Errorf("%w: no hello in %v", ErrDead, s.cfg.BeaconTimeout)
	}
	return nil
}

// startBeacons sends the first beacon, so that a round-trip time is known soon.
func (s *Socket) startBeacons() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause == nil && s.cfg.BeaconInterval > 0 {
		s.sendBeaconLocked()
		s.windLocked(time.Now())
	}
}

// sendBeaconLocked sends a beacon, or returns nil if enough are under way.
// s.mu is held.
func (s *Socket) sendBeaconLocked() *beacon {
	if len(s.beacons.sent) >= maxBeacons {
		return nil
	}
	ahead := s.line.ahead()
	b := s.addBeaconLocked(func(body []byte) { s.line.control(protocolID, body, prompt) })
	b.behind = ahead
	return b
}

// addBeaconLocked has a beacon queued. s.mu is held.
func (s *Socket) addBeaconLocked(queue func(body []byte)) *beacon {
	if s.beacons.sent == nil {
		s.beacons.sent = make(map[uint64]*beacon)
	}
	if len(s.beacons.sent) == 0 { // what came before it is no sign of life
		s.beacons.progress = s.progress.Load()
	}
	n := nonce()
	b := &beacon{at: time.Now(), done: make(chan struct{})}
	s.beacons.sent[n] = b
	queue(encodeBeacon(n, false))
	return b
}

// handleBeacon answers a beacon, or takes an answer. An answer without
// a beacon is counted and changes nothing. Our answer stands behind our
// resets: it is the sign that an id may be used again (see ids).
func (s *Socket) handleBeacon(m message) error {
	if !m.answer {
		body := encodeBeacon(m.nonce, true)
		s.line.afterResets(protocolID, body)
		return s.owed(headerLen + len(body))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids.unfence(m.nonce) {
		return nil
	}
	b := s.beacons.sent[m.nonce]
	if b == nil {
		return s.strayLocked("answer to a beacon that was not sent")
	}
	delete(s.beacons.sent, m.nonce)
	s.confirmed = max(s.confirmed, b.behind)
	now := time.Now()
	b.rtt = max(now.Sub(b.at), 1) // 0 would mean that none is known
	s.beacons.rtt = smooth(s.beacons.rtt, b.rtt)
	s.beacons.low = min(b.rtt, smooth(s.beacons.low, b.rtt)) // which grows, as the path may have become longer
	if s.beacons.count++; s.beacons.count >= 2 {
		s.quickest.Store(int64(s.beacons.low))
	}
	if s.beacons.count < firstBeacons && s.cfg.BeaconInterval > 0 && s.cause == nil {
		s.sendBeaconLocked()
	}
	close(b.done)
	if s.cause == nil {
		s.windLocked(now)
	}
	return nil
}

// smooth takes one more round-trip time into an average, as RFC 6298, section 2,
// with alpha = 1/8. An average of 0 has none yet.
func smooth(average, rtt time.Duration) time.Duration {
	if average == 0 {
		return rtt
	}
	return average + (rtt-average)/8
}

// Ping sends a beacon at once and waits for its answer. If none comes within
// Config.BeaconTimeout, the link ends, as with every beacon.
func (s *Socket) Ping(ctx context.Context) (time.Duration, error) {
	if err := s.Ready(ctx); err != nil {
		return 0, err
	}
	b, err := s.ping()
	if err != nil {
		return 0, err
	}
	s.expect(1)
	defer s.expect(-1)
	select {
	case <-b.done:
		return b.rtt, nil
	case <-s.done:
		return 0, s.Err()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// ping sends a beacon, or returns one that is under way and tells as much.
func (s *Socket) ping() (*beacon, error) {
	defer s.flush()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.cause != nil:
		return nil, s.cause
	case s.closing:
		return nil, net.ErrClosed
	case s.version.Load() < version2:
		return nil, fmt.Errorf("multiplex: the peer speaks version 1, which has no beacons")
	}
	b := s.sendBeaconLocked()
	if b == nil {
		for _, b = range s.beacons.sent {
			break
		}
	}
	s.windLocked(time.Now())
	return b, nil
}
