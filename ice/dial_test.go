package ice

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"peerlink/identity"
	"peerlink/internal/route"
	"peerlink/internal/trace"
)

// heard is a log handler that keeps what was said.
type heard struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func newHeard() *heard { return &heard{more: make(chan struct{}, 1)} }

func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, string(b))
	select {
	case h.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

// line waits for one that holds all the parts.
func (h *heard) line(t *testing.T, parts ...string) string {
	t.Helper()
	end := time.After(10 * time.Second)
	for {
		h.mu.Lock()
		for _, l := range h.lines {
			ok := true
			for _, p := range parts {
				ok = ok && strings.Contains(l, p)
			}
			if ok {
				h.mu.Unlock()
				return l
			}
		}
		h.mu.Unlock()
		select {
		case <-h.more:
		case <-end:
			t.Fatalf("no line with %q in %q", parts, h.lines)
		}
	}
}

// Both sides give up within the time-out and say what they tried.
// fault: F1, F5
func TestOnlyUnreachableCandidatesEndAsErrNoPathOnBothSides(t *testing.T) {
	x := newExchange()
	log := newHeard()
	short := func(c *Config) { c.Timeout = 400 * time.Millisecond }
	a := x.newDevice(t, "a", short)
	b := x.newDevice(t, "b", short, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	a.box.alter, b.box.alter = rewrite(unreachable), rewrite(unreachable)
	start := time.Now()
	_, _, err := a.Dial(limit(t, 20*time.Second), b.id.DeviceID())
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
	if !errors.Is(err, ErrNoPath) || !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	for _, part := range []string{"tcp host 127.0.0.1:9", "connection refused", "udp host 127.0.0.1:9", errNoCheck.Error()} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not told by %q", part, err)
		}
	}
	log.line(t, "no path", a.id.DeviceID().Short(), "tcp host 127.0.0.1:9", "udp host 127.0.0.1:9")
	waitFor(t, func() bool { return b.Stats().Incoming == 0 && a.Stats().Outgoing == 0 })
}

func TestNoAnswerEndsAsErrNoPathAndSaysSo(t *testing.T) {
	x := newExchange()
	a := x.newDevice(t, "a", func(c *Config) { c.Timeout = 100 * time.Millisecond })
	silent := newIdentity(t, "silent")
	x.join(silent)
	_, _, err := a.Dial(limit(t, 20*time.Second), silent.DeviceID())
	if !errors.Is(err, ErrNoPath) || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("error %v", err)
	}
}

// counting is a signaller whose network tells how an offer fares there.
type counting struct{ *mailbox }

func (c counting) Send(ctx context.Context, to identity.DeviceID, msg []byte) error {
	tally := trace.TallyOf(ctx)
	tally.Asked("the DHT")
	tally.Asked("the DHT")
	tally.Took(false)
	return c.mailbox.Send(ctx, to, msg)
}

func TestNoAnswerTellsHowTheOfferFared(t *testing.T) {
	x := newExchange()
	a := x.newDevice(t, "a", func(c *Config) {
		c.Timeout, c.Signaller = 100*time.Millisecond, counting{c.Signaller.(*mailbox)}
	})
	silent := newIdentity(t, "silent")
	x.join(silent)
	_, _, err := a.Dial(limit(t, 20*time.Second), silent.DeviceID())
	if !errors.Is(err, ErrNoPath) {
		t.Fatal(err)
	}
	for _, part := range []string{"no answer through the DHT in 0.", "(2 nodes asked, 1 took the call, but the device listens at none of them"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not told by %q", part, err)
		}
	}
}

// slowToSay is a signaller that says only at the end why it has sent nothing.
type slowToSay struct{ *mailbox }

func (s slowToSay) Send(ctx context.Context, _ identity.DeviceID, _ []byte) error {
	<-ctx.Done()
	return errTest
}

func TestAnOfferThatWasNotSentInTimeSaysWhy(t *testing.T) {
	x := newExchange()
	a := x.newDevice(t, "a", func(c *Config) {
		c.Timeout, c.Signaller = 100*time.Millisecond, slowToSay{c.Signaller.(*mailbox)}
	})
	_, _, err := a.Dial(limit(t, 20*time.Second), newIdentity(t, "b").DeviceID())
	if !errors.Is(err, ErrNoPath) || !strings.Contains(err.Error(), "the offer could not be sent in ") || !strings.Contains(err.Error(), errTest.Error()) {
		t.Error(err)
	}
}

func TestAFailingSignallerFailsTheDialAtOnceWithItsCause(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a"), x.newDevice(t, "b")
	a.box.alter = func(identity.DeviceID, []byte) ([]byte, error) { return nil, errTest }
	_, _, err := a.Dial(limit(t, 20*time.Second), b.id.DeviceID())
	if !errors.Is(err, errTest) || errors.Is(err, ErrNoPath) {
		t.Errorf("error %v", err)
	}
}

func TestACancelledDialReturnsAtOnceAndIsNotErrNoPath(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a"), x.newDevice(t, "b")
	ctx, cancel := context.WithCancel(t.Context())
	a.box.alter = func(identity.DeviceID, []byte) ([]byte, error) { cancel(); return nil, nil }
	_, _, err := a.Dial(ctx, b.id.DeviceID())
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrNoPath) {
		t.Errorf("error %v", err)
	}
}

