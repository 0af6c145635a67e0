package calls

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/identity"
	"peerlink/internal/trace"
)

func TestACallMakesAStream(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.device(t), w.device(t)
		var steps []trace.Step
		ctx := trace.With(t.Context(), func(e trace.Event) { steps = append(steps, e.Step) })
		in := b.acceptLater(ctx)
		conn, _, err := a.Dial(ctx, b.id.DeviceID())
		if err != nil {
			t.Fatal(err)
		}
		got := <-in
		go conn.Write([]byte("hello"))
		buf := make([]byte, 5)
		if n, err := got.conn.Read(buf); string(buf[:n]) != "hello" {
			t.Errorf("read %q, %v", buf[:n], err)
		}
		if want := []trace.Step{trace.OfferSent, trace.AnswerReceived}; !slices.Equal(steps, want) {
			t.Errorf("noted %q, want %q", steps, want)
		}
		if !a.idle() || !b.idle() {
			t.Error("something is left of the call")
		}
	})
}

// What was lost is made good by the next offer, and an answer that the device sends
// late is not waited for in vain: the callee answers each.
//
// fault: E3
func TestAnOfferIsRepeatedUntilSomethingIsHeard(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.device(t), w.device(t)
		var at []time.Duration
		begun := time.Now()
		a.box.Alter = func(_ identity.DeviceID, msg []byte) ([]byte, error) {
			at = append(at, time.Since(begun))
			if len(at) < 3 {
				return nil, nil
			}
			return msg, nil
		}
		answers := 0
		b.box.Alter = func(_ identity.DeviceID, msg []byte) ([]byte, error) {
			if answers++; answers == 1 {
				return nil, nil
			}
			return msg, nil
		}
		connect(t, a, b)
		if want := []time.Duration{0, repeatAfter, 3 * repeatAfter, 7 * repeatAfter}; !slices.Equal(at, want) {
			t.Errorf("offers after %v, want %v", at, want)
		}
	})
}

// A signaller that is slow does not get a backlog of offers.
func TestOffersDoNotPileUp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.device(t, func(c *Config) { c.Timeout = 12 * time.Second }), w.device(t)
		var mu sync.Mutex
		var at []time.Duration
		begun := time.Now()
		a.box.Alter = func(identity.DeviceID, []byte) ([]byte, error) {
			mu.Lock()
			at = append(at, time.Since(begun))
			first := len(at) == 1
			mu.Unlock()
			if first {
				time.Sleep(5 * time.Second)
			}
			return nil, nil
		}
		_, _, err := a.Dial(t.Context(), b.id.DeviceID())
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if want := []time.Duration{0, 7 * repeatAfter, 12 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("signals after %v, want %v, the last one a withdrawal: %v", at, want, err)
		}
	})
}

// counting is what a network says of an offer on its way.
func counting(ctx context.Context) {
	tally := trace.TallyOf(ctx)
	tally.Asked("the DHT")
	tally.Asked("the DHT")
	tally.Took(false)
}

// Each error says how far the call came, and matches what it is.
func TestAFailedDialSaysWhy(t *testing.T) {
	errTest := errors.New("out of order")
	for name, c := range map[string]struct {
		send    func(ctx context.Context) error // of the caller's signals; nil: they are lost
		ctx     func(context.Context) context.Context
		says    []string
		matches []error
		noPath  bool
	}{
		"no answer": {
			says:    []string{"fake: no path to the device", "no answer in 10.0 s"},
			matches: []error{os.ErrDeadlineExceeded, context.DeadlineExceeded}, noPath: true,
		},
		"a network that tells how the offer fares": {
			send:   func(ctx context.Context) error { counting(ctx); return nil },
			says:   []string{"no answer through the DHT in 10.0 s (2 nodes asked, 1 took the call, but the device listens at none of them"},
			noPath: true,
		},
		"a signaller that says in the end why it sent nothing": {
			send:   func(ctx context.Context) error { <-ctx.Done(); return errTest },
			says:   []string{"the offer could not be sent in 10.0 s (out of order)"},
			noPath: true,
		},
		"a signaller that fails at once": {
			send:    func(context.Context) error { return errTest },
			says:    []string{"fake: dial", "send the offer: out of order"},
			matches: []error{errTest},
		},
		"a caller that calls off": {
			ctx: func(ctx context.Context) context.Context {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(time.Second, cancel)
				return ctx
			},
			says:    []string{"given up: no answer"},
			matches: []error{context.Canceled},
		},
		"an answer, but no path": {
			says:   []string{"the answer came, but no path was found in 10.0 s; tried hard"},
			noPath: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				a, b := w.device(t, func(c *Config) { c.Timeout = 10 * time.Second }), newIdentity(t)
				w.Join(b) // it hears, and says nothing
				ctx := t.Context()
				if c.ctx != nil {
					ctx = c.ctx(ctx)
				}
				a.carrier = &sending{a.fake, func(ctx context.Context, n *note) error {
					if strings.HasPrefix(name, "an answer") && n.H.Kind == Offer {
						return a.Handle(b.Peer(), (&note{Head{Kind: Answer, ID: n.H.ID}, "elsewhere"}).encode())
					}
					if c.send == nil {
						return nil
					}
					return c.send(ctx)
				}}
				_, _, err := a.Dial(ctx, b.DeviceID())
				for _, part := range c.says {
					if err == nil || !strings.Contains(err.Error(), part) {
						t.Errorf("%q is not told by %v", part, err)
					}
				}
				for _, m := range c.matches {
					if !errors.Is(err, m) {
						t.Errorf("%v does not match %v", err, m)
					}
				}
				if errors.Is(err, ErrNoPath) != c.noPath {
					t.Errorf("ErrNoPath is matched: %t, by %v", !c.noPath, err)
				}
			})
		})
	}
}

