package webrtc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"peerlink/identity"
)

const (
	// maxRefusals bounds the refusals being sent: to refuse costs as much as to
	// call, and further callers run into their time-out.
	maxRefusals = 16
	// receiveBackoff is the pause after a signaller's passing failure, doubled
	// up to maxReceiveBackoff.
	receiveBackoff    = 50 * time.Millisecond
	maxReceiveBackoff = 5 * time.Second
	// seenKept is how many call ids are remembered. A repeated offer that is
	// older was refused by the signaller for its age.
	seenKept = 4096
)

// seenCalls remembers the last offers, so that a repeated one is ignored even
// after its call has ended.
type seenCalls struct {
	set  map[callID]struct{}
	ring [seenKept]callID
	next int
}

// add returns false where id had been seen.
func (s *seenCalls) add(id callID) bool {
	if _, ok := s.set[id]; ok {
		return false
	}
	if s.set == nil {
		s.set = make(map[callID]struct{})
	}
	delete(s.set, s.ring[s.next])
	s.ring[s.next] = id
	s.next = (s.next + 1) % seenKept
	s.set[id] = struct{}{}
	return true
}

// visit is the callee's side of one offer.
type visit struct {
	id     callID
	from   identity.Peer
	cancel context.CancelCauseFunc
	ctx    context.Context
	again  chan struct{} // the offer came once more; holds 1
	donec  chan struct{} // closed when it is over
	came   bool          // it ended in a stream; before donec is closed
	s      *session      // under Transport.mu; nil before the answer
}

// waitFor returns when the visit is over and the caller had time to see that
// it has a stream.
func (v *visit) waitFor(ctx context.Context) error {
	select {
	case <-v.donec:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if v.came && !wait(ctx, crossedGrace) {
		return context.Cause(ctx)
	}
	return nil
}

// listen reads signals until the Transport or the signaller is closed.
func (t *Transport) listen(ctx context.Context) {
	defer close(t.deafc)
	pause := receiveBackoff
	for {
		from, msg, err := t.cfg.Signaller.Receive(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, net.ErrClosed):
			t.log.Warn("webrtc: the signaller has ended, nobody can call this device", "err", err)
			return
		case err != nil:
			t.log.Warn("webrtc: receive a signal", "err", err, "again in", pause)
			if !wait(ctx, pause) {
				return
			}
			pause = min(2*pause, maxReceiveBackoff)
		default:
			pause = receiveBackoff
			if err := t.receive(from, msg); err != nil {
				t.ignored.Add(1)
				t.log.Debug("webrtc: signal ignored", "from", from.Device, "err", err)
			}
		}
	}
}

// wait returns false when ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// receive does not block: it runs on the loop that reads all signals.
func (t *Transport) receive(from identity.Peer, b []byte) error {
	m, err := decode(b, reachableOn(t.cfg.Loopback))
	if err != nil {
		return err
	}
	switch m.kind {
	case kindOffer:
		return t.handleOffer(from, m)
	case kindAnswer, kindRefuse:
		return t.handleAnswer(from, m)
	case kindCandidates:
		t.handleCandidates(from, m)
		return nil
	}
	return fmt.Errorf("webrtc: a signal of %s", m.kind)
}

var errNoCall = errors.New("no such call runs with this device")

// handleAnswer: an answer counts if it is the first one of the device that was
// called, to a call that still runs. A refusal may also be the caller's own.
func (t *Transport) handleAnswer(from identity.Peer, m *message) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v := t.incoming[m.id]; v != nil && v.from.Device == from.Device && m.kind == kindRefuse {
		v.cancel(errors.New("the caller has withdrawn"))
		return nil
	}
	c := t.outgoing[m.id]
	if c == nil || c.s.peer != from.Device || c.answered {
		return errNoCall
	}
	c.answered = true
	c.answerc <- m
	return nil
}

