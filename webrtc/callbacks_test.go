package webrtc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"peerlink/identity"
	"peerlink/internal/calls"
	"peerlink/internal/pause"
)

// courier is an application's own signalling: JSON in no order, some of it
// twice, and nobody proven.
type courier struct {
	t     testing.TB
	mu    sync.Mutex
	mates map[identity.DeviceID]*Transport
	lie   func(from, to identity.DeviceID) identity.DeviceID // whom to name; nil: the truth
	mess  bool
	busy  sync.WaitGroup
}

func newCourier(t testing.TB) *courier {
	c := &courier{t: t, mates: make(map[identity.DeviceID]*Transport)}
	t.Cleanup(c.busy.Wait)
	return c
}

// parcel is what goes over the application's wire.
type parcel struct {
	Description *Description
	Candidate   *Candidate
}

// bring delivers p, now or, in a mess, when it likes.
func (c *courier) bring(ctx context.Context, from, to identity.DeviceID, p parcel) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	c.mu.Lock()
	far := c.mates[to]
	if c.lie != nil {
		from = c.lie(from, to)
	}
	c.mu.Unlock()
	if far == nil {
		return errors.New("the courier does not know the device")
	}
	times := 1
	if c.mess {
		times += rand.IntN(2)
	}
	for range times {
		c.busy.Go(func() {
			if c.mess && pause.For(ctx, rand.N(20*time.Millisecond)) != nil {
				return
			}
			var p parcel
			if err := json.Unmarshal(b, &p); err != nil {
				c.t.Error(err)
				return
			}
			// An error is about what came late or twice.
			if p.Description != nil {
				_ = far.SetRemoteDescription(from, *p.Description)
			} else {
				_ = far.AddRemoteCandidate(from, *p.Candidate)
			}
		})
	}
	return nil
}

// newDevice makes a device that signals by the courier alone.
func (c *courier) newDevice(name string, change ...func(*Config)) *device {
	return c.deviceOf(newIdentity(c.t, name), change...)
}

