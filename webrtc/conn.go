package webrtc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/pion/transport/v5/deadline"

	"peerlink/internal/pause"
)

const (
	// maxMessage is the longest message of a channel, in bytes: pion never
	// finishes one beyond the far end's receive window, and browsers promise
	// 64 KiB (RFC 8841, section 6.1).
	maxMessage = 64 << 10
	// sendHigh is how many unacknowledged bytes a Write leaves behind before it
	// waits, and sendLow where it goes on. pion's own Write never waits.
	sendHigh = 1 << 20
	sendLow  = sendHigh / 2
	// inboxLimit is how many unread bytes are taken off SCTP, whose own window
	// of 1 MiB then stops the peer.
	inboxLimit = 256 << 10
	// lingerTimeout is how long a closed stream goes on sending what was written.
	lingerTimeout = 2 * time.Second
)

// endMark is the text message after which a direction has no more bytes.
// Binary messages are the stream's bytes; further text messages are ignored.
const endMark = "end"

// messages is a data channel, detached: whole messages, in order.
type messages interface {
	carried // WriteDataChannel copies its bytes and does not wait
	BufferedAmount() uint64
	SetBufferedAmountLowThreshold(uint64)
	OnBufferedAmountLow(func())
}

// stream makes a complete net.Conn of a reliable, ordered data channel.
type stream struct {
	raw        messages
	largest    int           // message that is sent
	patience   time.Duration // lingerTimeout, but for tests
	local, far net.Addr
	hangUp     func() // ends the connection below, so that reads of raw end; idempotent
	gone       func() // called once, when the stream needs nothing any more

	readMu  sync.Mutex // serialises Read
	inbox   inbox
	readBy  *deadline.Deadline
	writeMu sync.Mutex // serialises Write, CloseWrite and the end of Close
	halved  bool       // under writeMu: endMark was sent
	cut     bool       // under writeMu: Close broke a Write
	lowc    chan struct{}
	writeBy *deadline.Deadline

	closing sync.Once
	closedc chan struct{} // closed by Close
	lostc   chan struct{} // closed when nothing can be sent any more
	losing  sync.Once
	lostErr error         // set before lostc is closed
	readc   chan struct{} // closed when the reading goroutine has ended
}

func newStream(raw messages, largest int, local, far net.Addr, hangUp, gone func()) *stream {
	s := &stream{
		raw: raw, largest: largest, patience: lingerTimeout, local: local, far: far, hangUp: hangUp, gone: gone,
		readBy: deadline.New(), writeBy: deadline.New(),
		lowc: make(chan struct{}, 1), closedc: make(chan struct{}), lostc: make(chan struct{}), readc: make(chan struct{}),
	}
	s.inbox.filled, s.inbox.emptied = make(chan struct{}, 1), make(chan struct{}, 1)
	raw.SetBufferedAmountLowThreshold(sendLow)
	raw.OnBufferedAmountLow(func() { pause.Tell(s.lowc, struct{}{}) })
	go s.receive()
	return s
}

// receive is the one reader of raw. It ends with raw.
func (s *stream) receive() {
	defer close(s.readc)
	buf := make([]byte, maxMessage)
	for {
		n, text, err := s.raw.ReadDataChannel(buf)
		switch {
		case errors.Is(err, io.ErrShortBuffer):
			err = fmt.Errorf("the peer sent a message of more than %d bytes", maxMessage)
		case err != nil:
			err = fmt.Errorf("connection lost (%v)", err) //nolint:errorlint // pion's io.EOF is no clean end
		case text && string(buf[:n]) == endMark:
			s.inbox.end(io.EOF)
			continue
		case text:
			continue
		default:
			s.inbox.put(buf[:n], s.closedc)
			continue
		}
		err = fmt.Errorf("%w: %w", err, io.ErrUnexpectedEOF)
		s.inbox.end(err)
		s.lose(err)
		return
	}
}

// lose makes writes fail. What the peer sent before can still be read.
func (s *stream) lose(err error) {
	s.losing.Do(func() {
		s.lostErr = err
		close(s.lostc)
		s.hangUp()
	})
}