// fault: F5, E8
func TestTooManyCandidatesAreCutAndTheRestConnects(t *testing.T) {
	eachEngine(t, func(t *testing.T, names []string) {
		x := newExchange()
		many := func(c *Config) {
			c.Addresses = func() ([]netip.Addr, error) {
				out := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
				for i := range 200 {
					out = append(out, netip.AddrFrom4([4]byte{127, 1, 0, byte(i + 1)}))
				}
				return out, nil
			}
		}
		a, b := x.newDevice(t, "a", engines(names...), many), x.newDevice(t, "b", engines(names...), many)
		check := func(m *message) {
			if n := m.candidates(); n == 0 || n > maxCandidates {
				t.Errorf("%s with %d candidates", m.kind, n)
			}
		}
		a.box.alter, b.box.alter = rewrite(check), rewrite(check)
		connect(t, a, b)
	})
}

func TestEnginesThatBothSidesHaveAreUsed(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a", engines("udp", "tcp")), x.newDevice(t, "b", engines("tcp"))
	connect(t, a, b)
	connect(t, b, a)
	c := x.newDevice(t, "c", engines("udp"))
	_, _, err := c.Dial(limit(t, 20*time.Second), b.id.DeviceID())
	var refused *RefusedError
	if !errors.As(err, &refused) || !strings.Contains(refused.Reason, "engine") {
		t.Errorf("without a common engine: %v", err)
	}
}

// When TCP leads nowhere, UDP carries on, and the other way round.
func TestTheOtherEngineTakesOverWhenThePreferredOneFails(t *testing.T) {
	for _, broken := range []string{engineTCP, engineUDP} {
		t.Run(broken, func(t *testing.T) {
			x := newExchange()
			a, b := x.newDevice(t, "a"), x.newDevice(t, "b")
			breakIt := rewrite(func(m *message) {
				dead := []candidate{{hostCandidate, netip.MustParseAddrPort("127.0.0.1:9")}}
				if broken == engineTCP {
					m.tcp.candidates = dead
				} else {
					m.udp.candidates = dead
				}
			})
			a.box.alter, b.box.alter = breakIt, breakIt
			conn, _ := connect(t, a, b)
			if p := conn.(interface{ Path() route.Path }).Path().String(); strings.HasPrefix(p, broken) {
				t.Errorf("path %s", p)
			}
		})
	}
}