func (c *courier) deviceOf(id *identity.Identity, change ...func(*Config)) *device {
	c.t.Helper()
	me := id.DeviceID()
	cfg := Config{
		Identity: id, Loopback: true,
		OnLocalDescription: func(ctx context.Context, to identity.DeviceID, d Description) error {
			return c.bring(ctx, me, to, parcel{Description: &d})
		},
		OnLocalCandidate: func(ctx context.Context, to identity.DeviceID, l Candidate) error {
			return c.bring(ctx, me, to, parcel{Candidate: &l})
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	tr, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	tr.linger = patience
	c.t.Cleanup(func() { tr.Close(); tr.late.Wait() })
	c.mu.Lock()
	c.mates[me] = tr
	c.mu.Unlock()
	return &device{Transport: tr, id: id}
}

func TestCallbacksCarryACall(t *testing.T) {
	c := newCourier(t)
	a, b := c.newDevice("alice"), c.newDevice("bob")
	x, y := connect(t, a, b)
	talk(t, x, y)
	talk(t, y, x)
}

// Over a signalling that shuffles and repeats, both call at once, and both end
// in a stream.
//
// fault: E3
func TestCallbacksInAMess(t *testing.T) {
	c := newCourier(t)
	c.mess = true
	a, b := c.newDevice("alice"), c.newDevice("bob")
	ctx := limit(t, patience)
	aIn, bIn := a.acceptLater(ctx), b.acceptLater(ctx)
	aOut, bOut := a.dialLater(ctx, b), b.dialLater(ctx, a)
	var got [4]outcome
	for i, o := range []<-chan outcome{aOut, bIn, bOut, aIn} {
		if got[i] = <-o; got[i].err != nil {
			t.Fatalf("%d: %v", i, got[i].err)
		}
		defer got[i].conn.Close()
	}
	talk(t, got[0].conn, got[1].conn)
	talk(t, got[2].conn, got[3].conn)
}

// Candidates that come before their offer are used: here the offer has none.
func TestCandidatesMayComeFirst(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "alice"), x.newDevice(t, "bob")
	for _, d := range []*device{a, b} {
		d.box.Alter = func(to identity.DeviceID, raw []byte) ([]byte, error) {
			m, err := decode(raw, loopback)
			if err != nil || len(m.candidates) == 0 || m.kind != calls.Offer && m.kind != calls.Answer {
				return raw, err
			}
			first, err := (&message{kind: calls.More, id: m.id, candidates: m.candidates}).encode()
			if err == nil {
				err = d.box.Pass(context.Background(), to, first)
			}
			if err != nil {
				return nil, err
			}
			m.candidates = nil
			return m.encode()
		}
	}
	c, s := connect(t, a, b)
	talk(t, c, s)
}

// Whoever the application says has called: only who proves to be that device
// gets a stream, and is asked about as what it has proven.
//
// fault: D1
func TestCallbacksProveNobody(t *testing.T) {
	c := newCourier(t)
	alice, bob, mallory := c.newDevice("alice"), c.newDevice("bob"), c.newDevice("mallory")
	asked := make(chan identity.Peer, 8)
	bob.Decide(func(_ context.Context, p identity.Peer) error { asked <- p; return nil })

	// The courier says that mallory's signals are alice's, and brings hers bob's.
	c.lie = func(from, _ identity.DeviceID) identity.DeviceID {
		if from == mallory.id.DeviceID() {
			return alice.id.DeviceID()
		}
		return from
	}
	c.mates[alice.id.DeviceID()] = mallory.Transport
	ctx, cancel := context.WithCancel(limit(t, patience))
	in := bob.acceptLater(ctx)
	if _, p, err := mallory.Dial(ctx, bob.id.DeviceID()); err == nil {
		t.Errorf("mallory reached %v as alice", p)
	}
	bob.idle(t)
	cancel()
	if r := <-in; r.err == nil {
		t.Errorf("bob took mallory for %v", r.peer)
	}
	select {
	case p := <-asked:
		t.Errorf("bob was asked about %v, of whom nothing was proven", p)
	default:
	}

	c.mu.Lock()
	c.lie, c.mates[alice.id.DeviceID()] = nil, alice.Transport
	c.mu.Unlock()
	connect(t, alice, bob)
	select {
	case p := <-asked:
		if p.Device != alice.id.DeviceID() || p.Account != alice.id.AccountID() {
			t.Errorf("bob was asked about %v", p)
		}
	default:
		t.Error("alice was let in without a question")
	}
}

// A decision against a caller that has proven itself reaches it as such; the
// account counts, though the application only knew the device.
//
// fault: D5
func TestCallbacksAskOnceTheCallerIsProven(t *testing.T) {
	c := newCourier(t)
	alice, mallory := newIdentity(t, "alice"), newIdentity(t, "mallory")
	var trust identity.Trust
	trust.SetPolicy(identity.RefuseUndecided)
	if err := errors.Join(trust.Set(alice.AccountID(), identity.Allowed), trust.Set(mallory.DeviceID(), identity.Banned)); err != nil {
		t.Fatal(err)
	}
	bob := c.newDevice("bob", func(cfg *Config) { cfg.Trust = &trust })
	a, m, o := c.deviceOf(alice), c.deviceOf(mallory), c.newDevice("nobody")
	connect(t, a, bob)

	ctx := limit(t, patience)
	_, _, err := m.Dial(ctx, bob.id.DeviceID())
	var refused *RefusedError
	if err == nil || errors.As(err, &refused) || !strings.Contains(err.Error(), "not trusted") {
		t.Errorf("banned: %v, want a refusal that nobody has proven", err)
	}
	if _, _, err := o.Dial(ctx, bob.id.DeviceID()); err == nil {
		t.Error("a device about which nothing was decided was let in")
	}

	bob.Decide(func(context.Context, identity.Peer) error { return errors.New("not tonight") })
	if _, _, err := a.Dial(ctx, bob.id.DeviceID()); !errors.As(err, &refused) || refused.Reason != "not tonight" {
		t.Errorf("refused: %v", err)
	}
}

// fault: A2, B6
func TestCallbacksRefuseWhatMakesNoSense(t *testing.T) {
	c := newCourier(t)
	a := c.newDevice("alice")
	from := newIdentity(t, "bob").DeviceID()
	call := strings.Repeat("1d", 16)
	for name, d := range map[string]Description{
		"no type":             {Call: call},
		"answer to no call":   {Call: call, Type: Answer, SDP: vectorSDP},
		"refusal of no call":  {Call: call, Type: Refusal},
		"call of 31 digits":   {Call: call[1:], Type: Offer, SDP: vectorSDP},
		"offer without SDP":   {Call: call, Type: Offer},
		"SDP of 4097 bytes":   {Call: call, Type: Offer, SDP: strings.Repeat("a", maxDescription+1)},
		"17 candidates":       {Call: call, Type: Offer, SDP: vectorSDP, Candidates: make([]string, maxCandidates+1)},
		"a megabyte of words": {Call: strings.Repeat("x", 1<<20), Type: Offer},
	} {
		if err := a.SetRemoteDescription(from, d); err == nil || len(err.Error()) > 400 {
			t.Errorf("%s: %.500v", name, err)
		}
	}
	if err := a.AddRemoteCandidate(from, Candidate{call, strings.Repeat("x", maxCandidateLen+1)}); err == nil {
		t.Error("a long candidate was taken")
	}
	if err := a.AddRemoteCandidate(identity.DeviceID{}, Candidate{call, vectorHost}); err == nil {
		t.Error("a candidate of nobody was taken")
	}
	a.Close()
	if err := a.AddRemoteCandidate(from, Candidate{call, vectorHost}); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
	b := newExchange().newDevice(t, "bob")
	if err := b.SetRemoteDescription(from, Description{Call: call, Type: Refusal}); !errors.Is(err, errOwnSignaller) {
		t.Errorf("with a Signaller: %v", err)
	}
}

// What the application's signalling fails with is what Dial fails with.
func TestCallbackErrorsAreTold(t *testing.T) {
	c := newCourier(t)
	a := c.newDevice("alice", func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil)) })
	_, _, err := a.Dial(limit(t, patience), newIdentity(t, "bob").DeviceID())
	if err == nil || !strings.Contains(err.Error(), "the courier does not know the device") {
		t.Error(err)
	}
}
