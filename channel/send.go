package channel

import (
	"fmt"
	"net"
	"os"
)

// Write sends all of p, waiting for credit and for room on the link until the
// write deadline. On an error n is exactly what was handed to the link. A
// write of nothing does nothing.
func (s *Socket) Write(p []byte) (n int, err error) {
	if s == nil {
		return 0, errNil
	}
	s.mu.Lock()
	defer s.unlock()
	for s.writing {
		if err := s.writable(); err != nil {
			return 0, s.fail("write", err)
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
			return n, s.fail("write", err)
		}
		if len(p) == 0 {
			return 0, nil
		}
		if s.credit == 0 {
			s.credit = s.link.Advance(s.port(), len(p)-n)
		}
		if s.credit == 0 {
			s.stalls++
			s.link.Note(Stalled)
			s.link.Expect(1)
			for s.credit == 0 && s.writable() == nil {
				s.wakes.waitWrite(&s.mu)
				if s.credit == 0 && s.writable() == nil { // what has ended lends nothing
					s.credit = s.link.Advance(s.port(), len(p)-n)
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
func (s *Socket) push(p []byte) int {
	n := s.link.Push(s.port(), p)
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
func (s *Socket) sent(n int) {
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
func (s *Socket) writable() error {
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

// MaxSend returns the length in bytes of the longest message that TrySend takes on
// this link; it does not change. It is 64 KiB at least. A peer whose memory for
// unread bytes is bounded below 256 KiB may never have credit for so much.
func (s *Socket) MaxSend() int {
	if s == nil {
		return 0
	}
	return s.link.MaxPush()
}

// TrySend sends all of p at once or nothing: if the peer's credit or the
// link's queue is too small, or another Write is waiting, the error matches
// ErrWouldBlock, and WaitSend waits until that is over. If p is longer than
// MaxSend, the error matches ErrTooLong. It never blocks. A peer of an older
// build may never have credit for more than 32 KiB.
func (s *Socket) TrySend(p []byte) error {
	if s == nil {
		return errNil
	}
	s.mu.Lock()
	defer s.unlock()
	if err := s.mayTry(len(p)); err != nil {
		return s.fail("send", err)
	}
	if len(p) == 0 {
		return nil
	}
	if s.writing || !s.afford(len(p)) || !s.link.TryPush(s.port(), p) {
		s.blocked++
		s.link.Note(Blocked)
		return s.fail("send", ErrWouldBlock)
	}
	s.sent(len(p))
	s.told = true
	return nil
}

// WaitSend waits until there is room for a TrySend of n bytes, until the write
// deadline. Another goroutine that sends on the channel or the link may take the
// room first. The error is one of TrySend but ErrWouldBlock.
func (s *Socket) WaitSend(n int) error {
	if s == nil {
		return errNil
	}
	s.mu.Lock()
	defer s.unlock()
	for {
		if err := s.mayTry(n); err != nil {
			return s.fail("send", err)
		}
		switch {
		case n <= 0 || !s.writing && s.afford(n) && s.link.Room(s.port(), n):
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
func (s *Socket) mayTry(n int) error {
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
func (s *Socket) afford(n int) bool {
	if n > s.credit {
		s.credit += s.link.Advance(s.port(), n-s.credit)
	}
	if n > s.credit && !s.wanted {
		s.wanted = true
		s.tell(Notice{Kind: Wanted, N: n})
	}
	return n <= s.credit
}
