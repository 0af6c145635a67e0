package ice

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"time"

	"peerlink/identity"
	"peerlink/internal/route"
)

const (
	// maxRefusals bounds the refusals being sent: to refuse costs as much as to
	// call, and further callers run into their time-out.
	maxRefusals = 16
	// receiveBackoff is the pause after a signaller's passing failure, doubled
	// up to maxReceiveBackoff.
	receiveBackoff    = 50 * time.Millisecond
	maxReceiveBackoff = 5 * time.Second
	// seenKept is how many request ids are remembered. A repeated offer that is
	// older was refused by the signaller for its age.
	seenKept = 4096
)

// seenRequests remembers the last offers, so that a repeated one is ignored
// even after its negotiation has ended.
type seenRequests struct {
	set  map[requestID]struct{}
	ring [seenKept]requestID
	next int
}

// add returns false where id had been seen.
func (s *seenRequests) add(id requestID) bool {
	if _, ok := s.set[id]; ok {
		return false
	}
	if s.set == nil {
		s.set = make(map[requestID]struct{})
	}
	delete(s.set, s.ring[s.next])
	s.ring[s.next] = id
	s.next = (s.next + 1) % seenKept
	s.set[id] = struct{}{}
	return true
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
			t.log.Warn("ice: the signaller has ended, nobody can call this device", "err", err)
			return
		case err != nil:
			t.log.Warn("ice: receive a signal", "err", err, "again in", pause)
			if !wait(ctx, pause) {
				return
			}
			pause = min(2*pause, maxReceiveBackoff)
		default:
			pause = receiveBackoff
			t.handle(from, msg)
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

// handle does not block: it runs on the loop that reads all signals.
func (t *Transport) handle(from identity.Peer, b []byte) {
	m, err := decode(b, t.cfg.Loopback)
	switch {
	case err != nil:
		t.ignore(from, "malformed", err)
	case m.kind == kindOffer:
		t.handleOffer(from, m)
	case m.kind == kindAnswer, m.kind == kindRefuse:
		t.handleAnswer(from, m)
	case m.kind == kindMore:
		n := t.between(m.id, from.Device)
		if n == nil {
			n = t.setAside(from.Device, m)
		}
		if n == nil || !t.handleMore(n, m) {
			t.ignore(from, m.kind.String(), errors.New("no such negotiation runs with this device"))
		}
	default:
		t.ignore(from, m.kind.String(), errors.New("unknown kind"))
	}
}

// between returns the running negotiation with a device.
func (t *Transport) between(id requestID, peer identity.DeviceID) *negotiation {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range []*negotiation{t.outgoing[id], t.incoming[id]} {
		if n != nil && n.peer == peer {
			return n
		}
	}
	return nil
}

// refresh puts the candidates as they are now into an offer or answer that is
// sent once more.
func (t *Transport) refresh(n *negotiation, m *message) {
	now, err := t.candidates(n)
	if err != nil {
		return // as before, then
	}
	if m.tcp != nil {
		m.tcp.candidates = now.tcpCandidates()
	}
	if m.udp != nil {
		m.udp.candidates = now.udpCandidates()
	}
	n.tell(m)
}

func (t *Transport) ignore(from identity.Peer, what string, err error) {
	t.ignored.Add(1)
	t.log.Debug("ice: signal ignored", "from", from.Device, "what", what, "err", err)
}

// handleAnswer: an answer counts if it is the first one of the device that was
// asked, to a request that still runs.
func (t *Transport) handleAnswer(from identity.Peer, m *message) {
	t.mu.Lock()
	n, called := t.outgoing[m.id], t.incoming[m.id]
	t.mu.Unlock()
	if called != nil && called.peer == from.Device && m.kind == kindRefuse {
		called.cancel(errWithdrawn)
		return
	}
	if n == nil || n.peer != from.Device {
		t.ignore(from, m.kind.String(), errors.New("no such request waits for this device"))
		return
	}
	if !n.answer(m) {
		if m.kind == kindAnswer { // it was sent once more, and may tell more
			t.handleMore(n, m)
		}
		t.ignore(from, m.kind.String(), errors.New("no such request waits for this device"))
	}
}

func (t *Transport) handleOffer(from identity.Peer, m *message) {
	n, err := t.admit(from, m)
	var busy *busyError
	switch {
	case errors.As(err, &busy):
		t.refuse(from, m.id, busy.Error())
	case err != nil:
		t.ignore(from, "offer", err)
	default:
		go t.serve(n, from, m) // admit has reserved the goroutine
	}
}

// busyError refuses an offer for lack of room.
type busyError struct{ what string }

// Error is what the caller is told.
func (e *busyError) Error() string { return "busy: " + e.what }

// admit takes a slot and registers the negotiation of an offer.
func (t *Transport) admit(from identity.Peer, m *message) (*negotiation, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return nil, errClosed
	case from.Device == t.cfg.Identity.DeviceID():
		return nil, errors.New("it is from this device")
	case !t.seen.add(m.id):
		if n := t.incoming[m.id]; n != nil && n.peer == from.Device {
			n.repeated(m)
		}
		return nil, errors.New("repeated request")
	case t.taken >= t.cfg.MaxNegotiations:
		return nil, &busyError{"too many calls"}
	case t.slots[from.Device] >= t.cfg.MaxPerPeer:
		return nil, &busyError{"too many calls from this device"}
	}
	ctx, cancel := context.WithTimeout(t.closing, t.cfg.Timeout)
	n := newNegotiation(ctx, controlled, m.id, from.Device)
	context.AfterFunc(n.ctx, cancel)
	if m.tcp != nil {
		n.key = m.tcp.key
	}
	t.incoming[m.id] = n
	for _, early := range t.aside.Take(from.Device, m.id, time.Now()) {
		n.trickled++
		n.more(early)
	}
	t.slots[from.Device]++
	t.taken++
	t.running.Add(1)
	return n, nil
}

