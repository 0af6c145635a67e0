package multiplex

import (
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	"peerlink/channel"
	"peerlink/internal/packed"
)

// A link reads into a small buffer while little comes, and into a large one,
// which holds the longest frame, while there is more.
const (
	smallBuf = 2 << 10
	maxQuiet = 16 // reads of less than smallBuf, after which the large one is given back
	bigBuf   = headerLen + maxBody + 1
)

var bigPool = sync.Pool{New: func() any { return new([bigBuf]byte) }}

// Messages about channels that do not exist may have been under way when the
// channel ended: so many are let pass beside so many for each channel that has
// ended (a reset and the credit of a window, told in eighths).
const (
	lateFrames     = 100
	latePerChannel = 9
)

// limitV1 is what a peer without credit may have unread per channel.
const limitV1 = 4 << 20

// intake is what has been read and not handled yet. It belongs to whoever reads
// (see baton).
type intake struct {
	buf   []byte
	r, w  int  // buf[r:w] is not handled yet
	need  int  // bytes that must be there at once, to go on
	quiet int  // how many reads in a row have brought little
	begun bool // the first frame has been seen
	msgs  *packed.Reader

	// The data frame under way: its channel, how much of it is still to come, and
	// whether it is dropped.
	e    *entry
	left int
	drop bool
	bulk bool // it was large, and so is the next one, probably
}

