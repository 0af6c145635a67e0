package multiplex

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"peerlink/channel"
	"peerlink/internal/escape"
	"peerlink/internal/stream"
)

// maxAsked is how many requests of this side wait for the peer's answer at
// once: what every acceptor must hold (docs/protocol.md, "Channel requests").
// So a burst of opens waits here and is not declined there.
const maxAsked = 256

// Request is a peer's wish for a channel. It must be decided by Accept or
// Decline; only the first decision counts. Methods may be called concurrently
// and do not block.
type Request struct {
	e       *entry
	decided bool // guarded by Socket.mu
	gone    bool // it is too late to decide; guarded by Socket.mu
	left    bool // the peer has ended and reads no more, but wrote before; guarded by Socket.mu
}

// errGone is the cause when a request is decided too late or twice.
var errGone = errors.New("multiplex: the request was withdrawn or is decided already")

// Open asks for a channel under name, 1 to 255 bytes of UTF-8 without control
// characters, and waits for the answer, at most until ctx ends. It asks for 256
// channels at once and waits with further ones. The error matches ErrDeclined,
// ErrBadName, ErrTooMany, ctx's cause, or is why the link ended.
func (s *Socket) Open(ctx context.Context, name string) (*channel.Socket, error) {
	answered := make(chan struct{})
	e, err := s.request(ctx, name, answered)
	if err != nil {
		return nil, err
	}
	s.expect(1)
	defer s.expect(-1)
	select {
	case <-answered:
	case <-ctx.Done():
		select {
		case <-answered: // both at once: the answer counts
		default:
			e.stream.Reset(uint32(channel.CodeCancelled))
			return nil, fmt.Errorf("multiplex: no answer to the request for channel %q: %w", name, context.Cause(ctx))
		}
	}
	s.mu.Lock()
	refused := e.refused
	s.mu.Unlock()
	if refused != nil {
		return nil, refused
	}
	return e.socket(), nil
}

// OpenEarly is Open without waiting for the answer: up to 64 KiB may be
// written at once, which saves a round trip. If the peer declines, what was
// written is lost, and Reads and Writes fail with an error that matches
// ErrDeclined. It waits only while 256 requests are unanswered, and for an id
// that is about to be free.
func (s *Socket) OpenEarly(ctx context.Context, name string) (*channel.Socket, error) {
	e, err := s.request(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	return e.socket(), nil
}

// request makes a channel of this side and asks the peer for it: at once if
// somebody waits until answered is closed, else with the first bytes.
func (s *Socket) request(ctx context.Context, name string, answered chan struct{}) (*entry, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	select {
	case s.asking <- struct{}{}:
	case <-s.done:
		return nil, s.Err()
	case <-ctx.Done():
		return nil, fmt.Errorf("multiplex: %d requests before channel %q are unanswered: %w", maxAsked, name, context.Cause(ctx))
	}
	for {
		e, freed, err := s.tryRequest(name, answered)
		s.flush()
		if err == nil && freed != nil {
			if err = s.waitFor(ctx, freed); err == nil {
				continue
			}
		}
		if err != nil {
			<-s.asking
			return nil, err
		}
		return e, nil
	}
}

// waitFor waits for a channel id to be free, to know what the peer can do, or to
// have told it of channels that were cut off.
func (s *Socket) waitFor(ctx context.Context, freed <-chan struct{}) error {
	s.expect(1)
	defer s.expect(-1)
	select {
	case <-freed:
		return nil
	case <-s.done:
		return s.Err()
	case <-ctx.Done():
		return fmt.Errorf("multiplex: waiting until one more channel may be asked for: %w", context.Cause(ctx))
	}
}

// tryRequest makes the channel, or returns what to wait for.
func (s *Socket) tryRequest(name string, answered chan struct{}) (e *entry, freed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.cause != nil:
		return nil, nil, s.cause
	case s.closing || s.draining:
		return nil, nil, net.ErrClosed
	case s.goingAway != nil:
		return nil, nil, s.goingAway
	case len(s.table) >= s.cfg.MaxChannels:
		return nil, nil, fmt.Errorf("%w: %d are open", ErrTooMany, len(s.table))
	}
	if short := s.crowdedLocked(); short != nil {
		return nil, short, nil
	}
	e = &entry{s: s, id: s.ids.last, basic: s.basic(), asked: time.Now().UnixNano()}
	if !s.startLocked(e) {
		if s.version.Load() == 0 {
			return nil, s.ready, nil // it may need less
		}
		return nil, nil, fmt.Errorf("%w: %d bytes wait unread or may come at once", ErrTooMany, s.promised)
	}
	id, ok := s.ids.get()
	if !ok {
		s.giveLocked(e, int(e.promise))
		if freed := s.fenceLocked(); freed != nil {
			return nil, freed, nil
		}
		return nil, nil, fmt.Errorf("%w: all %d ids of this side are in use", ErrTooMany, int(lastClientID))
	}
	e.id = id
	s.addLocked(e, name, 0)
	e.waits, e.answered = true, answered
	how := lazy
	if answered != nil {
		how = prompt
	}
	body := request{name: name, id: id, window: e.windowLocked()}.encode()
	if s.basic() {
		s.line.inOrder(controlID, body, how)
		s.line.keepBehind(e)
	} else {
		s.line.control(controlID, body, how)
	}
	return e, nil, nil
}