// An answer counts only from the device that was asked, only to a request that
// runs, and only once.
// fault: E3
func TestForgedLateAndRepeatedAnswersAreIgnored(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a"), x.newDevice(t, "b")
	mallory := newIdentity(t, "mallory")
	box := x.join(mallory)
	refusal := func(id requestID) []byte {
		out, err := (&message{kind: kindRefuse, id: id, reason: "forged"}).encode()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	ctx := limit(t, 20*time.Second)
	var id requestID
	a.box.alter = func(_ identity.DeviceID, msg []byte) ([]byte, error) {
		m, err := decode(msg, true)
		if err != nil {
			return nil, err
		}
		id = m.id
		// Mallory has learnt the id somehow, and is first.
		if err := box.Send(ctx, a.id.DeviceID(), refusal(id)); err != nil {
			return nil, err
		}
		// And the right device answers something else first.
		return msg, b.box.Send(ctx, a.id.DeviceID(), refusal(newRequestID()))
	}
	connect(t, a, b)
	waitFor(t, func() bool { return a.Stats().SignalsIgnored >= 2 && a.Stats().Outgoing == 0 })
	before := a.Stats().SignalsIgnored
	if err := b.box.Send(ctx, a.id.DeviceID(), refusal(id)); err != nil { // late
		t.Fatal(err)
	}
	waitFor(t, func() bool { return a.Stats().SignalsIgnored == before+1 })
}

func TestARepeatedAnswerIsIgnoredWhileTheRequestRuns(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a"), x.newDevice(t, "b")
	n, err := a.begin(t.Context(), b.id.DeviceID())
	if err != nil {
		t.Fatal(err)
	}
	defer a.finish(n)
	for i, want := range []uint64{0, 1, 2} {
		msg, err := (&message{kind: kindAnswer, id: n.id, tcp: &tcpPart{}}).encode()
		if err != nil {
			t.Fatal(err)
		}
		a.handle(b.id.Peer(), msg)
		if got := a.Stats().SignalsIgnored; got != want {
			t.Errorf("after %d answers %d ignored, want %d", i+1, got, want)
		}
	}
}

// fault: E1
func TestARepeatedOfferIsIgnored(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a"), x.newDevice(t, "b")
	asked := make(chan struct{}, 16)
	b.Decide(func(context.Context, identity.Peer) error { asked <- struct{}{}; return nil })
	var offer []byte
	a.box.alter = func(_ identity.DeviceID, msg []byte) ([]byte, error) { offer = msg; return msg, nil }
	connect(t, a, b)
	waitFor(t, func() bool { return b.Stats().Incoming == 0 })
	for range 3 {
		b.handle(a.id.Peer(), offer)
	}
	if s := b.Stats(); s.SignalsIgnored != 3 || s.Incoming != 0 {
		t.Errorf("stats %+v", s)
	}
	if len(asked) != 1 {
		t.Errorf("asked %d times", len(asked))
	}
}

// fault: E2
func TestAnOfferToOneselfAndMalformedSignalsAreIgnored(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a"), x.newDevice(t, "b")
	offer, err := (&message{kind: kindOffer, id: newRequestID(), tcp: &tcpPart{key: checkKey{1}}}).encode()
	if err != nil {
		t.Fatal(err)
	}
	future, err := (&message{kind: 77, id: newRequestID()}).encode()
	if err != nil {
		t.Fatal(err)
	}
	a.handle(a.id.Peer(), offer)
	a.handle(b.id.Peer(), future)
	a.handle(b.id.Peer(), nil)
	a.handle(b.id.Peer(), make([]byte, maxMessage+1))
	if s := a.Stats(); s.SignalsIgnored != 4 || s.Incoming != 0 {
		t.Errorf("stats %+v", s)
	}
}

// Another device at the offered address, knowing the offer's key: TLS tells.
// fault: D1
func TestAnotherDeviceAtTheCandidatesIsNotTaken(t *testing.T) {
	singleEngines(t, func(t *testing.T, name string) {
		x := newExchange()
		short := func(c *Config) { c.Timeout = time.Second }
		a := x.newDevice(t, "a", engines(name), short)
		// mallory reads b's mail and answers in b's name.
		mallory := x.newDevice(t, "mallory", engines(name))
		b := newIdentity(t, "b")
		x.mu.Lock()
		x.boxes[b.DeviceID()] = mallory.box
		x.mu.Unlock()
		mallory.box.self = b.Peer()
		_, _, err := a.Dial(limit(t, 20*time.Second), b.DeviceID())
		if !errors.Is(err, ErrNoPath) || !strings.Contains(err.Error(), mallory.id.DeviceID().String()) {
			t.Errorf("error %v", err)
		}
	})
}

// The caller is not who its offer says: the callee does not deliver a stream.
// fault: D1
func TestACallerOfAnotherDeviceIsNotAccepted(t *testing.T) {
	singleEngines(t, func(t *testing.T, name string) {
		x := newExchange()
		short := func(c *Config) { c.Timeout = time.Second }
		mallory, b := x.newDevice(t, "mallory", engines(name), short), x.newDevice(t, "b", engines(name), short)
		alice := newIdentity(t, "alice")
		x.mu.Lock()
		x.boxes[alice.DeviceID()] = mallory.box
		x.mu.Unlock()
		mallory.box.self = alice.Peer()
		conn, _, err := mallory.Dial(limit(t, 20*time.Second), b.id.DeviceID())
		if err == nil { // TLS 1.3: the client is done before the server has judged
			defer conn.Close()
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read: %v", err)
			}
		}
		waitFor(t, func() bool { return b.Stats().Incoming == 0 })
		if len(b.acceptc) != 0 {
			t.Error("a stream was delivered")
		}
	})
}

// A TLS 1.3 client is done before the server has judged it: Dial waits until
// the device has taken the stream.
func TestDialDoesNotSucceedWithAStreamThatTheDeviceGivesUp(t *testing.T) {
	singleEngines(t, func(t *testing.T, name string) {
		x := newExchange()
		a := x.newDevice(t, "a", engines(name), func(c *Config) { c.Timeout = time.Second })
		b := x.newDevice(t, "b", engines(name))
		b.Decide(func(context.Context, identity.Peer) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, n := range b.incoming {
				n.mu.Lock()
				n.won = true // as if it had taken another one
				n.mu.Unlock()
			}
			return nil
		})
		conn, _, err := a.Dial(limit(t, 20*time.Second), b.id.DeviceID())
		if !errors.Is(err, ErrNoPath) {
			t.Errorf("dialled %v, %v", conn, err)
		}
	})
}

// fault: E3
func TestLostSignalsAreSentAgain(t *testing.T) {
	for _, c := range []struct{ lost, engine string }{
		{"offer", "tcp"},
		{"answer", "udp"}, // over TCP the callee's connection would do for the answer
	} {
		t.Run(c.lost, func(t *testing.T) {
			t.Parallel()
			x := newExchange()
			a, b := x.newDevice(t, "alice", engines(c.engine)), x.newDevice(t, "bob", engines(c.engine))
			loser := a
			if c.lost == "answer" {
				loser = b
			}
			var mu sync.Mutex
			sent := 0
			loser.box.alter = func(_ identity.DeviceID, msg []byte) ([]byte, error) {
				mu.Lock()
				defer mu.Unlock()
				if sent++; sent == 1 {
					return nil, nil
				}
				return msg, nil
			}
			ca, cb := connect(t, a, b)
			defer ca.Close()
			defer cb.Close()
			mu.Lock()
			defer mu.Unlock()
			if sent < 2 {
				t.Errorf("%d signals were sent, want the lost one and another", sent)
			}
		})
	}
}