// Read returns io.EOF only after the peer's orderly end; any other end matches
// io.ErrUnexpectedEOF. It blocks until there is a byte, the end, or the deadline.
func (s *stream) Read(p []byte) (int, error) {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	for {
		passed := s.readBy.Done()
		switch {
		case closed(s.closedc):
			return 0, s.opError("read", net.ErrClosed)
		case closed(passed):
			return 0, s.opError("read", os.ErrDeadlineExceeded)
		}
		n, err := s.inbox.take(p)
		if err != nil && err != io.EOF {
			err = s.opError("read", err)
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		select {
		case <-s.inbox.filled:
		case <-s.closedc:
		case <-passed:
		}
	}
}

// Write returns when all of p has been handed to SCTP, and waits while more
// than 1 MiB is on its way.
func (s *stream) Write(p []byte) (n int, err error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if s.halved {
		return 0, s.opError("write", fmt.Errorf("after CloseWrite: %w", io.ErrClosedPipe))
	}
	for {
		if err := s.room(); err != nil {
			s.cut = s.cut || n > 0 && closed(s.closedc)
			return n, s.opError("write", err)
		}
		if n == len(p) {
			return n, nil
		}
		m, err := s.raw.WriteDataChannel(p[n:min(len(p), n+s.largest)], false)
		n += m
		if err != nil {
			return n, s.opError("write", fmt.Errorf("connection lost (%w): %w", err, syscall.EPIPE))
		}
	}
}

// room waits until more may be sent.
func (s *stream) room() error {
	for {
		passed := s.writeBy.Done()
		switch {
		case closed(s.closedc):
			return net.ErrClosed
		case closed(s.lostc):
			return fmt.Errorf("%w: %w", s.lostErr, syscall.EPIPE)
		case closed(passed):
			return os.ErrDeadlineExceeded
		case s.raw.BufferedAmount() <= sendHigh:
			return nil
		}
		select {
		case <-s.lowc:
		case <-s.closedc:
		case <-s.lostc:
		case <-passed:
		}
	}
}

// CloseWrite ends the stream for the peer's reader; ours goes on. It waits for
// a Write under way.
func (s *stream) CloseWrite() error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	switch {
	case closed(s.closedc):
		return s.opError("close", net.ErrClosed)
	case s.halved:
		return nil
	}
	if err := s.sendEnd(); err != nil {
		return s.opError("close", err)
	}
	return nil
}

// sendEnd tells the peer that nothing follows. writeMu is held.
func (s *stream) sendEnd() error {
	if closed(s.lostc) {
		return fmt.Errorf("%w: %w", s.lostErr, syscall.EPIPE)
	}
	s.halved = true
	_, err := s.raw.WriteDataChannel([]byte(endMark), true)
	return err
}

// Close wakes readers and writers and returns at once. What was written before
// still reaches the peer, within two seconds; a Write that Close interrupts
// makes the peer's reader fail, as its data are not whole.
func (s *stream) Close() error {
	s.closing.Do(func() {
		close(s.closedc)
		go s.linger()
	})
	return nil
}

// linger sends what is left and ends the connection.
func (s *stream) linger() {
	defer s.gone()
	s.writeMu.Lock()
	if !s.cut && !s.halved {
		_ = s.sendEnd() // where it fails the peer has gone already
	}
	s.raw.SetBufferedAmountLowThreshold(0)
	s.writeMu.Unlock()
	late := time.NewTimer(s.patience)
	defer late.Stop()
	for more := true; more && s.raw.BufferedAmount() > 0; {
		select {
		case <-s.lowc:
		case <-s.lostc:
			more = false
		case <-late.C:
			more = false
		}
	}
	s.hangUp()
	<-s.readc
}

// LocalAddr returns this end's address of the selected pair.
func (s *stream) LocalAddr() net.Addr { return s.local }

// RemoteAddr returns the peer's address of the selected pair.
func (s *stream) RemoteAddr() net.Addr { return s.far }

// SetDeadline bounds reads and writes, also those under way.
func (s *stream) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// SetReadDeadline bounds reads.
func (s *stream) SetReadDeadline(t time.Time) error { return s.setDeadline(s.readBy, t) }

// SetWriteDeadline bounds writes.
func (s *stream) SetWriteDeadline(t time.Time) error { return s.setDeadline(s.writeBy, t) }

func (s *stream) setDeadline(d *deadline.Deadline, t time.Time) error {
	if closed(s.closedc) {
		return s.opError("set", net.ErrClosed)
	}
	d.Set(t)
	return nil
}

func (s *stream) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "webrtc", Source: s.local, Addr: s.far, Err: err}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
