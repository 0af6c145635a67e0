package calls

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"time"

	"peerlink/identity"
	"peerlink/internal/pause"
	"peerlink/internal/quota"
)

// Visit is one call of another device. Its methods are for Carrier.Answer.
type Visit[S Signal] struct {
	// ID names the call, and From is the caller. A From without an account is what
	// the signals say: it was not proven, and Admit has to be asked once it is.
	ID   ID
	From identity.Peer
	// Again holds a value when the offer came once more: the answer may be lost.
	Again <-chan struct{}

	b      *Board[S]
	room   *room[S]
	ctx    context.Context
	cancel context.CancelCauseFunc
	began  time.Time
	againc chan struct{}
	donec  chan struct{} // closed when it is over
	came   bool          // it ended in a stream; before donec is closed

	// Under Board.mu:
	side     Side[S]
	thinking int  // decisions under way
	over     bool // and the place goes back when there are none
}

// offered takes an offer. One that is being served is answered once more.
func (b *Board[S]) offered(from identity.Peer, s S) error {
	room := b.room(from)
	v, err := b.admit(room, from, s.Head().ID)
	busy, refused := errors.AsType[no](err)
	switch {
	case refused:
		b.refuse(room, from.Device, s.Head().ID, busy)
		return nil
	case err != nil:
		return err
	case v == nil:
		return b.more(from, s) // it may know further candidates
	}
	if !b.Go(func(context.Context) { b.serve(v, s) }) {
		b.leave(v, nil)
		return b.cfg.Closed
	}
	return nil
}

// goesFirst reports whether the call of a stands when a and b call each other at
// once: it is the call of the smaller id, which is also the link that both managers prefer.
func goesFirst(a, b identity.DeviceID) bool { return string(a[:]) < string(b[:]) }

// admit takes a place and registers an offer. A repeated one gives nil.
func (b *Board[S]) admit(room *room[S], from identity.Peer, id ID) (*Visit[S], error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if v := b.incoming[id]; v != nil && v.From.Device == from.Device {
		pause.Tell(v.againc, struct{}{})
		return nil, nil
	}
	crossed := b.unanswered(from.Device)
	switch {
	case b.Ended():
		return nil, b.cfg.Closed
	case from.Device == b.cfg.Self:
		return nil, errors.New("an offer of this device itself")
	case len(crossed) > 0 && goesFirst(b.cfg.Self, from.Device):
		return nil, errors.New("the device called while it was being called, and gives way")
	case b.rooms[0].seen.Contains(id), b.rooms[1].seen.Contains(id):
		return nil, errors.New("an offer that was served before")
	}
	room.seen.Add(id, struct{}{}) // a caller that was told busy does not take an answer any longer
	if b.taking.Ended() {
		return nil, no{CodeBusy, "busy: about to close"}
	}
	switch err := room.take(from.Device); {
	case errors.Is(err, quota.ErrKey):
		return nil, no{CodeBusy, "busy: too many calls from this device"}
	case err != nil:
		return nil, no{CodeBusy, "busy: too many calls"}
	}
	v := &Visit[S]{ID: id, From: from, b: b, room: room, began: time.Now(), againc: make(chan struct{}, 1), donec: make(chan struct{})}
	v.Again = v.againc
	v.ctx, v.cancel = context.WithCancelCause(b.taking.Context())
	b.incoming[id] = v
	for _, c := range crossed {
		c.settled, c.first = true, v
		c.cancel(verdict{errCrossed})
	}
	return v, nil
}

// unanswered are this side's calls to a device that one of the device's stands in
// for. b.mu is held.
func (b *Board[S]) unanswered(peer identity.DeviceID) []*Call[S] {
	var out []*Call[S]
	for _, c := range b.outgoing {
		if b.cfg.OneOfTwo && c.Peer == peer && !c.settled {
			out = append(out, c)
		}
	}
	return out
}

// serve answers one offer. The place goes with the stream to Accept, or back.
func (b *Board[S]) serve(v *Visit[S], offer S) {
	ctx, cancel := context.WithTimeout(v.ctx, b.cfg.Timeout)
	defer cancel()
	v.ctx = ctx
	conn, peer, err := b.answer(ctx, v, offer)
	if err != nil {
		b.cfg.Log.Debug(b.cfg.Name+": call came to nothing", "from", v.From.Device, "err", err)
		b.leave(v, nil)
		return
	}
	b.leave(v, &accepted{conn, peer})
}

func (b *Board[S]) answer(ctx context.Context, v *Visit[S], offer S) (net.Conn, identity.Peer, error) {
	if err := v.Admit(ctx, v.From); err != nil {
		v.Refuse(CodeOf(err), err.Error())
		return nil, identity.Peer{}, err
	}
	return b.carrier.Answer(ctx, v, offer)
}

