package channel

import (
	"fmt"
	"io"
	"math"
	"net"
	"sync/atomic"
	"time"
)

// ID numbers a channel on its link. 0 and 0xffff are the link's own channels
// (docs/protocol.md, "Channels").
type ID uint16

// Link is what a channel asks of the multiplexed socket it lives on. The
// channel's lock is held during each call but Flush, Lead and those about
// datagrams: none of the others may block or call a Port.
type Link interface {
	// Push queues as much of p as there is room for, for sending as data of
	// the port's channel, and returns how much that was. Unless that was all,
	// the link will call the port's Pull for the rest, in its turn.
	Push(port *Port, p []byte) int
	// TryPush queues all of p, or nothing and returns false.
	TryPush(port *Port, p []byte) bool
	// MaxPush is the length of the longest p that TryPush ever takes. It is a
	// constant of the link.
	MaxPush() int
	// Room reports whether TryPush would take n bytes now. If not, the link will
	// call the port's Wake when that may have changed.
	Room(port *Port, n int) bool
	// Took says that so many bytes of data were taken at once, by Push, TryPush
	// or Pull, and returns in how many frames they travel.
	Took(n int) (frames int)
	// Note counts for the link what the channel counts for itself.
	Note(what Event)
	// MaxDatagram returns the length of the longest datagram that can be sent
	// now; 0 where there are none. It is called without the channel's lock.
	MaxDatagram() int
	// SendDatagram sends p as a datagram of the port's channel, or not at all. It
	// is called without the channel's lock and does not keep p.
	SendDatagram(port *Port, p []byte) error
	// Tell queues a notice for the peer, behind all data queued so far.
	Tell(port *Port, n Notice)
	// Flush sends what was queued, or sees to it that it will be sent. It is
	// called after any of the above, without the channel's lock, and does not
	// block.
	Flush()
	// Lead has the caller, a Read, receive for the whole link as long as
	// port.Waits. False says that somebody else does that already.
	Lead(port *Port) bool
	// Interrupt makes a Lead ask port.Waits again.
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
	Shrink(port *Port, to int)
	// Widen says how a port is read whose peer is about to be granted what was
	// read, and returns by how many bytes the window is to grow, or to shrink if
	// negative: by less than was read. repaid is how much of the grant is for bytes
	// that Overdraw let in.
	Widen(port *Port, p Pace) (more, repaid int)
	// Overdraw reports whether n bytes may be taken for which the peer had no
	// credit, after which the channel has had so many.
	Overdraw(port *Port, n int, received uint64) bool
	// Advance returns how many of n bytes may be sent for which the peer has given
	// no credit yet. If fewer, the link will call the port's Wake when that changes.
	// Negative n says that so many bytes, of those or with credit, will not be sent.
	Advance(port *Port, n int) int
	// Addrs returns what the Socket reports as its addresses.
	Addrs() (local, remote net.Addr)
}

// Pace is how a port is read: so many bytes within so much time, with such a
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
	Code Code // of Stopped
	N    int  // of Granted and Wanted, bytes
}

// Params describe a new channel.
type Params struct {
	ID   ID
	URI  string
	Link Link
	// Credit is how many bytes may be sent before the peer grants more.
	Credit int
	// Window is how many unread bytes are held at most; the peer must have
	// been told. 0 means that the peer knows no credit: see WithoutCredit,
	// with a limit of Limit bytes.
	Window, Limit int
}

// Port is the multiplexer's end of a channel. Its methods never block and may
// be called concurrently, except Pull, which only the link's writer calls.
type Port Socket

func (p *Port) socket() *Socket { return (*Socket)(p) }

// New makes a channel and returns its two ends.
func New(p Params) (*Socket, *Port) {
	s := &Socket{id: p.ID, uri: p.URI, link: p.Link, credit: p.Credit, window: p.Window, allowed: p.Window, created: now()}
	s.granted = s.created
	if p.Window == 0 {
		s.unlimited, s.credit, s.allowed = true, math.MaxInt32, p.Limit
	}
	return s, s.port()
}

// ID returns the channel's number on its link.
func (p *Port) ID() ID { return p.socket().id }

// Socket returns the application's end.
func (p *Port) Socket() *Socket { return p.socket() }

// Framed counts a frame of the peer, whose bytes follow by Deliver, in pieces
// perhaps.
func (p *Port) Framed() { atomic.AddUint32(&p.framesIn, 1) }

// Room returns where the Read in Link.Lead wants the next n bytes, as far as it
// does; nothing if it wants none. They may be put there until that Lead returns,
// and are then given to Deliver as they lie there.
func (p *Port) Room(n int) []byte {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.leading || s.rerr != nil || s.in.n > 0 {
		return nil
	}
	return s.want[:min(len(s.want), n)]
}

// Deliver hands over bytes from the peer; they are copied, unless they are where
// Room said. woke says that a Read waited for them. It returns an error that
// matches ErrFlowControl, and takes nothing, if the peer had no credit for them.
// What arrives after the local end was closed is dropped.
func (p *Port) Deliver(b []byte) (woke bool, err error) {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	if over := len(b) - s.allowed; over > 0 {
		if !s.link.Overdraw(p, over, s.received-s.datagrams.taken()+uint64(len(b))) {
			return false, fmt.Errorf("%w: %d bytes with a credit of %d", ErrFlowControl, len(b), s.allowed)
		}
		s.allowed += over
	}
	s.allowed -= len(b)
	s.received += uint64(len(b))
	s.lastActive = now()
	if s.rerr != nil {
		return false, nil
	}
	if s.in.n == 0 && len(s.want) > 0 && len(b) > 0 {
		n := len(b)
		if &b[0] != &s.want[0] {
			n = copy(s.want, b)
		}
		s.want = s.want[n:]
		b = b[n:]
		woke = s.got == 0
		s.got += n
		s.unfollow()
	}
	if len(b) > 0 {
		s.in.write(b)
		s.link.Hold(len(b))
	}
	if s.reading > 0 {
		s.wakes.readers()
	}
	return woke, nil
}