// room returns where to read to.
func (in *intake) room() []byte {
	if in.r == in.w {
		in.r, in.w = 0, 0
		switch {
		case in.quiet == 0 && len(in.buf) < bigBuf:
			in.buf = bigPool.Get().(*[bigBuf]byte)[:]
		case in.quiet >= maxQuiet && len(in.buf) == bigBuf:
			bigPool.Put((*[bigBuf]byte)(in.buf))
			in.buf = nil
		}
	}
	if in.buf == nil {
		in.buf, in.quiet = make([]byte, smallBuf), max(in.quiet, 1)
	}
	if in.need > len(in.buf) {
		big := bigPool.Get().(*[bigBuf]byte)[:]
		in.w = copy(big, in.buf[in.r:in.w])
		in.r, in.buf = 0, big
	}
	if in.r > 0 && len(in.buf)-in.r < max(in.need, headerLen) {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	return in.buf[in.w:]
}

// unless is err, unless bytes came beside it: then it comes again.
func unless(came bool, err error) error {
	if came {
		return nil
	}
	return err
}

// read reads from the conn once.
func (in *intake) read(conn net.Conn) error {
	p := in.room()
	n, err := conn.Read(p)
	in.w += n
	if in.quiet++; n >= min(smallBuf, len(p)) {
		in.quiet = 0
	}
	return unless(n > 0, err)
}

// handle handles what is in the intake: control frames that are complete, and
// data as it comes.
func (s *Socket) handle(in *intake) error {
	for {
		b := in.buf[in.r:in.w]
		if in.left > 0 {
			if len(b) == 0 {
				return nil
			}
			k := min(in.left, len(b))
			in.drop = in.drop || !s.deliver(in.e, b[:k])
			in.left -= k
			in.r += k
			continue
		}
		if in.need = headerLen; len(b) < in.need {
			return nil
		}
		id, n := parseHeader(b)
		messages := id == controlID || id == protocolID
		if messages {
			if in.need += n; len(b) < in.need {
				return nil
			}
		}
		in.r += headerLen
		if err := s.handleFrame(in, id, n, messages); err != nil {
			return err
		}
	}
}

// handleFrame handles a frame of messages, or begins one of data.
func (s *Socket) handleFrame(in *intake, id channel.ID, n int, messages bool) error {
	s.stats.framesIn.Add(1)
	s.stats.bytesIn.Add(uint64(headerLen + n))
	first := !in.begun
	in.begun = true
	if first && id != protocolID {
		if err := s.hello(version1); err != nil {
			return err
		}
	}
	if !messages {
		return s.beginData(in, id, n)
	}
	body := in.buf[in.r : in.r+n]
	in.r += n
	if id == controlID {
		next := controlID
		if in.w-in.r >= headerLen {
			next, _ = parseHeader(in.buf[in.r:])
		}
		s.follows.Store(uint32(next))
	}
	if err := s.handleMessages(in.msgs, id, body); err != nil {
		return err
	}
	s.quench()
	if first && s.version.Load() == 0 { // of the protocol channel, but no hello
		return s.hello(version1)
	}
	return nil
}

// handleMessages parses a frame of the control or the protocol channel.
func (s *Socket) handleMessages(r *packed.Reader, id channel.ID, body []byte) error {
	r.Reset(body)
	for r.Len() > 0 {
		if id == controlID {
			q, err := decodeRequest(r)
			if err != nil {
				return violation("control frame: %w", err)
			}
			if err := s.handleRequest(q); err != nil {
				return err
			}
			continue
		}
		m, err := decodeMessage(r)
		if err != nil {
			return violation("protocol frame: %w", err)
		}
		if err := s.handleMessage(m); err != nil {
			return err
		}
	}
	return nil
}

// beginData finds the channel of a data frame, or takes an end.
func (s *Socket) beginData(in *intake, id channel.ID, n int) error {
	e, drop, err := s.receiver(id)
	switch {
	case err != nil:
		return err
	case n == 0:
		return s.handleEnd(id, e)
	}
	s.line.heard.Store(true)
	if e != nil {
		e.stream.Framed()
	}
	in.e, in.left, in.drop, in.bulk = e, n, drop, n >= directLen
	return nil
}

// findLocked returns the channel of an id; nil for one that this side is done with,
// and for one that does not exist, which is let pass a bounded number of times. s.mu is
// held.
func (s *Socket) findLocked(id channel.ID) (*entry, error) {
	if e := s.table[id]; e != nil || s.leftLocked(id) {
		return e, nil
	}
	return nil, s.strayLocked("message about channel %d, which does not exist", id)
}

// receiver is findLocked for a data frame or an end. drop says that data is to be
// dropped.
func (s *Socket) receiver(id channel.ID) (e *entry, drop bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err = s.findLocked(id)
	switch {
	case e == nil:
		return nil, true, err
	case e.gotEnd:
		return nil, true, violation("frame of channel %d after its end", id)
	}
	return e, e.condemned || e.cut, nil
}

// strayLocked counts a message about a channel that does not exist. s.mu is held.
func (s *Socket) strayLocked(format string, args ...any) error {
	s.strays++
	if s.strays > lateFrames+latePerChannel*s.ended {
		return violation("%d late messages, the last: %s", s.strays, fmt.Sprintf(format, args...))
	}
	return nil
}

// deliver hands data to a channel. If the peer breaks the channel's bounds, the
// channel is reset, the link lives, and the answer is false: no more of that.
func (s *Socket) deliver(e *entry, b []byte) bool {
	if s.plain.Load() && s.full(len(b)) && !s.relieve(e, len(b)) {
		return false
	}
	woke, err := e.stream.Deliver(b)
	if err != nil {
		s.condemn(e, channel.CodeFlowControl)
		return false
	}
	s.progress.Add(1)
	s.baton.saw(&e.stream, woke)
	if s.baton.makesWay(&e.stream, len(b), woke) {
		runtime.Gosched()
	}
	return true
}

// condemn resets a channel because of what the peer did on it.
func (s *Socket) condemn(e *entry, code channel.Code) {
	e.stream.Fail(&channel.ResetError{Code: code})
	s.mu.Lock()
	if e.condemned {
		s.mu.Unlock()
		return // the peer has been told
	}
	e.condemned = true
	orphan := e.undecided != nil
	e.withdrawLocked()
	e.stopLocked(code)
	s.mu.Unlock()
	if orphan {
		e.stream.Close() // no application will ever drop what it holds
	}
}

// handleEnd takes the clean end of the peer's direction.
func (s *Socket) handleEnd(id channel.ID, e *entry) error {
	s.mu.Lock()
	if e == nil {
		defer s.mu.Unlock()
		s.endedLocked(id)
		return nil
	}
	e.gotEnd = true
	s.mu.Unlock()
	e.stream.End()
	s.mu.Lock()
	defer s.mu.Unlock()
	e.settleLocked()
	return nil
}

// handleReset takes the peer's reset: it reads no more, and sends no more
// unless it had ended cleanly before. It is answered by this side's end.
func (s *Socket) handleReset(m message) error {
	cause := &channel.ResetError{Code: m.code, Remote: true}
	s.mu.Lock()
	e, err := s.findLocked(m.id)
	if e == nil {
		defer s.mu.Unlock()
		if s.endedLocked(m.id) {
			err = s.floodLocked()
		}
		return err
	}
	r, ended := e.undecided, e.gotEnd
	if s.ours(m.id) {
		s.repayLocked(e, int(e.debt)) // it has dropped what was sent early
	}
	switch {
	case !ended:
		e.withdrawLocked()
		if !s.ours(m.id) && time.Since(time.Unix(0, e.asked)) < time.Second {
			err = s.floodLocked()
		}
	case r != nil:
		r.left = true // what it wrote is still to be seen: the answer comes with the decision
	}
	s.mu.Unlock()
	switch {
	case ended:
		e.stream.Stop(cause)
	case r != nil:
		e.discard(cause)
	default:
		e.stream.Fail(cause)
	}
	s.answer(e, cause)
	if err != nil || ended && r != nil {
		return err
	}
	return s.gaveUp(e)
}

// handleMessage calls one handler per kind of protocol message.
func (s *Socket) handleMessage(m message) error {
	switch m.kind {
	case 'v':
		if s.version.Load() == 0 { // only the first counts
			s.features.Store(m.features)
		}
		return s.hello(m.version)
	case 'p':
		return s.handleBeacon(m)
	case 'w':
		return s.handleGrants(m.grants)
	case 'b':
		return s.handleAsk(m.above)
	case 'u':
		return s.handleReturns(m.grants)
	case 'n':
		return s.handleNeeds(m.grants)
	case 'x':
		return s.handleReset(m)
	case 'g':
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.goingAway == nil {
			s.goingAway = &GoingAwayError{Code: m.code, Reason: m.reason}
			s.leaveLocked()
		}
		if m.draining {
			return nil
		}
		// Nothing follows it: the reader ends the link, behind all that was read.
		return s.goingAway
	default: // of a version to come
		return nil
	}
}

// hello notes the peer's version; only the first counts.
func (s *Socket) hello(version int) error {
	if s.version.Load() != 0 {
		return nil
	}
	if version < s.cfg.MinVersion {
		return violation("the peer speaks version %d, and here the lowest allowed is %d", version, s.cfg.MinVersion)
	}
	s.learn(min(version, s.cfg.Version))
	s.version.Store(int32(min(version, s.cfg.Version)))
	close(s.ready)
	if s.version.Load() >= version2 {
		s.startBeacons()
	}
	return nil
}

// handleGrants takes credit for channels.
func (s *Socket) handleGrants(gs []grant) error {
	for _, g := range gs {
		covered := false
		s.mu.Lock()
		e, err := s.findLocked(g.id)
		if e != nil && s.ours(g.id) && e.debt > 0 && g.n > 0 {
			g.n -= s.repayLocked(e, g.n)
			e.settleLocked()
			covered = g.n == 0
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
		switch {
		case e == nil:
			continue
		case covered:
			e.stream.Covered()
			continue
		}
		if err := e.stream.Grant(g.n); err != nil {
			return violation("credit for channel %d: %w", g.id, err)
		}
		s.progress.Add(1)
	}
	return nil
}
