package calls

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/identity"
)

// An offer is answered again while it is served, and ignored after that.
//
// fault: E1
func TestAnOfferIsServedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b, caller := w.device(t), newIdentity(t)
		w.Join(caller)
		asked := 0
		b.Decide(func(context.Context, identity.Peer) error { asked++; return nil })
		id := NewID()
		for range 3 {
			if err := b.handle(caller.Peer(), Offer, id, "more"); err != nil {
				t.Errorf("while it is served: %v", err)
			}
			synctest.Wait()
		}
		if asked != 1 || b.sent() != 3 || len(b.sides[0].told) != 2 {
			t.Errorf("asked %d times, %d answers, %d further signals; want 1, 3, 2", asked, b.sent(), len(b.sides[0].told))
		}
		if err := b.handle(newIdentity(t).Peer(), Offer, id, ""); err == nil {
			t.Error("another device has repeated it")
		}
		end, _ := w.ends.LoadAndDelete(id) // as the caller does
		in := <-b.acceptLater(t.Context())
		in.conn.Close()
		end.(net.Conn).Close()
		if err := b.handle(caller.Peer(), Offer, id, ""); err == nil || !b.idle() {
			t.Errorf("after its end: %v", err)
		}
	})
}

// fault: E2
func TestSignalsThatMakeNoSenseAreIgnored(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.device(t), newIdentity(t)
		for name, err := range map[string]error{
			"an offer to oneself": a.handle(a.id.Peer(), Offer, NewID(), ""),
			"an unknown kind":     a.handle(b.Peer(), More+1, NewID(), ""),
			"no signal":           a.Handle(b.Peer(), nil),
			"an answer":           a.handle(b.Peer(), Answer, NewID(), ""),
			"a refusal":           a.handle(b.Peer(), Refusal, NewID(), ""),
		} {
			if err == nil {
				t.Errorf("%s was taken", name)
			}
		}
		if a.Ignored() != 5 || !a.idle() {
			t.Errorf("%d were ignored", a.Ignored())
		}
		a.Close()
		if err := a.handle(b.Peer(), Offer, NewID(), ""); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// Calls beyond the bounds are refused, others are served, and a place is free again
// once its stream was accepted.
//
// fault: J3
func TestCallsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b := w.device(t, func(c *Config) { c.Most, c.Each = 6, 2 })
		a, c, d := w.device(t), w.device(t), w.device(t)
		dial := func(from *device, want string) {
			t.Helper()
			conn, _, err := from.Dial(t.Context(), b.id.DeviceID())
			if r, ok := errors.AsType[*RefusedError](err); refused(err) != want || ok != (want != "") || ok && (r.Code != CodeBusy || !r.Temporary()) {
				t.Errorf("%v, want a refusal for now that says %q", err, want)
			}
			if conn != nil {
				t.Cleanup(func() { conn.Close() })
			}
		}
		dial(a, "")
		dial(a, "")
		dial(a, "busy: too many calls from this device")
		dial(c, "")
		dial(d, "busy: too many calls")
		if in := <-b.acceptLater(t.Context()); in.err != nil {
			t.Error(in.err)
		}
		dial(d, "")
	})
}

// fault: C9
func TestADecisionThatNeverComesTakesUpAPlaceAndIsRefusedInTime(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.device(t), w.device(t, func(c *Config) { c.Timeout, c.Each = 2*time.Second, 1 })
		hold := make(chan struct{})
		b.Decide(func(context.Context, identity.Peer) error { <-hold; return nil })
		for _, want := range []string{"no decision in time", "busy: too many calls from this device"} {
			if _, _, err := a.Dial(t.Context(), b.id.DeviceID()); refused(err) != want {
				t.Errorf("%v, want %s", err, want)
			}
		}
		close(hold)
		synctest.Wait()
		if !b.idle() {
			t.Error("the place is not free")
		}
		b.Decide(nil)
		connect(t, a, b)
	})
}