func (b *Board[S]) leave(v *Visit[S], came *accepted) {
	b.mu.Lock()
	delete(b.incoming, v.ID)
	v.over = came == nil
	release := v.over && v.thinking == 0
	b.mu.Unlock()
	v.cancel(nil)
	if came != nil {
		v.came = true
		v.room.arrive(*came)
		if b.taking.Ended() {
			b.drain()
		}
	}
	if release {
		b.places.Release(v.From.Device)
	}
	close(v.donec)
}

// waitFor returns when the visit is over and the caller had time to see that it
// has a stream.
func (v *Visit[S]) waitFor(ctx context.Context) error {
	select {
	case <-v.donec:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if v.came && pause.For(ctx, crossedGrace) != nil {
		return context.Cause(ctx)
	}
	return nil
}

// Attach has the carrier's side told of the caller's candidates, also of the
// ones that came before, and found by Side.
func (v *Visit[S]) Attach(s Side[S]) {
	v.b.mu.Lock()
	v.side = s
	var early []S
	for _, r := range v.b.rooms {
		early = append(early, r.aside.take(v.From.Device, v.ID, time.Now())...)
	}
	v.b.mu.Unlock()
	for _, e := range early {
		s.More(e)
	}
}

// Refuse tells the caller why it is refused, where there is room to. It does not
// block.
func (v *Visit[S]) Refuse(code Code, reason string) {
	v.b.refuse(v.room, v.From.Device, v.ID, no{code, reason})
}

// Failure is the error of a visit that came to nothing; stage says how far it came,
// and tried, if it is not empty, what was tried.
func (v *Visit[S]) Failure(stage, tried string) error {
	cause := context.Cause(v.ctx)
	if givenUp(cause) {
		return fmt.Errorf("%s: %s: %w", v.b.cfg.Name, stage, cause)
	}
	return &noPathError{carrier: v.b.cfg.Name, peer: v.From.Device, stage: stage, took: time.Since(v.began), tried: tried, cause: cause}
}

// Admit asks the trust store and then the program about the caller. Of a caller
// that is not proven it only looks at what its name may decide: ask again with
// the peer that has proven itself. The error is for the caller to read. Admit
// blocks until there is a decision, or ctx ends.
func (v *Visit[S]) Admit(ctx context.Context, peer identity.Peer) error {
	b := v.b
	if Unproven(peer) {
		if b.banned(peer.Device) {
			return no{CodeUnwanted, "not trusted"}
		}
		return nil
	}
	if err := b.cfg.Trust.Check(peer); err != nil {
		b.cfg.Log.Debug(b.cfg.Name+": offer of a device that is not trusted", "from", peer.Device, "err", err)
		return no{CodeUnwanted, "not trusted"}
	}
	f := b.decide.Load()
	if f == nil {
		return nil
	}
	b.mu.Lock()
	v.thinking++
	b.mu.Unlock()
	verdictc := make(chan error, 1)
	go func() { // not of the Board's: Close does not wait for the program
		err := b.ask(ctx, *f, peer)
		b.mu.Lock()
		v.thinking--
		release := v.over && v.thinking == 0
		b.mu.Unlock()
		if release {
			b.places.Release(v.From.Device)
		}
		verdictc <- err
	}()
	select {
	case err := <-verdictc:
		return err
	case <-ctx.Done():
		return no{0, "no decision in time"}
	}
}

// ask runs the program's callback. One that panics must not take every link of the
// process with it: it refuses, and the log says where it panicked.
func (b *Board[S]) ask(ctx context.Context, f decision, peer identity.Peer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			b.cfg.Log.Error(b.cfg.Name+": the deciding callback panicked", "panic", p, "stack", string(debug.Stack()))
			err = no{CodeInternal, "internal error"}
		}
	}()
	return f(ctx, peer)
}

// refuse tells a caller no, if not too many are being told.
func (b *Board[S]) refuse(room *room[S], to identity.DeviceID, id ID, why no) {
	select {
	case room.refusec <- struct{}{}:
	default:
		return
	}
	if !b.Go(func(ctx context.Context) {
		defer func() { <-room.refusec }()
		b.tell(ctx, to, id, why)
	}) {
		<-room.refusec
	}
}

// tell sends a refusal. Its loss does no harm.
func (b *Board[S]) tell(ctx context.Context, to identity.DeviceID, id ID, why no) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	if err := b.carrier.Post(ctx, to, b.carrier.Refusal(Head{Refusal, id, why.code, why.reason})); err != nil {
		b.cfg.Log.Debug(b.cfg.Name+": send a refusal", "to", to, "err", err)
	}
}
