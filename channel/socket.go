package channel

import (
	"io"
	"net"
	"time"

	"peerlink/internal/stream"
)

// ID numbers a channel on its link. 0 and 0xffff are the link's own channels
// (docs/protocol.md, "Channels").
type ID uint16

// Socket is an application's end of a channel: a net.Conn with half-close. All
// methods may be called concurrently; concurrent Writes are not mixed. Of a nil
// Socket, errors match os.ErrInvalid, and other results are zero. A program gets
// Sockets from its links; the zero value is of no use.
type Socket stream.Stream

var _ net.Conn = (*Socket)(nil)

func (s *Socket) stream() *stream.Stream { return (*stream.Stream)(s) }

// failed wraps the cause of an operation's failure; nil stays nil.
func (s *Socket) failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: op, URI: s.URI(), Err: err}
}

// ID returns the channel's number, unique on its link while the channel lives.
func (s *Socket) ID() ID {
	if s == nil {
		return 0
	}
	return ID(s.stream().ID())
}

// URI returns the name under which the channel was opened. Its opener chose
// it: at most 255 bytes of UTF-8 without control characters.
func (s *Socket) URI() string {
	if s == nil {
		return ""
	}
	return s.stream().URI()
}

// LocalAddr returns the link's local address.
func (s *Socket) LocalAddr() net.Addr {
	if s == nil {
		return nil
	}
	a, _ := s.stream().Addrs()
	return a
}

// RemoteAddr returns the link's remote address.
func (s *Socket) RemoteAddr() net.Addr {
	if s == nil {
		return nil
	}
	_, a := s.stream().Addrs()
	return a
}

// Read waits for at least one byte, until the read deadline. It returns a bare
// io.EOF after the last byte of a peer that ended cleanly, and an *OpError in
// any other case. While it waits it may receive for the other channels of the
// link, too.
func (s *Socket) Read(p []byte) (int, error) {
	if s == nil {
		return 0, errNil
	}
	n, err := s.stream().Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, s.failed("read", err)
}

// Write sends all of p, waiting for credit and for room on the link until the
// write deadline. On an error n is exactly what was handed to the link. A
// write of nothing does nothing.
func (s *Socket) Write(p []byte) (n int, err error) {
	if s == nil {
		return 0, errNil
	}
	n, err = s.stream().Write(p)
	return n, s.failed("write", err)
}

// MaxSend returns the length in bytes of the longest message that TrySend takes on
// this link; it does not change. It is 64 KiB at least. A peer whose memory for
// unread bytes is bounded below 256 KiB may never have credit for so much.
func (s *Socket) MaxSend() int {
	if s == nil {
		return 0
	}
	return s.stream().MaxSend()
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
	return s.failed("send", s.stream().TrySend(p))
}

// WaitSend waits until there is room for a TrySend of n bytes, until the write
// deadline. Another goroutine that sends on the channel or the link may take the
// room first. The error is one of TrySend but ErrWouldBlock.
func (s *Socket) WaitSend(n int) error {
	if s == nil {
		return errNil
	}
	return s.failed("send", s.stream().WaitSend(n))
}

// MaxDatagram returns the length in bytes of the longest datagram that
// SendUnreliable sends now; it may change with the path. 0 means that it sends
// none, as the link's carrier or the peer has none.
func (s *Socket) MaxDatagram() int {
	if s == nil {
		return 0
	}
	return s.stream().MaxDatagram()
}

// SendUnreliable sends p as a datagram where the link has them (MaxDatagram):
// it arrives once, whole, out of turn, or not at all, and costs no credit. The
// peer's Read returns its bytes, never together with those of another datagram
// or of Writes; a Read with too little room leaves the rest for the next one. 64
// datagrams (or 128 KiB) wait for Reads, and then the oldest are dropped
// (Stats). An error that matches ErrTooLong says that p is longer than
// MaxDatagram, ErrWouldBlock that the carrier could not take it now; either way
// it was not sent.
//
// On a link without datagrams it is TrySend: the bytes become part of the
// stream. So a program that is to run on both sends messages that say where
// they end, and does not mix them with Writes. It never blocks.
func (s *Socket) SendUnreliable(p []byte) error {
	if s == nil {
		return errNil
	}
	return s.failed("send", s.stream().SendUnreliable(p))
}

// SendDatagram is SendUnreliable without the stream: on a link that has no
// datagrams now, the error matches ErrTooLong.
func (s *Socket) SendDatagram(p []byte) error {
	if s == nil {
		return errNil
	}
	return s.failed("send", s.stream().SendDatagram(p))
}

// TakeDatagram returns the oldest datagram that waits, whole, for the caller to
// keep; nil: none waits. It does not block. From the first call on Read returns
// bytes of the stream only: one that waits when a datagram comes returns 0 and no
// error, so that its caller looks here.
func (s *Socket) TakeDatagram() []byte {
	if s == nil {
		return nil
	}
	return s.stream().TakeDatagram()
}

// CloseWrite ends this direction: the peer reads io.EOF after all that was
// written. Reading goes on. A Write under way returns net.ErrClosed with what
// it had sent. It does not block; the second call does nothing.
func (s *Socket) CloseWrite() error {
	if s == nil {
		return errNil
	}
	s.stream().CloseWrite()
	return nil
}

// Close ends both directions. What was written is still delivered, and the
// peer reads io.EOF after it; what arrived and was not read is dropped, and
// the peer's writes fail. It does not block; the second call does nothing.
func (s *Socket) Close() error {
	if s == nil {
		return errNil
	}
	s.stream().Close()
	return nil
}

// Reset cuts the channel off: the peer reads what has reached it and then
// fails with a *ResetError of this code, as its writes do. It does not block.
func (s *Socket) Reset(code Code) error {
	if s == nil {
		return errNil
	}
	s.stream().Reset(uint32(code))
	return nil
}

// SetDeadline sets both deadlines; the zero time removes them.
func (s *Socket) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// SetReadDeadline bounds Reads, also those under way. The channel stays usable
// after a Read that timed out.
func (s *Socket) SetReadDeadline(t time.Time) error {
	if s == nil {
		return errNil
	}
	return s.failed("set deadline", s.stream().SetReadDeadline(t))
}

// SetWriteDeadline bounds Writes, also those under way. The channel stays
// usable after a Write that timed out; its n tells what was sent.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if s == nil {
		return errNil
	}
	return s.failed("set deadline", s.stream().SetWriteDeadline(t))
}