// fenceLocked sends the beacon behind which retired ids are free, and returns
// what is closed when it has come back; nil if no id is retired. s.mu is held.
func (s *Socket) fenceLocked() <-chan struct{} {
	if s.ids.freed == nil {
		if len(s.ids.retired) == 0 {
			return nil
		}
		s.ids.fenced, s.ids.retired = s.ids.retired, nil
		s.ids.freed = make(chan struct{})
		s.ids.fence = nonce()
		s.line.inOrder(protocolID, encodeBeacon(s.ids.fence, false), prompt)
	}
	return s.ids.freed
}

// addLocked makes a channel and puts it into the table. s.mu is held.
func (s *Socket) addLocked(e *entry, name string, credit int) {
	e.stream.Open(stream.Params{ID: uint16(e.id), URI: name, Link: e, Credit: credit, Window: e.windowLocked(), Limit: limitV1})
	s.table[e.id] = e
	s.peak = max(s.peak, len(s.table))
	s.cfg.Budget.enter(1)
}

// handleRequest takes a request or an answer of the peer.
func (s *Socket) handleRequest(q request) error {
	if q.answer {
		return s.handleAnswer(q)
	}
	if err := s.owed(0); err != nil { // of what the application has answered
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.cause != nil:
		return s.cause
	case q.id == controlID || q.id == protocolID || s.ours(q.id):
		return violation("request for channel %d, which is not the peer's to open", q.id)
	case s.table[q.id] != nil || s.leftLocked(q.id):
		return violation("request for channel %d, which exists", q.id)
	}
	e := &entry{s: s, id: q.id, basic: s.basic() || q.window == 0, asked: time.Now().UnixNano()}
	if code, no := s.refuseLocked(e, &q); no != "" { // the id is all that is kept of it
		s.declined.add(q.id)
		return s.replyNo(q.name, q.id, code, no)
	}
	s.addLocked(e, q.name, q.window)
	e.undecided = &Request{e: e}
	s.pending++
	s.requests <- e.undecided // has room: its capacity is MaxPending
	return nil
}

// refuseLocked promises a channel of the peer its first window, or says why it is
// declined at once. s.mu is held.
func (s *Socket) refuseLocked(e *entry, q *request) (code channel.Code, no string) {
	switch err := CheckName(q.name); {
	case err != nil:
		q.name = "(bad name)"
		return channel.CodeProtocol, err.Error()
	case s.closing || s.draining:
		return channel.CodeClosing, "closing"
	case len(s.table) >= s.cfg.MaxChannels:
		no = fmt.Sprintf("no more than %d channels", s.cfg.MaxChannels)
	case s.pending >= s.cfg.MaxPending:
		no = fmt.Sprintf("%d requests wait already", s.pending)
	case s.cancels.reached(time.Now(), maxCuts):
		no = fmt.Sprintf("%d channels in a second opened and cut off", maxCuts)
	case s.tightLocked() || !s.startLocked(e):
		no = "out of memory"
	}
	return channel.CodeResource, no
}