// handleCandidates passes the peer's further candidates on, or keeps them for
// an offer that they have overtaken.
func (t *Transport) handleCandidates(from identity.Peer, m *message) {
	t.mu.Lock()
	s := t.with(from.Device, m.id)
	if s == nil && !t.closed {
		t.aside.Put(from.Device, m.id, m.candidates, time.Now())
	}
	t.mu.Unlock()
	if s != nil {
		s.add(m.candidates)
	}
}

// with returns the session of a call with a device, if it has one already. t.mu
// is held.
func (t *Transport) with(peer identity.DeviceID, id callID) *session {
	var s *session
	if c := t.outgoing[id]; c != nil {
		s = c.s
	} else if v := t.incoming[id]; v != nil {
		s = v.s
	}
	if s == nil || s.peer != peer {
		return nil
	}
	return s
}

func (t *Transport) handleOffer(from identity.Peer, m *message) error {
	v, err := t.admit(from, m)
	var busy *busyError
	switch {
	case errors.As(err, &busy):
		t.refuse(from, m.id, busy.Error())
		return nil
	case err != nil:
		return err
	case v == nil: // a repetition may know further candidates
		t.handleCandidates(from, m)
		return nil
	}
	go t.serve(v, m) // admit has reserved the goroutine
	return nil
}

// busyError refuses an offer for lack of room.
type busyError struct{ what string }

// Error is what the caller is told.
func (e *busyError) Error() string { return "busy: " + e.what }

// goesFirst says whose offer stands when two devices call each other at once
// and neither is more polite: that of the smaller id, which is also the link
// that both managers prefer.
func goesFirst(a, b identity.DeviceID) bool { return string(a[:]) < string(b[:]) }

// stands says whether this device's call goes on when a device that it calls
// comes with an offer. Both sides ask this of the same two offers, and only one
// of them finds its own to stand: a device that does not tell how firm it is
// does not read it either.
func (t *Transport) stands(from identity.DeviceID, offer *message) bool {
	mine := t.cfg.Politeness.firmness()
	if offer.firmness == 0 || offer.firmness == mine {
		return goesFirst(t.cfg.Identity.DeviceID(), from)
	}
	return mine > offer.firmness
}

// admit takes a slot and registers an offer. A repeated one gives nil.
func (t *Transport) admit(from identity.Peer, m *message) (*visit, error) {
	me := t.cfg.Identity.DeviceID()
	t.mu.Lock()
	defer t.mu.Unlock()
	if v := t.incoming[m.id]; v != nil && v.from.Device == from.Device {
		signal(v.again)
		return nil, nil
	}
	crossed := t.unanswered(from.Device)
	switch {
	case t.closed:
		return nil, errClosed
	case from.Device == me:
		return nil, errors.New("an offer of this device itself")
	case len(crossed) > 0 && t.stands(from.Device, m):
		return nil, errors.New("the device called while it was being called, and gives way")
	case t.taken >= t.cfg.MaxCalls:
		return nil, &busyError{"too many calls"}
	case t.slots[from.Device] >= t.cfg.MaxPerPeer:
		return nil, &busyError{"too many calls of this device"}
	case !t.seen.add(m.id):
		return nil, errors.New("an offer that was served before")
	}
	v := &visit{id: m.id, from: from, again: make(chan struct{}, 1), donec: make(chan struct{})}
	v.ctx, v.cancel = context.WithCancelCause(t.closing)
	t.incoming[m.id] = v
	t.slots[from.Device]++
	t.taken++
	for _, c := range crossed {
		c.answered = true
		c.crossc <- v
	}
	t.running.Add(1)
	return v, nil
}

// unanswered are this side's calls to a device. t.mu is held.
func (t *Transport) unanswered(peer identity.DeviceID) []*call {
	var out []*call
	for _, c := range t.outgoing {
		if c.s.peer == peer && !c.answered {
			out = append(out, c)
		}
	}
	return out
}

