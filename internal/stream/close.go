package stream

import (
	"net"
	"time"
)

// CloseWrite is channel.Socket.CloseWrite.
func (s *Stream) CloseWrite() {
	s.mu.Lock()
	defer s.unlock()
	s.finish()
}

// finish ends this side's sending cleanly, once. s.mu is held.
func (s *Stream) finish() {
	if s.werr == nil {
		s.tell(Notice{Kind: Ended})
		s.endWrite(net.ErrClosed)
	}
}

// Close is channel.Socket.Close.
func (s *Stream) Close() {
	s.mu.Lock()
	defer s.unlock()
	if !s.closed {
		s.finish()
		s.stop(0)
	}
}

// Reset is channel.Socket.Reset.
func (s *Stream) Reset(code uint32) {
	s.mu.Lock()
	defer s.unlock()
	if !s.closed {
		s.stop(code)
	}
}

// stop closes the local end and tells the peer, unless the peer has ended and
// been told so already. s.mu is held.
func (s *Stream) stop(code uint32) {
	if s.rerr == nil || s.werr == nil {
		s.tell(Notice{Kind: Stopped, Code: code})
	}
	s.closed = true
	s.endRead(net.ErrClosed)
	s.endWrite(net.ErrClosed)
	s.drop()
	s.rdead.set(time.Time{}, &s.mu, nil)
	s.wdead.set(time.Time{}, &s.mu, nil)
}

// endRead notes why nothing more will arrive. s.mu is held.
func (s *Stream) endRead(cause error) {
	if s.rerr == nil {
		s.rerr = cause
		s.link.Shrink(s.in.n)
	}
	s.wakeReads()
}

// drop drops what waits unread; nothing more will arrive. s.mu is held.
func (s *Stream) drop() {
	if n := s.in.reset(); n > 0 {
		s.link.Hold(-n)
		s.link.Shrink(0)
	}
	if n := s.datagrams.reset(); n > 0 {
		s.link.Loose(-n)
	}
}

// wakeReads has Reads look again. s.mu is held.
func (s *Stream) wakeReads() {
	s.wakes.readers()
	if s.leading {
		s.link.Interrupt()
	}
}

// endWrite notes why nothing more can be sent. s.mu is held.
func (s *Stream) endWrite(cause error) {
	if s.werr == nil {
		s.werr = cause
		s.link.Advance(-s.credit)
	}
	s.wakes.writers()
}

// SetReadDeadline is channel.Socket.SetReadDeadline.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.rdead.set(t, &s.mu, s.wakeReads)
	return nil
}

// SetWriteDeadline is channel.Socket.SetWriteDeadline.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.wdead.set(t, &s.mu, s.wakes.writers)
	return nil
}
