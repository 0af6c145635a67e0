// Package stream is the inside of a channel: its buffers, its credit, its ends, and
// all waiting. [Stream] has two sets of methods. The application's are Read, Write,
// TrySend, Close and their like, and package channel gives them to programs.
// The multiplexer's are in multiplexer.go. A *Stream and a *channel.Socket are one
// value under two types, so that neither side is shown what the other one calls.
//
// The package starts no goroutine and knows nothing of frames. All waiting is
// done in the application's calls, or in Link.Lead on their behalf. No method of the
// multiplexer blocks, so a receiver never waits for an application. Methods
// return causes, which package channel wraps.
//
// Lock order: Stream.mu is taken before any lock of the Link. A Link must not call a
// Stream while it holds a lock that its own methods take.
package stream

import (
	"errors"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// ErrWouldBlock, ErrTooLong: see package channel.
var (
	ErrWouldBlock = errors.New("would block")
	ErrTooLong    = errors.New("too long to be sent at once")
)

// ErrFlowControl is what Deliver returns when the peer sent more than its credit,
// and Grant when a grant overflows.
var ErrFlowControl = errors.New("flow control violated")

// Link is what a channel asks of the multiplexed socket it lives on. The
// channel's lock is held during each call but Flush, Lead and those about
// datagrams: none of the others may block or call the Stream.
type Link interface {
	// Push queues as much of p as there is room for, for sending as data of
	// the channel, and returns how much that was. Unless that was all,
	// the link will call the channel's Pull for the rest, in its turn.
	Push(p []byte) int
	// TryPush queues all of p, or nothing and returns false.
	TryPush(p []byte) bool
	// MaxPush is the length of the longest p that TryPush ever takes. It is a
	// constant of the link.
	MaxPush() int
	// Room reports whether TryPush would take n bytes now. If not, the link will
	// call the channel's Wake when that may have changed.
	Room(n int) bool
	// Took says that so many bytes of data were taken at once, by Push, TryPush
	// or Pull, and returns in how many frames they travel.
	Took(n int) (frames int)
	// Note counts for the link what the channel counts for itself.
	Note(what Event)
	// MaxDatagram returns the length of the longest datagram that can be sent
	// now; 0 where there are none. It is called without the channel's lock.
	MaxDatagram() int
	// SendDatagram sends p as a datagram of the channel, or not at all. It
	// is called without the channel's lock and does not keep p.
	SendDatagram(p []byte) error
	// Tell queues a notice for the peer, behind all data queued so far.
	Tell(n Notice)
	// Flush sends what was queued, or sees to it that it will be sent. It is
	// called after any of the above, without the channel's lock, and does not
	// block.
	Flush()
	// Lead has the caller, a Read, receive for the whole link as long as
	// the Stream Waits. False says that somebody else does that already.
	Lead() bool
	// Interrupt makes a Lead ask the Stream Waits again.
	Interrupt()
	// Expect says that n more (or, if negative, fewer) goroutines wait for what
	// the peer sends, beside those in Lead.
	Expect(n int)
	// Hold says that the channel holds n more (or, if negative, fewer) unread bytes.
	Hold(n int)
	// Loose is Hold for datagrams. False says that there is no room for n more.
	Loose(n int) bool
	// Shrink says that the channel will hold no more than so many unread bytes from
	// now on, those of datagrams apart.
	Shrink(to int)
	// Widen says how a channel is read whose peer is about to be granted what was
	// read, and returns by how many bytes the window is to grow, or to shrink if
	// negative: by less than was read. repaid is how much of the grant is for bytes
	// that Overdraw let in.
	Widen(p Pace) (more, repaid int)
	// Overdraw reports whether n bytes may be taken for which the peer had no
	// credit, after which the channel has had so many.
	Overdraw(n int, received uint64) bool
	// Advance returns how many of n bytes may be sent for which the peer has given
	// no credit yet. If fewer, the link will call the channel's Wake when that changes.
	// Negative n says that so many bytes, of those or with credit, will not be sent.
	Advance(n int) int
	// Addrs returns what LocalAddr and RemoteAddr report.
	Addrs() (local, remote net.Addr)
}

// Pace is how a channel is read: so many bytes within so much time, with such a
// window, and how many bytes are left unread. Wanted is how large the window is
// to be for a message of the peer; 0 where there is none.
type Pace struct {
	Window, Read, Unread int
	Within               time.Duration
	Wanted               int
}

// Event is what a channel and its link both count.
type Event int

// The events.
const (
	Stalled Event = iota // a Write begins to wait for credit
	Blocked              // a TrySend did not fit in
)

// Kind says what a Notice is about.
type Kind int

// The kinds of notice.
const (
	Ended   Kind = iota // this side sends no more
	Stopped             // this side reads no more and, if it had not Ended, sends no more
	Granted             // the peer may send N more bytes
	Wanted              // this side has a message of N bytes to send at once, and too little credit
)

// Notice is what a channel tells its peer besides data.
type Notice struct {
	Kind Kind
	Code uint32 // of Stopped, a channel.Code
	N    int    // of Granted and Wanted, bytes
}

// Params describe a new channel.
type Params struct {
	ID   uint16
	URI  string
	Link Link
	// Credit is how many bytes may be sent before the peer grants more.
	Credit int
	// Window is how many unread bytes are held at most; the peer must have
	// been told. 0 means that the peer knows no credit: see WithoutCredit,
	// with a limit of Limit bytes.
	Window, Limit int
}

// Stream is a channel. Its methods may be called concurrently, except Pull, which
// only the link's writer calls.
type Stream struct {
	// The fields are in an order that wastes no room: most channels are idle, and
	// there may be many.
	uri  string
	link Link
	id   uint16

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

// Open makes a zero Stream the channel of p. A Stream is not copied.
func (s *Stream) Open(p Params) {
	at := now()
	s.id, s.uri, s.link, s.credit, s.window, s.allowed, s.created, s.granted = p.ID, p.URI, p.Link, p.Credit, p.Window, p.Window, at, at
	if p.Window == 0 {
		s.unlimited, s.credit, s.allowed = true, math.MaxInt32, p.Limit
	}
}

// ID returns the channel's number on its link.
func (s *Stream) ID() uint16 { return s.id }

// URI returns the name under which the channel was opened.
func (s *Stream) URI() string { return s.uri }

// Addrs returns the link's addresses.
func (s *Stream) Addrs() (local, remote net.Addr) { return s.link.Addrs() }

// Counts are a channel's numbers since it was opened. Those of 32 bits wrap around.
type Counts struct {
	BytesSent, BytesReceived                  uint64 // datagrams included
	FramesSent, FramesReceived                uint32
	Stalls, WouldBlocks                       uint32
	DatagramsSent, DatagramsReceived, Dropped uint64
	Unread                                    int // bytes
	Created, LastActivity                     time.Time
}

// Counts returns the channel's numbers.
func (s *Stream) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := Counts{
		BytesSent: s.transmitted, BytesReceived: s.received, FramesSent: s.framesOut, FramesReceived: atomic.LoadUint32(&s.framesIn),
		Stalls: s.stalls, WouldBlocks: s.blocked,
		Unread: s.in.n + s.datagrams.bytes(), Created: time.Unix(0, s.created), LastActivity: time.Unix(0, max(s.lastActive, s.created)),
	}
	if d := s.datagrams; d != nil {
		c.DatagramsSent, c.DatagramsReceived, c.Dropped = d.sent, d.received, d.dropped
	}
	return c
}

// tell queues a notice for the peer. s.mu is held, and unlock must follow.
func (s *Stream) tell(n Notice) {
	s.link.Tell(n)
	s.told = true
}

// unlock lets go of s.mu and sends what was queued while it was held.
func (s *Stream) unlock() {
	told := s.told
	s.told = false
	s.mu.Unlock()
	if told {
		s.link.Flush()
	}
}
