package channel

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Socket is an application's end of a channel: a net.Conn with half-close. All
// methods may be called concurrently; concurrent Writes are not mixed. Of a nil
// Socket, errors match os.ErrInvalid, and other results are zero.
type Socket struct {
	// The fields are in an order that wastes no room: most channels are idle, and
	// there may be many.
	uri  string
	link Link
	id   ID

	// mu guards all that follows.
	leading   bool // a Read may be in Link.Lead
	following bool // a Read waits for somebody else to receive
	writing   bool // a Write is under way
	unlimited bool // the peer knows no credit
	told      bool // something was queued on the link that is not flushed yet
	closed    bool
	mu        sync.Mutex

	wakes        wakes
	rdead, wdead deadline

	in        buffer
	datagrams *datagrams // nil until there was one
	want      []byte     // where the Read under way wants what comes
	got       int        // what it has got
	window    int        // announced size; 0 for a peer that knows no credit
	allowed   int        // what the peer may still send
	owed      int        // read, but not yet granted again
	rerr      error      // why no more will arrive; nil while the direction lives

	pending []byte // what the Write under way waits to have pulled
	credit  int    // what the peer will still take
	werr    error  // why nothing more can be sent; nil while the direction lives

	received, transmitted        uint64
	created, lastActive, granted int64  // Unix times in ns; granted: when credit was given last
	framesIn                     uint32 // atomic: whoever receives counts without the lock
	framesOut                    uint32
	stalls, blocked              uint32
	reading                      int32 // Reads that wait
	need                         int32 // bytes that the peer wants to send at once
	wanted                       bool  // the peer knows that there is too little credit
}

var _ net.Conn = (*Socket)(nil)

// Traffic is what went over a channel, a link, or many links.
type Traffic struct {
	// Bytes, datagrams included; of a link frames' headers as well.
	BytesSent     uint64 `json:"bytes_sent"`
	BytesReceived uint64 `json:"bytes_received"`
	// FramesSent counts frames with data of channels; FramesReceived those of a
	// channel, or all of a link. A channel counts modulo 2³².
	FramesSent     uint64 `json:"frames_sent"`
	FramesReceived uint64 `json:"frames_received"`
	// Stalls is how often a Write on a channel had to wait for credit, of a channel
	// modulo 2³².
	Stalls uint64 `json:"stalls"`
	// WouldBlocks is how often a TrySend or SendUnreliable was not sent, for want
	// of room, of a channel modulo 2³².
	WouldBlocks uint64 `json:"would_blocks"`
	// DatagramsDropped counts received ones that were not read in time, or came
	// for a channel that does not exist or has ended.
	DatagramsSent     uint64 `json:"datagrams_sent"`
	DatagramsReceived uint64 `json:"datagrams_received"`
	DatagramsDropped  uint64 `json:"datagrams_dropped"`
}

// Add adds what went over another channel or link.
func (t *Traffic) Add(o Traffic) {
	t.BytesSent += o.BytesSent
	t.BytesReceived += o.BytesReceived
	t.FramesSent += o.FramesSent
	t.FramesReceived += o.FramesReceived
	t.Stalls += o.Stalls
	t.WouldBlocks += o.WouldBlocks
	t.DatagramsSent += o.DatagramsSent
	t.DatagramsReceived += o.DatagramsReceived
	t.DatagramsDropped += o.DatagramsDropped
}

// Stats are a channel's numbers since it was opened.
type Stats struct {
	Traffic
	Unread       int       `json:"unread"` // bytes that wait for a Read
	Created      time.Time `json:"created"`
	LastActivity time.Time `json:"last_activity"`
}

func (s *Socket) port() *Port { return (*Port)(s) }

// ID returns the channel's number, unique on its link while the channel lives.
func (s *Socket) ID() ID {
	if s == nil {
		return 0
	}
	return s.id
}

// URI returns the name under which the channel was opened. Its opener chose
// it: at most 255 bytes of UTF-8 without control characters.
func (s *Socket) URI() string {
	if s == nil {
		return ""
	}
	return s.uri
}

// LocalAddr returns the link's local address.
func (s *Socket) LocalAddr() net.Addr {
	if s == nil {
		return nil
	}
	a, _ := s.link.Addrs()
	return a
}

// RemoteAddr returns the link's remote address.
func (s *Socket) RemoteAddr() net.Addr {
	if s == nil {
		return nil
	}
	_, a := s.link.Addrs()
	return a
}