// release gives a slot back.
func (t *Transport) release(peer identity.DeviceID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken--
	if t.slots[peer]--; t.slots[peer] == 0 {
		delete(t.slots, peer)
	}
}

// serve answers an offer and waits for what comes of it.
func (t *Transport) serve(n *negotiation, from identity.Peer, m *message) {
	defer t.running.Done()
	err, decided := t.verdict(n.ctx, from)
	if err != nil {
		t.refuse(from, m.id, err.Error())
	} else {
		err = t.connect(n, m)
	}
	t.mu.Lock()
	delete(t.incoming, n.id)
	t.mu.Unlock()
	n.end()
	if err != nil {
		t.log.Debug("ice: call came to nothing", "from", from.Device, "err", err)
	}
	switch {
	case !decided: // the slot goes back when the callback returns
	case !n.won:
		t.release(n.peer)
	}
}

// verdict asks the trust store and the program. decided is false where the
// program still thinks: its goroutine then keeps the caller's slot.
func (t *Transport) verdict(ctx context.Context, from identity.Peer) (err error, decided bool) {
	if err := t.cfg.Trust.Check(from); err != nil {
		t.log.Debug("ice: offer of a device that is not trusted", "from", from.Device, "err", err)
		return errors.New("not trusted"), true
	}
	f := t.decide.Load()
	if f == nil {
		return nil, true
	}
	verdictc := make(chan error, 1)
	go func() { verdictc <- t.ask(ctx, *f, from) }()
	select {
	case err := <-verdictc:
		return err, true
	case <-ctx.Done():
		go func() {
			<-verdictc //nolint:errcheck // too late to count
			t.release(from.Device)
		}()
		return errors.New("no decision in time"), false
	}
}

// ask runs the program's callback. One that panics must not take every link of
// the process with it: it refuses, and the log says where it panicked.
func (t *Transport) ask(ctx context.Context, f func(context.Context, identity.Peer) error, from identity.Peer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			t.log.Error("ice: the deciding callback panicked", "panic", p, "stack", string(debug.Stack()))
			err = errors.New("internal error")
		}
	}()
	return f(ctx, from)
}

// connect starts the engines, sends the answer, and returns once a stream was
// delivered or the time is over.
func (t *Transport) connect(n *negotiation, offer *message) error {
	m := &message{kind: kindAnswer, id: n.id}
	if err := t.describe(n, m); err != nil {
		t.refuse(identity.Peer{Device: n.peer}, n.id, "internal error")
		return err
	}
	if offer.tcp == nil {
		m.tcp = nil
	}
	if offer.udp == nil {
		m.udp = nil
	}
	if len(n.start(t.engines, offer)) == 0 {
		t.refuse(identity.Peer{Device: n.peer}, n.id, fmt.Sprintf("no common engine, here are %v", t.cfg.Engines))
		return errors.New("no common engine")
	}
	for trickling := false; ; {
		n.tell(m)
		b, err := m.encode()
		if err != nil {
			return err
		}
		if err := t.cfg.Signaller.Send(n.ctx, n.peer, b); err != nil {
			n.tried("signaller", "answer", err)
		} else if !trickling {
			trickling = n.spawn(func(ctx context.Context) { t.trickle(ctx, n) })
		}
		select {
		case <-n.settled:
			return nil
		case <-n.again: // the answer may have been lost
			t.refresh(n, m)
		case <-n.ctx.Done():
			select {
			case <-n.settled:
				return nil
			default:
				return n.failure("the caller reached no candidate and was not reached")
			}
		}
	}
}

// repeated has the answer sent once more. An offer that comes before the first
// answer is out costs one more; further ones meanwhile cost nothing.
func (n *negotiation) repeated(m *message) {
	n.more(m)
	select {
	case n.again <- struct{}{}:
	default:
	}
}

// deliver hands a proven stream to Accept, unless the negotiation has another
// one or the device is not the one that made the offer. greet sends what the
// caller's Dial waits for.
func (t *Transport) deliver(n *negotiation, conn net.Conn, peer identity.Peer, way string, greet func() error) error {
	switch {
	case peer.Device != n.peer:
		conn.Close()
		return fmt.Errorf("device %s is at the other end", peer.Device)
	case !n.win():
		conn.Close()
		return errEnded
	}
	if err := greet(); err != nil {
		conn.Close()
		t.release(n.peer)
		return err
	}
	if p, ok := conn.(interface{ Path() route.Path }); ok {
		t.log.Debug("ice: accepted", "peer", peer.Device, "way", way, "path", p.Path())
	}
	t.acceptc <- accepted{conn, peer} // the negotiation's slot is room for it
	return nil
}

// refuse tells a caller why, where there is room to.
func (t *Transport) refuse(to identity.Peer, id requestID, reason string) {
	t.refused.Add(1)
	m := &message{kind: kindRefuse, id: id, reason: reason}
	b, err := m.encode()
	if err != nil {
		t.log.Error("ice: refusal", "err", err)
		return
	}
	select {
	case t.refusec <- struct{}{}:
	default:
		return
	}
	if !t.spawn(func(ctx context.Context) {
		defer func() { <-t.refusec }()
		ctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
		defer cancel()
		if err := t.cfg.Signaller.Send(ctx, to.Device, b); err != nil {
			t.log.Debug("ice: send a refusal", "to", to.Device, "err", err)
		}
	}) {
		<-t.refusec
	}
}
