package calls_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"peerlink/ice"
	"peerlink/identity"
	"peerlink/internal/calls"
	"peerlink/internal/calls/callstest"
	"peerlink/webrtc"
)

// patience is what tests wait for that is to happen, on a machine however busy.
const patience = time.Minute

// transport is what the carriers are for a manager.
type transport interface {
	Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error)
	Accept(ctx context.Context) (net.Conn, identity.Peer, error)
	Decide(f func(ctx context.Context, peer identity.Peer) error)
	Close() error
}

// carriers are those whose calls the machine makes.
var carriers = map[string]func(*identity.Identity, *identity.Trust, *callstest.Mailbox, *slog.Logger) (transport, error){
	"ice": func(id *identity.Identity, trust *identity.Trust, box *callstest.Mailbox, log *slog.Logger) (transport, error) {
		return ice.New(ice.Config{Identity: id, Trust: trust, Signaller: box, Loopback: true, Timeout: patience, Logger: log})
	},
	"webrtc": func(id *identity.Identity, trust *identity.Trust, box *callstest.Mailbox, log *slog.Logger) (transport, error) {
		return webrtc.New(webrtc.Config{Identity: id, Trust: trust, Signaller: box, Loopback: true, Timeout: patience, Logger: log})
	},
}

// real is a device over a carrier.
type real struct {
	transport
	id    *identity.Identity
	trust identity.Trust
	box   *callstest.Mailbox
	log   logged
}

// logged keeps a log.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// overEach runs a test with two devices over each carrier.
func overEach(t *testing.T, f func(t *testing.T, ctx context.Context, a, b *real)) {
	for name, open := range carriers {
		t.Run(name, func(t *testing.T) {
			x := callstest.New()
			var pair [2]*real
			for i := range pair {
				id, err := identity.Generate("device")
				if err != nil {
					t.Fatal(err)
				}
				d := &real{id: id, box: x.Join(id)}
				if d.transport, err = open(id, &d.trust, d.box, slog.New(slog.NewTextHandler(&d.log, nil))); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { d.Close() })
				pair[i] = d
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			f(t, ctx, pair[0], pair[1])
		})
	}
}

// talk connects a to b, and sends a few bytes.
func talk(t *testing.T, ctx context.Context, a, b *real) {
	t.Helper()
	got := make(chan error, 1)
	go func() {
		conn, peer, err := b.Accept(ctx)
		if err == nil {
			defer conn.Close()
			var all []byte
			if all, err = io.ReadAll(conn); err == nil && (string(all) != "hello" || peer.Device != a.id.DeviceID()) {
				err = errors.New("read " + string(all) + " of " + peer.String())
			}
		}
		got <- err
	}()
	conn, _, err := a.Dial(ctx, b.id.DeviceID())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Error(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// refusal returns the reason for which a Dial was refused.
func refusal(t *testing.T, ctx context.Context, a, b *real) string {
	t.Helper()
	_, _, err := a.Dial(ctx, b.id.DeviceID())
	var no *calls.RefusedError
	if !errors.As(err, &no) || no.Peer != b.id.DeviceID() {
		t.Fatalf("error %v", err)
	}
	return no.Reason
}

// A decision that panics is a refusal, and nothing else ends by it.
//
// fault: C9
// case: E10
func TestAPanickingDecisionRefusesAndNothingElse(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, a, b *real) {
		b.Decide(func(context.Context, identity.Peer) error { panic("bug in the program") })
		if why := refusal(t, ctx, a, b); why != "internal error" {
			t.Errorf("told is %q", why)
		}
		if log := b.log.String(); !strings.Contains(log, "bug in the program") || !strings.Contains(log, "TestAPanickingDecision") {
			t.Errorf("the log does not tell where it was: %s", log)
		}
		b.Decide(nil)
		talk(t, ctx, a, b)
	})
}

// The callee says no, the caller knows why, in few words, and may call again.
//
// fault: D5
func TestRefusalsTellWhy(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, a, b *real) {
		b.Decide(func(_ context.Context, p identity.Peer) error {
			if p.Device != a.id.DeviceID() || p.Account != a.id.AccountID() {
				t.Errorf("asked about %s", p)
			}
			return errors.New(strings.Repeat("ä", 5000))
		})
		if why := refusal(t, ctx, a, b); why != strings.Repeat("ä", 100) {
			t.Errorf("told is %q", why)
		}
		b.Decide(nil)
		if err := b.trust.Set(a.id.AccountID(), identity.Banned); err != nil {
			t.Fatal(err)
		}
		if why := refusal(t, ctx, a, b); why != "not trusted" {
			t.Errorf("told is %q", why)
		}
		if _, _, err := b.Dial(ctx, a.id.DeviceID()); !errors.Is(err, identity.ErrNotTrusted) {
			t.Errorf("dialled a device of a banned account: %v", err)
		}
		if err := b.trust.Set(a.id.AccountID(), identity.Undecided); err != nil {
			t.Fatal(err)
		}
		talk(t, ctx, a, b)
	})
}

// Signals that get lost are made good by repeating the offer: here the first of
// either side.
//
// fault: E3
func TestLostSignalsAreSentAgain(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, a, b *real) {
		for _, d := range []*real{a, b} {
			var mu sync.Mutex
			sent := 0
			d.box.Alter = func(_ identity.DeviceID, msg []byte) ([]byte, error) {
				mu.Lock()
				defer mu.Unlock()
				if sent++; sent == 1 {
					return nil, nil
				}
				return msg, nil
			}
		}
		talk(t, ctx, a, b)
	})
}

// Both dial at once, and each Dial ends in a stream.
//
// fault: E3
func TestBothDialAtOnceAndBothSucceed(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, a, b *real) {
		var wg sync.WaitGroup
		wg.Go(func() { talk(t, ctx, a, b) })
		wg.Go(func() { talk(t, ctx, b, a) })
		wg.Wait()
	})
}

// Close ends what runs, promptly, and what was called says so.
//
// fault: C10
func TestCloseEndsDialAndAccept(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, a, b *real) {
		asked := make(chan struct{})
		b.Decide(func(ctx context.Context, _ identity.Peer) error { close(asked); <-ctx.Done(); return ctx.Err() })
		var ends []chan error
		later := func(f func() error) {
			c := make(chan error, 1)
			ends = append(ends, c)
			go func() { c <- f() }()
		}
		later(func() error { _, _, err := a.Dial(ctx, b.id.DeviceID()); return err })
		later(func() error { _, _, err := a.Accept(ctx); return err })
		later(func() error { _, _, err := b.Accept(ctx); return err })
		<-asked
		a.Close()
		b.Close()
		later(func() error { _, _, err := a.Dial(ctx, b.id.DeviceID()); return err })
		for i, c := range ends {
			if err := <-c; !errors.Is(err, net.ErrClosed) {
				t.Errorf("%d: %v", i, err)
			}
		}
	})
}