// sending is a fake that sends in its own way.
type sending struct {
	*fake
	post func(ctx context.Context, n *note) error
}

func (s *sending) Post(ctx context.Context, _ identity.DeviceID, n *note) error {
	return s.post(ctx, n)
}

// losing is a fake whose call sees that what it uses has ended, and not why.
type losing struct{ *fake }

func (l *losing) Call(ctx context.Context, _ *Call[*note]) (net.Conn, identity.Peer, error) {
	<-ctx.Done()
	return nil, identity.Peer{}, errors.New("the connection has ended")
}

// fault: C10
func TestACallThatCloseEndsSaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.device(t), w.device(t)
		a.carrier = &losing{a.fake}
		ended := a.dialLater(t.Context(), b)
		synctest.Wait()
		a.Close()
		if o := <-ended; !errors.Is(o.err, net.ErrClosed) {
			t.Errorf("a call that Close has ended: %v", o.err)
		}
	})
}

// An answer counts only from the device that was called, only to a call that runs,
// and only once; one that is repeated may still tell candidates.
//
// fault: E3
func TestForgedLateAndRepeatedAnswersAreIgnored(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b, mallory := w.device(t), newIdentity(t), newIdentity(t)
		box := w.Join(b)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { _, _, err := a.Dial(ctx, b.DeviceID()); done <- err }()
		offer, err := decodeNote((<-box.In).Msg)
		if err != nil {
			t.Fatal(err)
		}
		id := offer.H.ID
		for i, c := range []struct {
			from    *identity.Identity
			kind    Kind
			id      ID
			ignored bool
		}{
			{mallory, Refusal, id, true}, // who has learnt the id
			{mallory, Answer, id, true},
			{mallory, More, id, true},
			{b, Refusal, NewID(), true},
			{b, Answer, id, false},
			{b, Answer, id, true},
			{b, Refusal, id, true},
			{b, More, id, false},
		} {
			if err := a.handle(c.from.Peer(), c.kind, c.id, "x"); (err != nil) != c.ignored {
				t.Errorf("signal %d: %v", i, err)
			}
		}
		if got := a.Ignored(); got != 6 {
			t.Errorf("%d are counted as ignored", got)
		}
		if n := len(a.sides[0].told); n != 2 {
			t.Errorf("candidates of %d signals were taken", n)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := a.handle(b.Peer(), Answer, id, ""); err == nil {
			t.Error("a late answer was taken")
		}
	})
}

// A no counts as the device's where the signaller proves its senders.
func TestARefusalIsBelievedAsFarAsItIsProven(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.device(t), newIdentity(t)
		box := w.Join(b)
		for _, from := range []identity.Peer{b.Peer(), {Device: b.DeviceID()}} {
			done := make(chan error, 1)
			go func() { _, _, err := a.Dial(t.Context(), b.DeviceID()); done <- err }()
			offer, err := decodeNote((<-box.In).Msg)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.handle(from, Refusal, offer.H.ID, "not today"); err != nil {
				t.Error(err)
			}
			err = <-done
			var unproven *UnprovenRefusal
			if proven := refused(err) == "not today"; proven == Unproven(from) || errors.As(err, &unproven) == proven {
				t.Errorf("%v", err)
			}
		}
	})
}

// Of an unproven refusal two codes are taken for the device's no, and it is not the
// last word: one of them is for the moment.
func TestAnUnprovenRefusalMeansItsCode(t *testing.T) {
	for code, want := range map[Code]bool{0: false, CodeBusy: true, CodeUnwanted: true, CodeNotProven: false} {
		err := fmt.Errorf("dial: %w", Said(code, "not today"))
		var said interface {
			Refused() string
			Unproven() bool
			Temporary() bool
		}
		var unproven *UnprovenRefusal
		if errors.As(err, &said) != want || want && (said.Refused() != "not today" || !said.Unproven() || said.Temporary() != (code == CodeBusy)) {
			t.Errorf("%d: %v", code, err)
		}
		if !errors.As(err, &unproven) || unproven.Code != code || unproven.Reason != "not today" {
			t.Errorf("%d: %+v", code, unproven)
		}
	}
}

