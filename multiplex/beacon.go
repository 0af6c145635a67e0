package multiplex

import (
	"context"
	"fmt"
	"net"
	"time"
)

// maxBeacons bounds the beacons under way; Ping waits for none beyond it.
const maxBeacons = 16

// beacons keep the link's liveness and its round-trip time. Their timer is
// their own: no blocked write delays it. Socket.mu guards all of it.
type beacons struct {
	timer *time.Timer
	sent  map[uint64]*beacon
	rtt   time.Duration // smoothed; 0 until the first answer
}

type beacon struct {
	at   time.Time
	done chan struct{} // closed when the answer has come
	rtt  time.Duration
}

func (b *beacons) stop() {
	if b.timer != nil {
		b.timer.Stop()
	}
}

// startBeacons sends the first beacon, so that a round-trip time is known soon.
func (s *Socket) startBeacons() {
	if s.cfg.BeaconInterval < 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return
	}
	s.sendBeaconLocked()
	s.beacons.timer = time.AfterFunc(s.cfg.BeaconTimeout, s.tick)
}

// sendBeaconLocked sends a beacon, or returns nil if enough are under way.
func (s *Socket) sendBeaconLocked() *beacon {
	if len(s.beacons.sent) >= maxBeacons {
		return nil
	}
	if s.beacons.sent == nil {
		s.beacons.sent = make(map[uint64]*beacon)
	}
	n := nonce()
	b := &beacon{at: time.Now(), done: make(chan struct{})}
	s.beacons.sent[n] = b
	s.line.control(protocolID, encodeBeacon(n, false))
	return b
}

// tick ends the link if a beacon is overdue, and else sends the next one when
// it is time. It runs at least once per time-out while one is under way.
func (s *Socket) tick() {
	s.mu.Lock()
	if s.cause != nil {
		s.mu.Unlock()
		return
	}
	now := time.Now()
	oldest := now
	for _, b := range s.beacons.sent {
		if b.at.Before(oldest) {
			oldest = b.at
		}
	}
	if wait := now.Sub(oldest); wait >= s.cfg.BeaconTimeout {
		s.mu.Unlock()
		s.fail(fmt.Errorf("%w: no answer to a beacon in %v", ErrDead, wait.Round(time.Millisecond)))
		return
	}
	next := s.cfg.BeaconInterval
	if len(s.beacons.sent) > 0 {
		next = s.cfg.BeaconTimeout - now.Sub(oldest)
	} else {
		s.sendBeaconLocked()
		next = s.cfg.BeaconTimeout
	}
	s.beacons.timer.Reset(next)
	s.mu.Unlock()
}

// handleBeacon answers a beacon, or takes an answer. An answer that nobody
// asked for changes nothing.
func (s *Socket) handleBeacon(m message) error {
	if !m.answer {
		return s.reply(protocolID, encodeBeacon(m.nonce, true))
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
	b.rtt = time.Since(b.at)
	if s.beacons.rtt == 0 {
		s.beacons.rtt = b.rtt
	} else { // RFC 6298, section 2: alpha = 1/8
		s.beacons.rtt += (b.rtt - s.beacons.rtt) / 8
	}
	close(b.done)
	if len(s.beacons.sent) == 0 && s.beacons.timer != nil {
		s.beacons.timer.Reset(s.cfg.BeaconInterval)
	}
	return nil
}

// RTT returns the smoothed round-trip time of the beacons; 0 before the first
// answer and with peers of version 1.
func (s *Socket) RTT() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.beacons.rtt
}

// Ping sends a beacon at once and waits for its answer. If none comes within
// Config.BeaconTimeout, the link ends, as with every beacon.
func (s *Socket) Ping(ctx context.Context) (time.Duration, error) {
	if err := s.Ready(ctx); err != nil {
		return 0, err
	}
	s.mu.Lock()
	switch {
	case s.cause != nil:
		defer s.mu.Unlock()
		return 0, s.cause
	case s.closing:
		defer s.mu.Unlock()
		return 0, net.ErrClosed
	case s.version.Load() < version2:
		defer s.mu.Unlock()
		return 0, fmt.Errorf("multiplex: the peer speaks version 1, which has no beacons")
	}
	b := s.sendBeaconLocked()
	if b == nil {
		for _, b = range s.beacons.sent {
			break // any that is under way tells as much
		}
	}
	if s.beacons.timer != nil {
		s.beacons.timer.Reset(s.cfg.BeaconTimeout)
	}
	s.mu.Unlock()
	select {
	case <-b.done:
		return b.rtt, nil
	case <-s.done:
		return 0, s.Err()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}
