package stream

import (
	"io"
	"net"
	"os"
	"time"
)

// Read is channel.Socket.Read.
func (s *Stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.unlock()
	for {
		switch {
		case s.closed:
			return 0, net.ErrClosed
		case s.rdead.expired:
			return 0, os.ErrDeadlineExceeded
		case s.in.n > 0 && len(p) > 0:
			n := s.in.read(p)
			s.link.Hold(-n)
			s.consumed(n)
			return n, nil
		case s.datagrams.waiting() && len(p) > 0:
			n := s.datagrams.read(p)
			s.link.Loose(-n)
			return n, nil
		case s.rerr == io.EOF && s.in.n == 0:
			return 0, io.EOF
		case s.rerr != nil && s.in.n == 0:
			return 0, s.rerr
		case len(p) == 0:
			return 0, nil
		}
		if n := s.await(p); n > 0 {
			s.consumed(n)
			return n, nil
		}
	}
}

// readable reports whether a Read has no reason to wait. s.mu is held.
func (s *Stream) readable() bool {
	return s.got > 0 || s.in.n > 0 || s.rerr != nil || s.closed || s.rdead.expired || s.datagrams.waiting()
}

// await waits until a Read has no reason to wait any more. One Read at a time
// gets what comes straight into p; n is how much. s.mu is held, but not while
// it waits.
func (s *Stream) await(p []byte) (n int) {
	if s.reading > 0 {
		s.link.Expect(1)
		s.reading++
		s.wakes.waitRead(&s.mu)
		s.reading--
		s.link.Expect(-1)
		return 0
	}
	s.want, s.got, s.reading, s.leading = p, 0, 1, true
	s.unlock()
	led := s.link.Lead()
	s.mu.Lock()
	s.leading = false
	if !led && !s.readable() {
		s.following = true
		s.link.Expect(1)
		for !s.readable() {
			s.wakes.waitRead(&s.mu)
		}
		s.unfollow()
	}
	n = s.got
	s.want, s.got = nil, 0
	if s.reading--; s.reading > 0 {
		s.wakes.readers()
	}
	return n
}

// unfollow notes that the Read that waits for somebody else to receive does not
// any more. s.mu is held.
func (s *Stream) unfollow() {
	if s.following {
		s.following = false
		s.link.Expect(-1)
	}
}

// grantLen is after how many bytes read credit is given again, where that is no
// more than half the window and no less than an eighth: seldom enough to cost
// nothing, and soon enough for a window that just fills a long path.
const grantLen = 128 << 10

// On a slow path, where that takes longer than slowGrant, credit is given
// after a 64th of the window: it is a sign of life, too.
const slowGrant = time.Second

// consumed notes that the application has n bytes more and, once a part of the
// window has been read, grants it again. s.mu is held.
func (s *Stream) consumed(n int) {
	if s.rerr != nil {
		s.link.Shrink(s.in.n)
		return
	}
	if s.window == 0 {
		s.allowed += n
		return
	}
	s.owed += n
	if s.owed < s.window/64 && s.need == 0 {
		return
	}
	full := s.owed >= min(s.window/2, max(s.window/8, grantLen)) || s.need > 0 && s.allowed+s.owed >= int(s.need)
	if at := now(); full || time.Duration(at-s.granted) >= slowGrant {
		s.grant()
	}
}

// grant grants what was read, and more or less of it as the link has room and the
// peer wants. s.mu is held.
func (s *Stream) grant() {
	at := now()
	more, repaid := s.link.Widen(Pace{s.window, s.owed, s.in.n, time.Duration(at - s.granted), int(s.need)})
	if s.owed+more == 0 {
		return
	}
	s.window += more
	s.allowed += s.owed + more - repaid
	s.tell(Notice{Kind: Granted, N: s.owed + more})
	s.owed, s.granted = 0, at
	if s.allowed >= int(s.need) {
		s.need = 0
	}
}
