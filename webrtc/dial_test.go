package webrtc

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/identity"
	"peerlink/internal/trace"
)

// talk shows that two ends belong together.
func talk(t *testing.T, a, b net.Conn) {
	t.Helper()
	if _, err := a.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, err := b.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Fatalf("read %q, %v", buf[:n], err)
	}
}

// Both call at once: whatever each was told of politeness, one call goes first,
// each Dial ends in a stream that the other accepts, and the second one does not
// run into a time-out. fault: E3
func TestBothCallAtOnce(t *testing.T) {
	silent := func(m *message) { m.firmness = 0 }
	for name, tt := range map[string]struct {
		first, second Politeness // of the one whose call is to go first, and the other
		larger        bool       // the first one's id is the larger
		tell          func(*message)
	}{
		"neither says":                    {ByID, ByID, false, nil},
		"the smaller id gives way":        {ByID, Polite, true, nil},
		"the larger id insists":           {Impolite, ByID, true, nil},
		"one gives way, one insists":      {Impolite, Polite, true, nil},
		"both give way":                   {Polite, Polite, false, nil},
		"both insist":                     {Impolite, Impolite, false, nil},
		"one insists, and is not heard":   {ByID, Impolite, false, silent},
		"one gives way, and is not heard": {Polite, ByID, false, silent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newExchange()
			one, two := newIdentity(t, "one"), newIdentity(t, "two")
			if goesFirst(one.DeviceID(), two.DeviceID()) == tt.larger {
				one, two = two, one
			}
			a := x.deviceOf(t, one, func(c *Config) { c.Politeness = tt.first })
			b := x.deviceOf(t, two, func(c *Config) { c.Politeness = tt.second })
			callAtOnce(t, a, b, tt.tell)
		})
	}
}

// callAtOnce has two devices call each other; a's call is to go first. tell may
// change what their offers say.
func callAtOnce(t *testing.T, a, b *device, tell func(*message)) {
	// b's offer is there before a's goes out, which has been made by then: the
	// two cross.
	made, arrived := make(chan struct{}), make(chan struct{})
	var hold, first sync.Once
	a.box.alter = func(_ identity.DeviceID, m []byte) ([]byte, error) {
		hold.Do(func() { close(made); <-arrived })
		return retold(m, tell)
	}
	var offers []callID
	b.box.alter = func(to identity.DeviceID, m []byte) (_ []byte, err error) {
		d, err := decode(m, loopback)
		if err != nil || d.kind != kindOffer {
			return m, err
		}
		if m, err = retold(m, tell); err != nil {
			return nil, err
		}
		first.Do(func() {
			<-made
			err = b.box.pass(context.Background(), to, m)
			m = nil
			close(arrived)
		})
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(offers) > 0 && offers[0] != d.id && len(b.conns) == 0 {
			t.Error("the second one called anew before the first one's call was through")
		}
		offers = append(offers, d.id)
		return m, err
	}
	ctx := limit(t, patience)
	aIn, bIn := a.acceptLater(ctx), b.acceptLater(ctx)
	aOut, bOut := a.dialLater(ctx, b), b.dialLater(ctx, a)
	got := make(map[string]outcome)
	for name, c := range map[string]<-chan outcome{"the first dials": aOut, "the second accepts": bIn, "the second dials": bOut, "the first accepts": aIn} {
		o := <-c
		if o.err != nil {
			t.Fatalf("%s: %v", name, o.err)
		}
		got[name] = o
		defer o.conn.Close()
	}
	talk(t, got["the first dials"].conn, got["the second accepts"].conn)
	talk(t, got["the second dials"].conn, got["the first accepts"].conn)
	if a.Ignored() == 0 {
		t.Error("the second one's offer was not passed over: the two calls did not cross")
	}
}

// retold is a signal that was changed on its way.
func retold(b []byte, tell func(*message)) ([]byte, error) {
	if tell == nil {
		return b, nil
	}
	m, err := decode(b, loopback)
	if err != nil {
		return nil, err
	}
	tell(m)
	return m.encode()
}