// Each no reaches the caller, and the trust store is asked before the program.
//
// fault: D5
func TestADeviceThatIsNotWantedIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var trust identity.Trust
		a, b := w.device(t), w.device(t, func(c *Config) { c.Trust = &trust })
		var peer identity.Peer
		asked := 0
		b.Decide(func(_ context.Context, p identity.Peer) error { asked++; peer = p; return errors.New("no, thank you") })
		dial := func(want string, code Code) {
			t.Helper()
			_, _, err := a.Dial(t.Context(), b.id.DeviceID())
			if r, ok := errors.AsType[*RefusedError](err); !ok || r.Reason != want || r.Code != code || r.Temporary() {
				t.Errorf("%v, want %s (%d)", err, want, code)
			}
		}
		dial("no, thank you", CodeUnwanted)
		if peer.Device != a.id.DeviceID() || peer.Account != a.id.AccountID() {
			t.Errorf("asked about %v", peer)
		}
		if err := trust.Set(a.id.AccountID(), identity.Banned); err != nil {
			t.Fatal(err)
		}
		dial("not trusted", CodeUnwanted)
		b.Decide(func(context.Context, identity.Peer) error { panic("bug in the program") })
		if err := trust.Set(a.id.AccountID(), identity.Undecided); err != nil {
			t.Fatal(err)
		}
		dial("internal error", CodeInternal)
		if asked != 1 || !strings.Contains(b.log.String(), "bug in the program") {
			t.Errorf("asked %d times; %s", asked, b.log)
		}
		b.Decide(nil)
		connect(t, a, b)
	})
}

// Of a device that is not proven only a ban counts; the rest is asked once it is.
//
// fault: D1, D5
func TestAnUnprovenCallerIsAskedAboutLater(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var trust identity.Trust
		b, caller := w.device(t, func(c *Config) { c.Trust = &trust }), newIdentity(t)
		v := &Visit[*note]{From: identity.Peer{Device: caller.DeviceID()}, b: b.Board}
		b.Decide(func(_ context.Context, p identity.Peer) error { return errors.New("asked about " + p.Name) })
		if err := v.Admit(t.Context(), v.From); err != nil {
			t.Errorf("before the proof: %v", err)
		}
		if err := v.Admit(t.Context(), caller.Peer()); err == nil || err.Error() != "asked about device" {
			t.Errorf("after the proof: %v", err)
		}
		if err := trust.Set(caller.DeviceID(), identity.Banned); err != nil {
			t.Fatal(err)
		}
		if err := v.Admit(t.Context(), v.From); err == nil || err.Error() != "not trusted" {
			t.Errorf("banned: %v", err)
		}
	})
}

// A caller that withdraws ends its own call, and no other device's.
//
// fault: E3
func TestOnlyTheCallerWithdraws(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b, caller, other := w.device(t), newIdentity(t), newIdentity(t)
		w.Join(caller)
		id := NewID()
		if err := b.handle(caller.Peer(), Offer, id, ""); err != nil {
			t.Fatal(err)
		}
		if err := b.handle(other.Peer(), Refusal, id, ""); err == nil {
			t.Error("another device has withdrawn it")
		}
		synctest.Wait()
		if b.idle() || b.Side(id, true) != Side[*note](b.sides[0]) || b.Side(id, false) != nil {
			t.Error("the call has ended")
		}
		if err := b.handle(caller.Peer(), Refusal, id, ""); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if !b.idle() || b.Side(id, true) != nil || !strings.Contains(b.log.String(), errWithdrawn.Error()) {
			t.Errorf("the call goes on: %s", b.log)
		}
	})
}

// Refusals that the signaller does not take are bounded.
func TestRefusalsBeingSentAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b := w.device(t, func(c *Config) { c.Most, c.Each = 2, 1 })
		var sent atomic.Int32
		b.box.Alter = func(identity.DeviceID, []byte) ([]byte, error) { sent.Add(1); time.Sleep(time.Minute); return nil, nil }
		for range 100 {
			if err := b.handle(newIdentity(t).Peer(), Offer, NewID(), ""); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := sent.Load(); n != maxRefusals+1 { // and an answer
			t.Errorf("%d signals are being sent", n)
		}
	})
}

