package stream

import (
	"fmt"
	"os"
)

// How much of a channel's datagrams waits for Reads; when more comes, the
// oldest are dropped.
const (
	maxDatagrams     = 64
	maxDatagramBytes = 128 << 10
)

// datagrams are those of a channel that has had any. Socket.mu guards them.
type datagrams struct {
	queue                   [][]byte // received, not read
	n                       int      // bytes in queue
	apart                   bool     // Read leaves them to TakeDatagram
	sent, received, dropped uint64
	total                   uint64 // bytes received
}

// taken returns how many bytes came in datagrams; d may be nil.
func (d *datagrams) taken() uint64 {
	if d == nil {
		return 0
	}
	return d.total
}

// waiting reports whether there is one to read; d may be nil.
func (d *datagrams) waiting() bool { return d != nil && len(d.queue) > 0 }

// bytes returns how many bytes wait; d may be nil.
func (d *datagrams) bytes() int {
	if d == nil {
		return 0
	}
	return d.n
}

// read moves bytes of the first one out, unless they are kept apart. What does not
// fit in is left for the next Read.
func (d *datagrams) read(p []byte) int {
	if d.apart {
		return 0
	}
	n := copy(p, d.queue[0])
	d.n -= n
	if d.queue[0] = d.queue[0][n:]; len(d.queue[0]) == 0 {
		d.queue[0] = nil
		d.queue = d.queue[1:]
	}
	return n
}

// drop drops the oldest and returns how many bytes that were.
func (d *datagrams) drop() int {
	n := len(d.queue[0])
	d.n -= n
	d.queue[0] = nil
	d.queue = d.queue[1:]
	d.dropped++
	return n
}

// reset drops all and returns how many bytes that were; d may be nil.
func (d *datagrams) reset() int {
	if d == nil {
		return 0
	}
	n := d.n
	d.queue, d.n = nil, 0
	return n
}

// loose returns the channel's datagrams. s.mu is held.
func (s *Stream) loose() *datagrams {
	if s.datagrams == nil {
		s.datagrams = new(datagrams)
	}
	return s.datagrams
}

// MaxDatagram is channel.Socket.MaxDatagram.
func (s *Stream) MaxDatagram() int { return s.link.MaxDatagram() }

// SendUnreliable is channel.Socket.SendUnreliable.
func (s *Stream) SendUnreliable(p []byte) error {
	most := s.MaxDatagram()
	if most <= 0 || len(p) == 0 {
		return s.TrySend(p)
	}
	return s.sendDatagram(p, most)
}

// SendDatagram is channel.Socket.SendDatagram.
func (s *Stream) SendDatagram(p []byte) error {
	return s.sendDatagram(p, s.MaxDatagram())
}

func (s *Stream) sendDatagram(p []byte, most int) error {
	if err := s.mayDatagram(len(p), most); err != nil {
		return err
	}
	err := s.link.SendDatagram(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrWouldBlock, err)
	}
	s.loose().sent++
	s.transmitted += uint64(len(p))
	s.lastActive = now()
	return nil
}

// mayDatagram says why a datagram of n bytes cannot be sent, if so.
func (s *Stream) mayDatagram(n, most int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(); err != nil && err != os.ErrDeadlineExceeded { // a bare value; it never waits
		return err
	}
	if n > most {
		return fmt.Errorf("%w: %d bytes, and a datagram on this link takes %d", ErrTooLong, n, most)
	}
	return nil
}

// TakeDatagram is channel.Socket.TakeDatagram.
func (s *Stream) TakeDatagram() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.loose()
	d.apart = true
	if !d.waiting() {
		return nil
	}
	p := d.queue[0]
	d.queue[0], d.queue = nil, d.queue[1:]
	d.n -= len(p)
	s.link.Loose(-len(p))
	return p
}

// DeliverDatagram hands over a datagram of the peer; b is the channel's from
// then on. It returns how many datagrams were dropped: b, where the channel is
// not read any more, or older ones, for want of room.
func (s *Stream) DeliverDatagram(b []byte) (dropped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rerr != nil || len(b) > maxDatagramBytes {
		return 1
	}
	if len(b) == 0 {
		return 0
	}
	d := s.loose()
	for d.waiting() && (len(d.queue) >= maxDatagrams || d.n+len(b) > maxDatagramBytes) {
		s.link.Loose(-d.drop())
		dropped++
	}
	if !s.link.Loose(len(b)) {
		return dropped + 1
	}
	d.queue = append(d.queue, b)
	d.n += len(b)
	d.received++
	d.total += uint64(len(b))
	s.received += uint64(len(b))
	s.lastActive = now()
	s.wakeReads()
	return dropped
}