// A Dial that is called off once the device's own call is through, as a
// connection manager does, ends at once and leaves one stream.
func TestCrossedDialCanBeCalledOff(t *testing.T) {
	x := newExchange()
	small, large := newIdentity(t, "one"), newIdentity(t, "two")
	if !goesFirst(small.DeviceID(), large.DeviceID()) {
		small, large = large, small
	}
	a, b := x.deviceOf(t, small), x.deviceOf(t, large)
	arrived := make(chan struct{})
	arrive := sync.OnceFunc(func() { close(arrived) })
	b.box.alter = func(_ identity.DeviceID, m []byte) ([]byte, error) {
		if d, err := decode(m, loopback); err == nil && d.kind == kindOffer {
			arrive()
			return nil, nil // it never gets through
		}
		return m, nil
	}
	ctx := limit(t, patience)
	dialling, off := context.WithCancelCause(ctx)
	bOut := b.dialLater(dialling, a)
	<-arrived
	bIn := b.acceptLater(ctx)
	aConn, _, err := a.Dial(ctx, large.DeviceID())
	if err != nil {
		t.Fatal(err)
	}
	in := <-bIn
	if in.err != nil {
		t.Fatal(in.err)
	}
	enough := errors.New("there is a link now")
	off(enough)
	if o := <-bOut; !errors.Is(o.err, enough) {
		t.Errorf("the crossed dial ended with %v", o.err)
	}
	talk(t, aConn, in.conn)
}

// Signals that get lost are made good by repeating the offer.
func TestLostSignalsAreRepeated(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "alice"), x.newDevice(t, "bob")
	for _, d := range []*device{a, b} {
		var n atomic.Int32
		d.box.alter = func(_ identity.DeviceID, m []byte) ([]byte, error) {
			if n.Add(1) == 1 {
				return nil, nil // the first offer, and the first answer
			}
			return m, nil
		}
	}
	c, s := connect(t, a, b)
	talk(t, c, s)
}

func TestRefusals(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "alice"), x.newDevice(t, "bob")
	ctx := limit(t, patience)
	b.Decide(func(_ context.Context, peer identity.Peer) error {
		if peer.Device != a.id.DeviceID() {
			t.Errorf("asked about %v", peer)
		}
		return errors.New("no, thank you")
	})
	_, _, err := a.Dial(ctx, b.id.DeviceID())
	var said *RefusedError
	if !errors.As(err, &said) || said.Refused() != "no, thank you" || said.Peer != b.id.DeviceID() {
		t.Errorf("refused call: %v", err)
	}
	b.Decide(nil)
	c, s := connect(t, a, b)
	talk(t, c, s)
}

// Who is banned here is neither called nor answered. fault: D5 (before the
// connection; the manager ends those that exist)
func TestBannedDevice(t *testing.T) {
	x := newExchange()
	trust := &identity.Trust{}
	a := x.newDevice(t, "alice")
	b := x.newDevice(t, "bob", func(c *Config) { c.Trust = trust })
	if err := trust.Set(a.id.DeviceID(), identity.Banned); err != nil {
		t.Fatal(err)
	}
	ctx := limit(t, patience)
	if _, _, err := b.Dial(ctx, a.id.DeviceID()); !errors.Is(err, identity.ErrNotTrusted) {
		t.Errorf("dial of a banned device: %v", err)
	}
	_, _, err := a.Dial(ctx, b.id.DeviceID())
	var said *RefusedError
	if !errors.As(err, &said) {
		t.Errorf("call of a banned device: %v", err)
	}
}