// declineLocked tells the peer no. That ends this direction; the other ends
// when the peer has heard, and its early bytes are dropped until then. s.mu is
// held. It returns an error if too many replies wait.
func (s *Socket) declineLocked(e *entry, code channel.Code, reason string) error {
	e.sentEnd, e.declined, e.condemned, e.left = true, true, true, time.Now().UnixNano()
	s.repayLocked(e, int(e.debt)) // what came early is dropped
	s.giveLocked(e, int(e.promise))
	err := s.replyNo(e.stream.URI(), e.id, code, reason)
	e.settleLocked()
	return err
}

// replyNo queues the answer that declines a request.
func (s *Socket) replyNo(name string, id channel.ID, code channel.Code, reason string) error {
	if s.basic() {
		code = 0 // version 1 has none
	}
	return s.reply(request{name: name, id: id, answer: true, reason: escape.Cap(reason, MaxReasonLen), code: code}, prompt)
}

// reply queues an answer to a request.
func (s *Socket) reply(q request, p pace) error {
	body := q.encode()
	s.line.control(controlID, body, p)
	return s.owed(headerLen + len(body))
}

// owed accounts for n bytes of frames that the peer provoked.
func (s *Socket) owed(n int) error {
	if !s.line.owe(n) {
		return violation("more than %d bytes of replies wait, and the peer reads nothing", maxReplies)
	}
	return nil
}

// handleAnswer takes the peer's decision. One for a channel that does not
// exist or was answered before is counted and changes nothing.
func (s *Socket) handleAnswer(q request) error {
	s.mu.Lock()
	e := s.table[q.id]
	if e == nil || !e.waits {
		defer s.mu.Unlock()
		return s.strayLocked("answer for channel %d, which asked for none", q.id)
	}
	s.mu.Unlock()
	if !q.accepted {
		no := &DeclinedError{Name: e.stream.URI(), Reason: q.reason, Code: q.code}
		e.stream.Fail(no)
		s.answer(e, no)
		return s.gaveUp(e)
	}
	n := q.window
	if s.plain.Load() {
		n = max(n, earlyCredit)
	}
	s.mu.Lock()
	e.told = true
	n -= s.repayLocked(e, n)
	s.mu.Unlock()
	switch {
	case s.cfg.Version < version2: // has no use for credit
	case q.window == 0:
		e.stream.WithoutCredit(limitV1)
	case n == 0:
		e.stream.Covered()
	default:
		if err := e.stream.Grant(n); err != nil {
			return violation("window of channel %d: %w", q.id, err)
		}
	}
	s.answer(e, nil)
	return nil
}

// gaveUp notes that the peer has nothing to do with a channel any more: it is
// answered by this side's end.
func (s *Socket) gaveUp(e *entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.gotEnd = true
	if e.sentEnd {
		e.settleLocked()
		return nil
	}
	e.endLocked(lazy) // the peer has left
	return s.owed(headerLen)
}

// answer wakes the opener of a channel, once.
func (s *Socket) answer(e *entry, refused error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.answerLocked(refused)
}

// answerLocked is answer while s.mu is held.
func (e *entry) answerLocked(refused error) {
	if e.waits {
		e.waits, e.refused = false, refused
		if refused != nil {
			e.s.repayLocked(e, int(e.debt))
		}
		if e.answered != nil {
			close(e.answered)
			e.answered = nil
		}
		<-e.s.asking
	}
}