// release gives a caller's slot back.
func (t *Transport) release(peer identity.DeviceID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken--
	if t.slots[peer]--; t.slots[peer] == 0 {
		delete(t.slots, peer)
	}
}

// refuse tells a caller no, if not too many are being told.
func (t *Transport) refuse(from identity.Peer, id callID, reason string) {
	select {
	case t.refusec <- struct{}{}:
	default:
		return
	}
	if !t.spawn(func(ctx context.Context) {
		defer func() { <-t.refusec }()
		ctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
		defer cancel()
		t.say(ctx, from.Device, &message{kind: kindRefuse, id: id, reason: reason})
	}) {
		<-t.refusec
	}
}

// serve answers one offer. The slot goes with the stream to Accept, or back.
func (t *Transport) serve(v *visit, m *message) {
	defer t.running.Done()
	ctx, cancel := context.WithTimeout(v.ctx, t.cfg.Timeout)
	defer cancel()
	defer v.cancel(nil)
	conn, peer, err := t.answer(ctx, v, m)
	t.mu.Lock()
	delete(t.incoming, v.id)
	t.mu.Unlock()
	if err != nil {
		t.log.Debug("webrtc: call failed", "from", v.from.Device, "err", err)
		t.release(v.from.Device)
	} else {
		v.came = true
		t.acceptc <- accepted{conn, peer}
	}
	close(v.donec)
}

func (t *Transport) answer(ctx context.Context, v *visit, m *message) (*Conn, identity.Peer, error) {
	if err := t.wanted(ctx, v.from); err != nil {
		t.refuse(v.from, v.id, err.Error())
		return nil, identity.Peer{}, err
	}
	s, err := t.newSession(ctx, callee, v.id, v.from.Device)
	if err != nil {
		return nil, identity.Peer{}, err
	}
	if unproven(v.from) {
		s.admit = t.wanted
	}
	conn, peer, err := t.meet(ctx, v, s, m)
	if err != nil {
		s.hangUp()
	}
	return conn, peer, err
}

// wanted asks the trust store and then the decision. Of a caller whom nobody
// has proven it only looks at what its name may decide: the rest is asked once
// it has proven itself.
func (t *Transport) wanted(ctx context.Context, from identity.Peer) error {
	if unproven(from) {
		if t.cfg.Trust != nil && t.cfg.Trust.Decision(from.Device) == identity.Banned {
			return errors.New("not trusted")
		}
		return nil
	}
	if err := t.cfg.Trust.Check(from); err != nil {
		return errors.New("not trusted")
	}
	if f := t.decide.Load(); f != nil {
		return (*f)(ctx, from)
	}
	return nil
}

func (t *Transport) meet(ctx context.Context, v *visit, s *session, m *message) (*Conn, identity.Peer, error) {
	sdp, err := s.answer(m)
	if err != nil {
		t.refuse(v.from, v.id, "the offer cannot be answered")
		return nil, identity.Peer{}, err
	}
	t.mu.Lock()
	v.s = s
	early := t.aside.Take(v.from.Device, v.id, time.Now())
	t.mu.Unlock()
	for _, candidates := range early {
		s.add(candidates)
	}
	s.gather(ctx)
	reply := func() error {
		return t.post(ctx, v.from.Device, &message{kind: kindAnswer, id: v.id, sdp: sdp, candidates: s.all()})
	}
	if err := reply(); err != nil {
		return nil, identity.Peer{}, fmt.Errorf("send the answer: %w", err)
	}
	s.trickle(ctx)
	settled, stop := context.WithCancel(ctx)
	defer stop()
	t.spawn(func(context.Context) {
		for {
			select {
			case <-v.again:
				if err := reply(); err != nil {
					t.log.Debug("webrtc: send the answer again", "to", v.from.Device, "err", err)
				}
			case <-settled.Done():
				return
			}
		}
	})
	return s.secure(ctx)
}