// Both call at once: the call of the smaller id stands, the other Dial waits until
// it is through, and then calls again, unless it is called off.
//
// fault: E3
func TestOfTwoCallsAtOnceTheSmallerIdsGoesFirst(t *testing.T) {
	for name, enough := range map[string]bool{"both want a stream": false, "one stream is enough": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				one := func(c *Config) { c.OneOfTwo = true }
				a, b := w.pairInOrder(t, one)
				// The offers cross: neither is there before the other has left.
				for _, d := range []*device{a, b} {
					d.box.Alter = func(_ identity.DeviceID, msg []byte) ([]byte, error) {
						time.Sleep(20 * time.Millisecond)
						return msg, nil
					}
				}
				off, callOff := context.WithCancelCause(t.Context())
				defer callOff(nil)
				aIn, bIn := a.acceptLater(off), b.acceptLater(t.Context())
				aOut, bOut := a.dialLater(t.Context(), b), b.dialLater(off, a)
				first := []outcome{<-aOut, <-bIn}
				errEnough := errors.New("there is a link now")
				if enough {
					time.Sleep(crossedGrace / 2)
					callOff(errEnough)
				}
				second := []outcome{<-bOut, <-aIn}
				for _, o := range append(first, second...) {
					if o.conn != nil {
						o.conn.Close()
					}
				}
				switch {
				case first[0].err != nil || first[1].err != nil:
					t.Errorf("the first call: %v, %v", first[0].err, first[1].err)
				case enough && !errors.Is(second[0].err, errEnough):
					t.Errorf("called off: %v", second[0].err)
				case !enough && (second[0].err != nil || second[1].err != nil):
					t.Errorf("the second call: %v, %v", second[0].err, second[1].err)
				case !enough && second[0].at.Sub(first[0].at) < crossedGrace:
					t.Errorf("called again after %v", second[0].at.Sub(first[0].at))
				}
				if a.Ignored() == 0 {
					t.Error("the two calls did not cross")
				}
			})
		})
	}
}

// Where both calls go on, neither waits for the other.
func TestTwoCallsAtOnceBothGoOn(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.device(t), w.device(t)
		for _, c := range []<-chan outcome{a.dialLater(t.Context(), b), b.dialLater(t.Context(), a), a.acceptLater(t.Context()), b.acceptLater(t.Context())} {
			o := <-c
			if o.err != nil {
				t.Fatal(o.err)
			}
			defer o.conn.Close()
		}
	})
}

// A Dial that is called off tells the device, whose side ends at once.
func TestACallerThatGivesUpSaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := w.device(t), w.device(t)
		b.Decide(func(ctx context.Context, _ identity.Peer) error { <-ctx.Done(); return ctx.Err() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := a.Dial(ctx, b.id.DeviceID()); !errors.Is(err, ErrNoPath) {
			t.Error(err)
		}
		synctest.Wait()
		if !b.idle() || !strings.Contains(b.log.String(), "no decision in time") {
			t.Errorf("the callee goes on: %s", b.log)
		}
	})
}

func TestDialRefusesNonsenseWithoutASignal(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var trust identity.Trust
		a, b := w.device(t, func(c *Config) { c.Trust, c.Most = &trust, 1 }), newIdentity(t)
		a.box.Alter = func(identity.DeviceID, []byte) ([]byte, error) { t.Error("a signal was sent"); return nil, nil }
		if err := trust.Set(b.DeviceID(), identity.Banned); err != nil {
			t.Fatal(err)
		}
		for _, id := range []identity.DeviceID{{}, a.id.DeviceID(), b.DeviceID()} {
			if _, _, err := a.Dial(t.Context(), id); err == nil || errors.Is(err, identity.ErrBanned) != (id == b.DeviceID()) {
				t.Errorf("dial of %s: %v", id, err)
			}
		}
		a.box.Alter = nil
		other := newIdentity(t)
		w.Join(other)
		first := make(chan error, 1)
		go func() { _, _, err := a.Dial(t.Context(), other.DeviceID()); first <- err }()
		synctest.Wait()
		if _, _, err := a.Dial(t.Context(), other.DeviceID()); err == nil || !strings.Contains(err.Error(), "1 dials run already") {
			t.Errorf("one more than Most: %v", err)
		}
		a.Close()
		if err := <-first; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, _, err := a.Dial(t.Context(), other.DeviceID()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}
