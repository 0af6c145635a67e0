package ice

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peerlink/identity"
	"peerlink/internal/route"
	"peerlink/internal/trace"
)

func TestMain(m *testing.M) {
	if runAsVictim() {
		return
	}
	goleak.VerifyTestMain(m)
}

// eachEngine runs a test over TCP alone, UDP alone, and both.
func eachEngine(t *testing.T, f func(t *testing.T, names []string)) {
	for name, names := range map[string][]string{"tcp": {"tcp"}, "udp": {"udp"}, "both": nil} {
		t.Run(name, func(t *testing.T) { f(t, names) })
	}
}

func TestDialYieldsAProvenStreamOverEachEngine(t *testing.T) {
	eachEngine(t, func(t *testing.T, names []string) {
		x := newExchange()
		a, b := x.newDevice(t, "a", engines(names...)), x.newDevice(t, "b", engines(names...))
		for range 3 { // a second and third link need ports of their own
			ca, cb := connect(t, a, b)
			want := "tcp host 127.0.0.1:"
			if slices.Equal(names, []string{"udp"}) {
				want = "udp host 127.0.0.1:"
			}
			for _, c := range []net.Conn{ca, cb} {
				if p := c.(interface{ Path() route.Path }).Path().String(); !strings.HasPrefix(p, want) || !strings.Contains(p, "→127.0.0.1:") {
					t.Errorf("path %q", p)
				}
			}
			go func() {
				ca.Write([]byte("hello"))
				ca.Close()
			}()
			if got, err := io.ReadAll(cb); string(got) != "hello" || err != nil {
				t.Fatalf("read %q, %v", got, err)
			}
		}
	})
}

func TestDialNotesItsMilestonesInOrder(t *testing.T) {
	eachEngine(t, func(t *testing.T, names []string) {
		x := newExchange()
		a, b := x.newDevice(t, "a", engines(names...)), x.newDevice(t, "b", engines(names...))
		var mu sync.Mutex
		var steps []trace.Step
		ctx := trace.With(limit(t, 20*time.Second), func(e trace.Event) {
			mu.Lock()
			defer mu.Unlock()
			steps = append(steps, e.Step)
		})
		conn, _, err := a.Dial(ctx, b.id.DeviceID())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		mu.Lock()
		defer mu.Unlock()
		want := []trace.Step{trace.OfferSent, trace.AnswerReceived, trace.PairSelected, trace.Secured}
		if !slices.Equal(steps, want) {
			t.Errorf("noted %q, want %q", steps, want)
		}
	})
}

// The callee says no, and the caller knows at once and why.
func TestDialReturnsAtOnceWhenDecideRefuses(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a"), x.newDevice(t, "b")
	asked := make(chan identity.Peer, 1)
	b.Decide(func(_ context.Context, p identity.Peer) error {
		asked <- p
		return errTest
	})
	within(t, time.Second, func() time.Duration {
		start := time.Now()
		_, _, err := a.Dial(limit(t, 20*time.Second), b.id.DeviceID())
		took := time.Since(start)
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Reason != errTest.Error() || refused.Peer != b.id.DeviceID() {
			t.Fatalf("error %v", err)
		}
		if p := <-asked; p.Device != a.id.DeviceID() {
			t.Errorf("asked about %s", p)
		}
		return took
	})
	b.Decide(nil)
	connect(t, a, b)
}

func TestARefusalsReasonIsBounded(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a"), x.newDevice(t, "b")
	b.Decide(func(context.Context, identity.Peer) error { return errors.New(strings.Repeat("ä", 5000)) })
	_, _, err := a.Dial(limit(t, 20*time.Second), b.id.DeviceID())
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Reason != strings.Repeat("ä", maxReason/2) {
		t.Fatalf("error %v", err)
	}
}

// fault: C9
func TestAPanickingDecisionRefusesAndNothingElse(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a"), x.newDevice(t, "b")
	b.Decide(func(context.Context, identity.Peer) error { panic("bug in the program") })
	_, _, err := a.Dial(limit(t, 20*time.Second), b.id.DeviceID())
	var refused *RefusedError
	if !errors.As(err, &refused) {
		t.Fatalf("error %v", err)
	}
	b.Decide(nil)
	connect(t, a, b)
}