// Candidates that overtake their offer are kept for it, a few and not for long.
//
// fault: E2, E3
func TestSignalsThatOvertakeTheirOfferAreKept(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b, caller := w.device(t), newIdentity(t)
		w.Join(caller)
		id, old := NewID(), NewID()
		tell := func(from identity.Peer, id ID, body string) {
			t.Helper()
			if err := b.handle(from, More, id, body); err != nil {
				t.Errorf("%s: %v", body, err)
			}
		}
		tell(caller.Peer(), old, "old")
		time.Sleep(asideLife)
		tell(caller.Peer(), id, "early")
		tell(newIdentity(t).Peer(), id, "of another device")
		for _, id := range []ID{id, old} {
			if err := b.handle(caller.Peer(), Offer, id, ""); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		var got []string
		for _, s := range b.sides {
			for len(s.told) > 0 {
				got = append(got, <-s.told)
			}
		}
		if len(got) != 1 || got[0] != "early" {
			t.Errorf("told were %q", got)
		}
		if err := b.handle(caller.Peer(), More, id, "unwanted"); err == nil {
			t.Error("what the carrier does not take is not ignored")
		}
	})
}

// A crowd of senders cannot push out more than the oldest, one sender no more
// than its share, and what waits too long is gone.
//
// fault: E2
func TestAsideIsBounded(t *testing.T) {
	var a aside[*note]
	now := time.Now()
	put := func(from byte, id byte, body string) {
		a.put(identity.DeviceID{from}, &note{Head{ID: ID{id}}, body}, now)
	}
	for i := range 100 {
		put(1, byte(i), "mine")
	}
	for i := range asideMost {
		put(byte(2+i/8), 7, "yours")
	}
	if len(a.kept) != asideMost {
		t.Errorf("%d are kept", len(a.kept))
	}
	if got := a.take(identity.DeviceID{2}, ID{8}, now); len(got) != 0 {
		t.Errorf("took %v of another call", got)
	}
	if got := a.take(identity.DeviceID{2}, ID{7}, now.Add(asideLife-1)); len(got) != 8 || got[0].Body != "yours" {
		t.Errorf("took %v", got)
	}
	if got := a.take(identity.DeviceID{3}, ID{7}, now.Add(asideLife)); len(got) != 0 || len(a.kept) != 0 {
		t.Errorf("took %v of the past, %d are left", got, len(a.kept))
	}
}

func TestSeenForgetsTheOldest(t *testing.T) {
	s := New[*note](Config{}, nil).rooms[0].seen
	first := NewID()
	s.Add(first, struct{}{})
	for range seenKept - 1 {
		s.Add(NewID(), struct{}{})
	}
	if !s.Contains(first) || s.Len() != seenKept {
		t.Errorf("%d are remembered", s.Len())
	}
	s.Add(NewID(), struct{}{})
	if s.Contains(first) || s.Len() != seenKept {
		t.Errorf("%d are remembered", s.Len())
	}
}

// Close ends what runs, and what was called says so.
//
// fault: C10
func TestCloseEndsWhatRuns(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.device(t), w.device(t)
		conn, _, err := a.Dial(t.Context(), b.id.DeviceID()) // its other end waits for Accept
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		hold := make(chan struct{})
		defer close(hold)
		b.Decide(func(context.Context, identity.Peer) error { <-hold; return nil })
		dialling := a.dialLater(t.Context(), b)
		accepting := a.acceptLater(t.Context())
		synctest.Wait()
		b.Close() // though the program still decides
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a stream that was not accepted lives on")
		}
		if _, _, err := b.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after Close: %v", err)
		}
		a.Close()
		for name, c := range map[string]<-chan outcome{"dial": dialling, "accept": accepting} {
			if o := <-c; !errors.Is(o.err, net.ErrClosed) {
				t.Errorf("%s: %v", name, o.err)
			}
		}
	})
}

// The signaller's end ends Accept.
func TestAcceptEndsWithTheSignaller(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		d := w.device(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		errOff := errors.New("called off")
		cancel(errOff)
		if _, _, err := d.Accept(ctx); !errors.Is(err, errOff) {
			t.Errorf("called off: %v", err)
		}
		other := New(d.cfg, d.carrier)
		defer other.Close()
		other.Listen(deaf{})
		if _, _, err := other.Accept(t.Context()); !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "the signaller has ended") {
			t.Error(err)
		}
	})
}

// deaf is a signaller that has ended.
type deaf struct{}

func (deaf) Send(context.Context, identity.DeviceID, []byte) error { return net.ErrClosed }
func (deaf) Receive(context.Context) (identity.Peer, []byte, error) {
	return identity.Peer{}, nil, net.ErrClosed
}
