package ice

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peerlink/identity"
	"peerlink/internal/calls/callstest"
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
		trust := new(identity.Trust)
		a, b := x.newDevice(t, "a", engines(names...), patient), x.newDevice(t, "b", engines(names...), patient, func(c *Config) { c.Trust = trust })
		if err := trust.Set(a.id.DeviceID(), identity.Allowed); err != nil { // a stranger has a few
			t.Fatal(err)
		}
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
		waitFor(t, func() bool { return b.idle() && a.idle() })
	})
}

// dialStates makes pairs of devices whose dial gets stuck somewhere, and calls
// ready when it has, perhaps more than once: what gets no answer is sent again.
func dialStates(ready func()) map[string]func(t *testing.T, x *exchange) (a, b *device) {
	return map[string]func(t *testing.T, x *exchange) (a, b *device){
		"no answer": func(t *testing.T, x *exchange) (a, b *device) {
			a, b = x.newDevice(t, "a"), x.newDevice(t, "b")
			a.box.Alter = func(identity.DeviceID, []byte) ([]byte, error) { ready(); return nil, nil }
			return a, b
		},
		"sending the offer": func(t *testing.T, x *exchange) (a, b *device) {
			a, b = x.newDevice(t, "a"), x.newDevice(t, "b")
			x.Redirect(b.id.DeviceID(), &callstest.Mailbox{}) // takes nothing
			ready()
			return a, b
		},
		"deciding": func(t *testing.T, x *exchange) (a, b *device) {
			a, b = x.newDevice(t, "a"), x.newDevice(t, "b")
			b.Decide(func(ctx context.Context, _ identity.Peer) error {
				ready()
				<-ctx.Done()
				return ctx.Err()
			})
			return a, b
		},
		"checking": func(t *testing.T, x *exchange) (a, b *device) {
			a, b = x.newDevice(t, "a"), x.newDevice(t, "b")
			a.box.Alter = rewrite(unreachable)
			b.box.Alter = rewrite(func(m *message) { unreachable(m); ready() })
			return a, b
		},
	}
}

// fault: C10
func TestCloseEndsEveryStateAtOnce(t *testing.T) {
	for name := range dialStates(nil) {
		for _, who := range []string{"caller", "callee"} {
			t.Run(name+", the "+who+" closes", func(t *testing.T) {
				ready := make(chan struct{})
				a, b := dialStates(sync.OnceFunc(func() { close(ready) }))[name](t, newExchange())
				failed := make(chan error, 1)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					_, _, err := a.Dial(ctx, b.id.DeviceID())
					failed <- err
				}()
				select {
				case <-ready:
				case err := <-failed:
					t.Fatalf("the dial ended before it was %s: %v", name, err)
				}
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