// fault: C9
func TestADecisionThatNeverComesTakesUpOneSlotAndIsRefusedInTime(t *testing.T) {
	x := newExchange()
	a := x.newDevice(t, "a")
	b := x.newDevice(t, "b", func(c *Config) { c.Timeout, c.MaxPerPeer = 2*time.Second, 1 })
	hold := make(chan struct{})
	b.Decide(func(context.Context, identity.Peer) error { <-hold; return nil })
	for _, want := range []string{"no decision", "busy"} {
		_, _, err := a.Dial(limit(t, 20*time.Second), b.id.DeviceID())
		var refused *RefusedError
		if !errors.As(err, &refused) || !strings.Contains(refused.Reason, want) {
			t.Fatalf("error %v, want %s", err, want)
		}
	}
	close(hold)
	b.Decide(nil)
	waitFor(t, func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.taken == 0 })
	connect(t, a, b)
}

// within has f tell how long something took, and again where that was too long: a
// busy machine adds to it, but not each time.
func within(t *testing.T, limit time.Duration, f func() time.Duration) {
	t.Helper()
	var took []time.Duration
	for range 5 {
		d := f()
		if d <= limit || t.Failed() {
			return
		}
		took = append(took, d)
	}
	t.Errorf("took %v, want at most %v", took, limit)
}

// waitFor polls a state that has no channel, within 10 s.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("did not happen within 10 s")
		}
	}
}

func TestABannedCallerIsRefusedAndABannedCalleeNotDialled(t *testing.T) {
	x := newExchange()
	var trust identity.Trust
	a, b := x.newDevice(t, "a"), x.newDevice(t, "b", func(c *Config) { c.Trust = &trust })
	asked := atomic.Bool{}
	b.Decide(func(context.Context, identity.Peer) error { asked.Store(true); return nil })
	trust.Set(a.id.AccountID(), identity.Banned)
	trust.Set(a.id.DeviceID(), identity.Banned)
	_, _, err := a.Dial(limit(t, 20*time.Second), b.id.DeviceID())
	var refused *RefusedError
	if !errors.As(err, &refused) {
		t.Errorf("dialled by the banned: %v", err)
	}
	if _, _, err = b.Dial(limit(t, 20*time.Second), a.id.DeviceID()); !errors.Is(err, identity.ErrNotTrusted) {
		t.Errorf("dialled the banned: %v", err)
	}
	if asked.Load() {
		t.Error("the program was asked about a banned device")
	}
	trust.Set(a.id.DeviceID(), identity.Undecided)
	if _, _, err = b.Dial(limit(t, 20*time.Second), a.id.DeviceID()); !errors.Is(err, identity.ErrNotTrusted) {
		t.Errorf("dialled a device of a banned account: %v", err)
	}
	trust.Set(a.id.AccountID(), identity.Undecided)
	connect(t, a, b)
}

func TestDialRefusesNonsenseWithoutASignal(t *testing.T) {
	x := newExchange()
	a := x.newDevice(t, "a")
	a.box.alter = func(identity.DeviceID, []byte) ([]byte, error) { t.Error("a signal was sent"); return nil, nil }
	for _, id := range []identity.DeviceID{{}, a.id.DeviceID()} {
		if _, _, err := a.Dial(limit(t, time.Second), id); err == nil {
			t.Errorf("dialled %s", id)
		}
	}
}

// fault: E3
func TestBothDialAtOnceAndBothSucceed(t *testing.T) {
	eachEngine(t, func(t *testing.T, names []string) {
		x := newExchange()
		a, b := x.newDevice(t, "a", engines(names...)), x.newDevice(t, "b", engines(names...))
		for range 10 {
			var wg sync.WaitGroup
			wg.Go(func() { connect(t, a, b) })
			wg.Go(func() { connect(t, b, a) })
			wg.Wait()
			if t.Failed() {
				return
			}
		}
	})
}

