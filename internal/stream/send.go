package stream

import (
	"fmt"
	"net"
	"os"
)

// Write is channel.Socket.Write.
func (s *Stream) Write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.unlock()
	for s.writing {
		if err := s.writable(); err != nil {
			return 0, err
		}
		s.wakes.waitWrite(&s.mu)
	}
	s.writing = true
	defer func() {
		s.writing = false
		s.wakes.writers()
	}()
	for {
		if n > 0 && n == len(p) {
			return n, nil
		}
		if err := s.writable(); err != nil {
			return n, err
		}
		if len(p) == 0 {
			return 0, nil
		}
		if s.credit == 0 {
			s.credit = s.link.Advance(len(p) - n)
		}
		if s.credit == 0 {
			s.stalls++
			s.link.Note(Stalled)
			s.link.Expect(1)
			for s.credit == 0 && s.writable() == nil {
				s.wakes.waitWrite(&s.mu)
				if s.credit == 0 && s.writable() == nil { // what has ended lends nothing
					s.credit = s.link.Advance(len(p) - n)
				}
			}
			s.link.Expect(-1)
			continue
		}
		n += s.push(p[n : n+min(len(p)-n, s.credit)])
	}
}

// push sends p, for which there is credit, and waits until the link has taken
// it. It returns how much was taken; short means that writable will say why.
// s.mu is held.
func (s *Stream) push(p []byte) int {
	n := s.link.Push(p)
	s.sent(n)
	s.pending = p[n:]
	s.told = true
	s.unlock()
	s.mu.Lock()
	for len(s.pending) > 0 && s.writable() == nil {
		s.wakes.waitWrite(&s.mu)
	}
	n = len(p) - len(s.pending)
	s.pending = nil
	return n
}

// sent accounts for n bytes that the link took. s.mu is held.
func (s *Stream) sent(n int) {
	if !s.unlimited {
		s.credit -= n
	}
	if n > 0 {
		s.framesOut += uint32(s.link.Took(n))
	}
	s.transmitted += uint64(n)
	s.lastActive = now()
}

// writable says why nothing can be written now, if so. s.mu is held.
func (s *Stream) writable() error {
	switch {
	case s.closed:
		return net.ErrClosed
	case s.werr != nil:
		return s.werr
	case s.wdead.expired:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// MaxSend is channel.Socket.MaxSend.
func (s *Stream) MaxSend() int { return s.link.MaxPush() }

// TrySend is channel.Socket.TrySend.
func (s *Stream) TrySend(p []byte) error {
	s.mu.Lock()
	defer s.unlock()
	if err := s.mayTry(len(p)); err != nil {
		return err
	}
	if len(p) == 0 {
		return nil
	}
	if s.writing || !s.afford(len(p)) || !s.link.TryPush(p) {
		s.blocked++
		s.link.Note(Blocked)
		return ErrWouldBlock
	}
	s.sent(len(p))
	s.told = true
	return nil
}

// WaitSend is channel.Socket.WaitSend.
func (s *Stream) WaitSend(n int) error {
	s.mu.Lock()
	defer s.unlock()
	for {
		if err := s.mayTry(n); err != nil {
			return err
		}
		switch {
		case n <= 0 || !s.writing && s.afford(n) && s.link.Room(n):
			return nil
		case s.told: // the peer is to hear of it first; meanwhile there may be room
			s.unlock()
			s.mu.Lock()
		default:
			s.link.Expect(1)
			s.wakes.waitWrite(&s.mu)
			s.link.Expect(-1)
		}
	}
}

// mayTry says why n bytes can never be sent at once, if so. s.mu is held.
func (s *Stream) mayTry(n int) error {
	if err := s.writable(); err != nil {
		return err
	}
	if most := s.link.MaxPush(); n > most {
		return fmt.Errorf("%w: %d bytes, and a message on this link takes %d", ErrTooLong, n, most)
	}
	return nil
}

// afford reports whether there is credit for n bytes; the peer is told once if not.
// s.mu is held.
func (s *Stream) afford(n int) bool {
	if n > s.credit {
		s.credit += s.link.Advance(n - s.credit)
	}
	if n > s.credit && !s.wanted {
		s.wanted = true
		s.tell(Notice{Kind: Wanted, N: n})
	}
	return n <= s.credit
}