// Stats returns the channel's numbers.
func (s *Socket) Stats() Stats {
	if s == nil {
		return Stats{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Traffic: Traffic{
			BytesSent: s.transmitted, BytesReceived: s.received, FramesSent: uint64(s.framesOut), FramesReceived: uint64(atomic.LoadUint32(&s.framesIn)),
			Stalls: uint64(s.stalls), WouldBlocks: uint64(s.blocked),
		},
		Unread: s.in.n + s.datagrams.bytes(), Created: time.Unix(0, s.created), LastActivity: time.Unix(0, max(s.lastActive, s.created)),
	}
	if d := s.datagrams; d != nil {
		st.DatagramsSent, st.DatagramsReceived, st.DatagramsDropped = d.sent, d.received, d.dropped
	}
	return st
}

// tell queues a notice for the peer. s.mu is held, and unlock must follow.
func (s *Socket) tell(n Notice) {
	s.link.Tell(s.port(), n)
	s.told = true
}

// unlock lets go of s.mu and sends what was queued while it was held.
func (s *Socket) unlock() {
	told := s.told
	s.told = false
	s.mu.Unlock()
	if told {
		s.link.Flush()
	}
}

func (s *Socket) fail(op string, err error) error { return &OpError{Op: op, URI: s.uri, Err: err} }

// Read waits for at least one byte, until the read deadline. It returns a bare
// io.EOF after the last byte of a peer that ended cleanly, and an *OpError in
// any other case. While it waits it may receive for the other channels of the
// link, too.
func (s *Socket) Read(p []byte) (int, error) {
	if s == nil {
		return 0, errNil
	}
	s.mu.Lock()
	defer s.unlock()
	for {
		switch {
		case s.closed:
			return 0, s.fail("read", net.ErrClosed)
		case s.rdead.expired:
			return 0, s.fail("read", os.ErrDeadlineExceeded)
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
			return 0, s.fail("read", s.rerr)
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
func (s *Socket) readable() bool {
	return s.got > 0 || s.in.n > 0 || s.rerr != nil || s.closed || s.rdead.expired || s.datagrams.waiting()
}

// await waits until a Read has no reason to wait any more. One Read at a time
// gets what comes straight into p; n is how much. s.mu is held, but not while
// it waits.
func (s *Socket) await(p []byte) (n int) {
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
	led := s.link.Lead(s.port())
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
func (s *Socket) unfollow() {
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
func (s *Socket) consumed(n int) {
	if s.rerr != nil {
		s.link.Shrink(s.port(), s.in.n)
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
func (s *Socket) grant() {
	at := now()
	more, repaid := s.link.Widen(s.port(), Pace{s.window, s.owed, s.in.n, time.Duration(at - s.granted), int(s.need)})
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

// CloseWrite ends this direction: the peer reads io.EOF after all that was
// written. Reading goes on. A Write under way returns net.ErrClosed with what
// it had sent. It does not block; the second call does nothing.
func (s *Socket) CloseWrite() error {
	if s == nil {
		return errNil
	}
	s.mu.Lock()
	defer s.unlock()
	s.finish()
	return nil
}

// finish ends this side's sending cleanly, once. s.mu is held.
func (s *Socket) finish() {
	if s.werr == nil {
		s.tell(Notice{Kind: Ended})
		s.endWrite(net.ErrClosed)
	}
}

// Close ends both directions. What was written is still delivered, and the
// peer reads io.EOF after it; what arrived and was not read is dropped, and
// the peer's writes fail. It does not block; the second call does nothing.
func (s *Socket) Close() error {
	if s == nil {
		return errNil
	}
	s.mu.Lock()
	defer s.unlock()
	if s.closed {
		return nil
	}
	s.finish()
	s.stop(CodeClosed)
	return nil
}

// Reset cuts the channel off: the peer reads what has reached it and then
// fails with a *ResetError of this code, as its writes do. It does not block.
func (s *Socket) Reset(code Code) error {
	if s == nil {
		return errNil
	}
	s.mu.Lock()
	defer s.unlock()
	if s.closed {
		return nil
	}
	s.stop(code)
	return nil
}

// stop closes the local end and tells the peer, unless the peer has ended and
// been told so already. s.mu is held.
func (s *Socket) stop(code Code) {
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
func (s *Socket) endRead(cause error) {
	if s.rerr == nil {
		s.rerr = cause
		s.link.Shrink(s.port(), s.in.n)
	}
	s.wakeReads()
}

// drop drops what waits unread; nothing more will arrive. s.mu is held.
func (s *Socket) drop() {
	if n := s.in.reset(); n > 0 {
		s.link.Hold(-n)
		s.link.Shrink(s.port(), 0)
	}
	if n := s.datagrams.reset(); n > 0 {
		s.link.Loose(-n)
	}
}

// wakeReads has Reads look again. s.mu is held.
func (s *Socket) wakeReads() {
	s.wakes.readers()
	if s.leading {
		s.link.Interrupt()
	}
}

// endWrite notes why nothing more can be sent. s.mu is held.
func (s *Socket) endWrite(cause error) {
	if s.werr == nil {
		s.werr = cause
		s.link.Advance(s.port(), -s.credit)
	}
	s.wakes.writers()
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.fail("set deadline", net.ErrClosed)
	}
	s.rdead.set(t, &s.mu, s.wakeReads)
	return nil
}

// SetWriteDeadline bounds Writes, also those under way. The channel stays
// usable after a Write that timed out; its n tells what was sent.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if s == nil {
		return errNil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.fail("set deadline", net.ErrClosed)
	}
	s.wdead.set(t, &s.mu, s.wakes.writers)
	return nil
}
