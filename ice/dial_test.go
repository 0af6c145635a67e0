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
	a.box.Alter, b.box.Alter = rewrite(unreachable), rewrite(unreachable)
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
	waitFor(t, func() bool { return b.idle() && a.idle() })
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
		a.box.Alter, b.box.Alter = rewrite(check), rewrite(check)
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
			a.box.Alter, b.box.Alter = breakIt, breakIt
			conn, _ := connect(t, a, b)
			if p := conn.(interface{ Path() route.Path }).Path().String(); strings.HasPrefix(p, broken) {
				t.Errorf("path %s", p)
			}
		})
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
		x.Redirect(b.DeviceID(), mallory.box)
		mallory.box.Self = b.Peer()
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
		x.Redirect(alice.DeviceID(), mallory.box)
		mallory.box.Self = alice.Peer()
		conn, _, err := mallory.Dial(limit(t, 20*time.Second), b.id.DeviceID())
		if err == nil { // TLS 1.3: the client is done before the server has judged
			defer conn.Close()
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read: %v", err)
			}
		}
		waitFor(t, b.idle)
		if b.accepted() {
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
		over := func() {}
		defer func() { over() }()
		b.box.Alter = func(_ identity.DeviceID, msg []byte) ([]byte, error) {
			m, err := decode(msg, true)
			if err != nil {
				return nil, err
			}
			n := b.board.Side(m.id, true).(*negotiation)
			if n.win() { // as if it had taken another one
				over = func() { n.deliveredc <- delivered{err: errEnded} }
			}
			return msg, nil
		}
		conn, _, err := a.Dial(limit(t, 20*time.Second), b.id.DeviceID())
		if !errors.Is(err, ErrNoPath) {
			t.Errorf("dialled %v, %v", conn, err)
		}
	})
}