func TestManyDialsToOneDeviceAllSucceed(t *testing.T) {
	eachEngine(t, func(t *testing.T, names []string) {
		x := newExchange()
		ctx := limit(t, 60*time.Second)
		patient := func(c *Config) { c.Timeout = time.Minute } // 50 at once are a lot for a busy machine
		a, b := x.newDevice(t, "a", engines(names...), patient), x.newDevice(t, "b", engines(names...), patient)
		const dials = 50
		var wg sync.WaitGroup
		for range dials {
			wg.Go(func() {
				conn, _, err := a.Dial(ctx, b.id.DeviceID())
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				if _, err := conn.Write([]byte{1}); err != nil {
					t.Error(err)
				}
				io.Copy(io.Discard, conn)
			})
			wg.Go(func() {
				conn, _, err := b.Accept(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		waitFor(t, func() bool { s := b.Stats(); return s.Incoming == 0 && a.Stats().Outgoing == 0 })
	})
}

// fault: J3
func TestDialsBeyondTheBoundAreRefusedAndOthersServed(t *testing.T) {
	x := newExchange()
	a, c := x.newDevice(t, "a"), x.newDevice(t, "c")
	b := x.newDevice(t, "b", func(cfg *Config) { cfg.MaxPerPeer = 2 })
	ctx := limit(t, 20*time.Second)
	for range 2 { // nobody accepts: the streams keep their slots
		conn, _, err := a.Dial(ctx, b.id.DeviceID())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	_, _, err := a.Dial(ctx, b.id.DeviceID())
	var refused *RefusedError
	if !errors.As(err, &refused) || !strings.Contains(refused.Reason, "busy") {
		t.Fatalf("error %v", err)
	}
	conn, _, err := c.Dial(ctx, b.id.DeviceID())
	if err != nil {
		t.Fatalf("another device: %v", err)
	}
	conn.Close()
}

// dialStates makes pairs of devices whose dial gets stuck somewhere, and tells
// ready when it has.
func dialStates(ready chan struct{}) map[string]func(t *testing.T, x *exchange) (a, b *device) {
	return map[string]func(t *testing.T, x *exchange) (a, b *device){
		"no answer": func(t *testing.T, x *exchange) (a, b *device) {
			a, b = x.newDevice(t, "a"), x.newDevice(t, "b")
			a.box.alter = func(identity.DeviceID, []byte) ([]byte, error) { ready <- struct{}{}; return nil, nil }
			return a, b
		},
		"sending the offer": func(t *testing.T, x *exchange) (a, b *device) {
			a, b = x.newDevice(t, "a"), x.newDevice(t, "b")
			x.mu.Lock()
			x.boxes[b.id.DeviceID()] = &mailbox{} // takes nothing
			x.mu.Unlock()
			ready <- struct{}{}
			return a, b
		},
		"deciding": func(t *testing.T, x *exchange) (a, b *device) {
			a, b = x.newDevice(t, "a"), x.newDevice(t, "b")
			b.Decide(func(ctx context.Context, _ identity.Peer) error {
				ready <- struct{}{}
				<-ctx.Done()
				return ctx.Err()
			})
			return a, b
		},
		"checking": func(t *testing.T, x *exchange) (a, b *device) {
			a, b = x.newDevice(t, "a"), x.newDevice(t, "b")
			a.box.alter = rewrite(unreachable)
			b.box.alter = rewrite(func(m *message) { unreachable(m); ready <- struct{}{} })
			return a, b
		},
	}
}

// fault: C10
func TestCloseEndsEveryStateAtOnce(t *testing.T) {
	ready := make(chan struct{}, 1)
	for name, prepare := range dialStates(ready) {
		for _, who := range []string{"caller", "callee"} {
			t.Run(name+", the "+who+" closes", func(t *testing.T) {
				a, b := prepare(t, newExchange())
				failed := make(chan error, 1)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					_, _, err := a.Dial(ctx, b.id.DeviceID())
					failed <- err
				}()
				<-ready
				accepting := make(chan error, 1)
				go func() {
					_, _, err := b.Accept(t.Context())
					accepting <- err
				}()
				start := time.Now()
				if who == "caller" {
					a.Close()
					if err := <-failed; !errors.Is(err, net.ErrClosed) {
						t.Errorf("dial: %v", err)
					}
				}
				b.Close()
				if err := <-accepting; !errors.Is(err, net.ErrClosed) {
					t.Errorf("accept: %v", err)
				}
				if d := time.Since(start); d > 2*time.Second {
					t.Errorf("took %v", d)
				}
			})
		}
	}
}