// Waits reports whether the Read that leads still has to wait.
func (p *Port) Waits() bool {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leading && !s.readable()
}

// End says that the peer sends no more: after what is buffered, io.EOF.
func (p *Port) End() {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endRead(io.EOF)
}

// Stop says that the peer reads no more: writes fail with cause from now on.
func (p *Port) Stop(cause error) {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endWrite(cause)
}

// Widen adds to the window what f returns, of which repaid is for bytes that have
// come already. f tells the peer. The channel's lock is held while it runs.
func (p *Port) Widen(f func() (more, repaid int)) {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	more, repaid := f()
	s.window += more
	s.allowed += more - repaid
	if s.rerr != nil { // meanwhile
		s.link.Shrink(p, s.in.n)
	}
}

// Return takes n bytes of credit back that the peer will not use, and does not
// owe it any more what was read. More than the peer has, or a whole window, is
// an error that matches ErrFlowControl.
func (p *Port) Return(n int) error {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.allowed + s.in.n + s.got - n // got: a Read is about to have it
	if n <= 0 || n > s.allowed || left == 0 {
		return fmt.Errorf("%w: %d given back of %d", ErrFlowControl, n, s.allowed)
	}
	s.allowed -= n
	s.window, s.owed = left, 0
	if s.rerr == nil {
		s.link.Shrink(p, s.window)
	}
	return nil
}

// Unused gives up what credit there is above so many bytes, if nothing has gone
// over the channel for so long and nothing waits to be sent. If there is some, tell
// is called with how much, while the channel's lock is held: it queues the news for
// the peer, ahead of what is sent from then on.
func (p *Port) Unused(above int, idle time.Duration, tell func(n int)) {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.credit - above
	if n <= 0 || s.unlimited || s.writing || s.werr != nil || now()-max(s.lastActive, s.created) < int64(idle) {
		return
	}
	s.credit -= n
	tell(n)
}

// Stale returns how many bytes wait unread, and for how long the application
// has not read so much that it was granted again.
func (p *Port) Stale() (unread int, age time.Duration) {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in.n + s.datagrams.bytes(), time.Duration(now() - s.granted)
}

// Drop is Fail, but what waits unread is dropped. A clean end behind dropped
// bytes is none: Reads fail with cause then, too.
func (p *Port) Drop(cause error) {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rerr == io.EOF && s.in.n > 0 {
		s.rerr = nil
	}
	s.endRead(cause)
	s.endWrite(cause)
	s.drop()
}

// Fail ends both directions with cause, which must not be io.EOF. Whatever
// ended before keeps its own reason, and buffered bytes remain readable.
func (p *Port) Fail(cause error) {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endRead(cause)
	s.endWrite(cause)
}

// Covered says that the peer has given credit, all of it for what was sent
// before: what is needed now it is to be told again.
func (p *Port) Covered() {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = false
	s.wakes.writers()
}

// Grant adds to what may be sent. n must be positive; a sum past 2³¹-1 is an
// error that matches ErrFlowControl.
func (p *Port) Grant(n int) error {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	if n <= 0 || n > math.MaxInt32-s.credit {
		return fmt.Errorf("%w: %d granted on top of %d", ErrFlowControl, n, s.credit)
	}
	s.credit += n
	s.wanted = false
	s.wakes.writers()
	return nil
}

// Want says that the peer has a message of n bytes to send at once: what was read
// is granted, also later, as soon as that is enough, and more where the window is
// too small. False says that it is still too small. Flush must follow.
func (p *Port) Want(n int) bool {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rerr != nil || s.window == 0 {
		return true
	}
	s.need = int32(n) // also with enough credit: data that this has overtaken uses some of it
	if n > s.allowed {
		s.grant()
	}
	return n <= s.window
}

// Needs returns what the last Want asked for, where that is not granted yet; 0
// otherwise.
func (p *Port) Needs() int {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(s.need)
}

// Wake has Writes look again whether they may go on.
func (p *Port) Wake() {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakes.writers()
}

// WithoutCredit tells that the peer knows no credit: what is sent is bounded by
// the link alone, and the peer may have limit bytes unread.
func (p *Port) WithoutCredit(limit int) {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unlimited, s.credit = true, math.MaxInt32
	s.window, s.allowed = 0, limit
	s.wakes.writers()
}

// Pull moves waiting data into dst, as much as fits, and reports whether more
// waits. 0, false means that the writer has given up meanwhile.
func (p *Port) Pull(dst []byte) (n int, more bool) {
	s := p.socket()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.werr != nil {
		return 0, false // an end may have been queued already: nothing may follow it
	}
	n = copy(dst, s.pending)
	if n == 0 {
		return 0, false
	}
	s.sent(n)
	s.pending = s.pending[n:]
	if len(s.pending) == 0 {
		s.wakes.writers()
	}
	return n, len(s.pending) > 0
}