// An offer that was served is not served again. fault: E1
func TestReplayedOffer(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "alice"), x.newDevice(t, "bob")
	var offer atomic.Pointer[[]byte]
	a.box.alter = func(_ identity.DeviceID, m []byte) ([]byte, error) {
		if d, err := decode(m, loopback); err == nil && d.kind == kindOffer {
			offer.Store(&m)
		}
		return m, nil
	}
	c, s := connect(t, a, b)
	talk(t, c, s)
	if err := b.receive(a.id.Peer(), *offer.Load()); err == nil {
		t.Error("the replay was served")
	}
}

// A device cannot have more calls waiting than its share, and is told so.
func TestCallsOfOneDeviceAreBounded(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "alice"), x.newDevice(t, "bob", func(c *Config) { c.MaxPerPeer = 2 })
	ctx := limit(t, patience)
	for range 2 { // nobody accepts them
		if _, _, err := a.Dial(ctx, b.id.DeviceID()); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := a.Dial(ctx, b.id.DeviceID())
	var said *RefusedError
	if !errors.As(err, &said) || !strings.HasPrefix(said.Reason, "busy") {
		t.Errorf("third call: %v", err)
	}
	if _, _, err := b.Accept(ctx); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Dial(ctx, b.id.DeviceID()); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// A Dial that nobody answers says how far it came and what was tried.
func TestNoAnswer(t *testing.T) {
	x := newExchange()
	a := x.newDevice(t, "alice")
	bob := newIdentity(t, "bob")
	box := x.join(bob) // hears, and says nothing
	ctx, late := context.WithCancelCause(limit(t, patience))
	out, told := make(chan struct{}), make(chan struct{})
	sent := sync.OnceFunc(func() { close(out) })
	ctx = trace.With(ctx, func(e trace.Event) {
		if e.Step == trace.OfferSent {
			sent()
		}
	})
	go func() { // its time is over when the offer is out, and a candidate
		for tell := sync.OnceFunc(func() { close(told) }); ; {
			_, raw, err := box.Receive(ctx)
			if err != nil {
				return
			}
			if m, err := decode(raw, loopback); err == nil && strings.Contains(strings.Join(m.candidates, " "), "127.0.0.1") {
				tell()
			}
		}
	}()
	go func() {
		<-out
		<-told
		late(context.DeadlineExceeded)
	}()
	_, _, err := a.Dial(ctx, bob.DeviceID())
	if !errors.Is(err, ErrNoPath) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	for _, part := range []string{bob.DeviceID().Short(), "no answer", "offers sent: ", "udp host 127.0.0.1"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %q", part, err)
		}
	}
	if _, _, err = a.Dial(limit(t, patience), newIdentity(t, "nobody").DeviceID()); err == nil || !strings.Contains(err.Error(), "no mailbox") {
		t.Errorf("where the signaller cannot send: %v", err)
	}
}

// Config.Timeout ends a Dial, wherever it is by then.
func TestTimeoutEndsADial(t *testing.T) {
	x := newExchange()
	a := x.newDevice(t, "alice", func(c *Config) { c.Timeout = 50 * time.Millisecond })
	bob := newIdentity(t, "bob")
	x.join(bob)
	if _, _, err := a.Dial(limit(t, patience), bob.DeviceID()); !errors.Is(err, ErrNoPath) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// Close ends what runs, promptly, and what was called says so.
func TestCloseEndsDialAndAccept(t *testing.T) {
	x := newExchange()
	a := x.newDevice(t, "alice")
	bob := newIdentity(t, "bob")
	box := x.join(bob)
	ctx := limit(t, patience)
	dialling := make(chan error, 1)
	go func() { _, _, err := a.Dial(ctx, bob.DeviceID()); dialling <- err }()
	acceptc := a.acceptLater(ctx)
	<-box.inc // the offer is out
	a.Close()
	if err := <-dialling; !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial: %v", err)
	}
	if r := <-acceptc; !errors.Is(r.err, net.ErrClosed) {
		t.Errorf("accept: %v", r.err)
	}
	if _, _, err := a.Dial(ctx, bob.DeviceID()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial after close: %v", err)
	}
}