// Accept waits for the peer's next request, until ctx or the link ends.
func (s *Socket) Accept(ctx context.Context) (*Request, error) {
	for {
		select {
		case r := <-s.requests:
			if s.open(r) {
				return r, nil
			}
		case <-s.done:
			return nil, s.Err()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// open reports whether there is anything to decide. If the peer took the
// request back before anybody saw it, its place is freed.
func (s *Socket) open(r *Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.gone && !r.decided {
		r.decided = true
		s.pending--
	}
	return !r.decided && s.cause == nil
}

// withdrawLocked makes a request one that cannot be decided any more. Its place
// is freed only when somebody has looked at it: what bounds a flood of opens
// and cancels is the pace of the deciders. s.mu is held.
func (e *entry) withdrawLocked() {
	if e.undecided != nil {
		e.undecided.gone = true
		e.s.repayLocked(e, int(e.debt))
	}
}

// Name returns the name that the peer asked for, at most 255 bytes of UTF-8
// without control characters.
func (r *Request) Name() string { return r.e.stream.URI() }

// decideLocked claims the decision; it fails if there is nothing to decide any more.
// Socket.mu is held.
func (r *Request) decideLocked() error {
	s := r.e.s
	if r.decided {
		return errGone
	}
	r.decided = true
	r.e.undecided = nil
	s.pending--
	switch {
	case s.cause != nil:
		return s.cause
	case r.gone:
		return errGone
	}
	return nil
}

// Accept opens the channel and tells the peer. Bytes that the peer sent early
// are there already.
func (r *Request) Accept() (*channel.Socket, error) {
	s := r.e.s
	defer s.flush()
	p := prompt // the peer waits for it
	if early, _ := r.e.stream.Stale(); early > 0 || s.follows.Load() == uint32(r.e.id) {
		p = lazy // the application's own bytes follow, or its Read flushes
	}
	var err error
	need := 0
	r.e.stream.Widen(func() (more, repaid int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err = r.decideLocked(); err == nil {
			more, repaid = r.acceptLocked(p)
		}
		need = s.needs[r.e]
		delete(s.needs, r.e)
		return more, repaid
	})
	if err != nil {
		return nil, err
	}
	if need > 0 {
		s.want(r.e, need)
	}
	return r.e.socket(), nil
}

// acceptLocked gives the channel its window and tells the peer. It returns by how
// much the window grows, and how much of that is for what came early. The channel's
// lock and Socket.mu are held: bytes that came in between would be early for this
// side alone.
func (r *Request) acceptLocked(p pace) (more, repaid int) {
	s, window := r.e.s, r.e.windowLocked()
	switch {
	case r.e.basic:
	case r.e.gotEnd: // what it holds is all that counts
		window = s.startingLocked()
	default:
		s.firstLocked(r.e, window+int(r.e.debt))
		more = r.e.windowLocked() - window
		repaid = s.repayLocked(r.e, more)
		window += more
	}
	// Its error would be that the peer reads nothing: the reader will find out.
	_ = s.reply(request{name: r.Name(), id: r.e.id, answer: true, accepted: true, window: window}, p)
	if r.left {
		r.e.endLocked(lazy)
	}
	return more, repaid
}

// Decline refuses the channel and tells the peer why, in at most 255 bytes for
// people to read.
func (r *Request) Decline(reason string) error { return r.DeclineWith(0, reason) }

// DeclineWith is Decline with a code by which the peer's program can decide: one
// of the application's own, from channel.CodeUser up, or the protocol's. A peer
// of version 1 is told the reason only.
func (r *Request) DeclineWith(code channel.Code, reason string) error {
	s := r.e.s
	s.mu.Lock()
	if err := r.decideLocked(); err != nil {
		s.mu.Unlock()
		return err
	}
	_ = s.declineLocked(r.e, code, reason) // as with Accept
	s.mu.Unlock()
	s.flush()
	r.e.discard(&DeclinedError{Name: r.Name(), Reason: reason, Code: code})
	return nil
}

// orphaned reports whether the link has ended before the request was decided, so
// that no application will ever have the channel.
func (e *entry) orphaned() bool {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	return e.undecided != nil && e.s.cause != nil
}

// discard ends a channel of which no application has the Socket.
func (e *entry) discard(cause error) {
	e.stream.Fail(cause)
	e.stream.Close() // drops what has arrived
}
