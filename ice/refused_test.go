package ice

import (
	"context"
	"errors"
	"testing"
	"time"

	"peerlink/identity"
)

// A callee that bans the caller between its answer and the handshake ends the
// handshake, and the caller hears that at once, over either engine.
//
// fault: D5
func TestRefusalInTheHandshakeIsToldAtOnce(t *testing.T) {
	singleEngines(t, func(t *testing.T, name string) {
		x := newExchange()
		var trust identity.Trust
		a, b := x.newDevice(t, "a", engines(name)), x.newDevice(t, "b", engines(name), func(c *Config) { c.Trust = &trust })
		b.Decide(func(context.Context, identity.Peer) error { return trust.Set(a.id.DeviceID(), identity.Banned) })
		began := time.Now()
		_, _, err := a.Dial(limit(t, 20*time.Second), b.id.DeviceID())
		var lasting interface{ Permanent() bool }
		if !errors.As(err, &lasting) || !lasting.Permanent() || time.Since(began) > 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// A signaller need not know the caller's account: the program is then asked once
// the stream has proven it.
func TestCallerThatTheSignallerDoesNotProveIsDecidedOnByItsStream(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a"), x.newDevice(t, "b")
	a.box.Self = identity.Peer{Device: a.id.DeviceID()}
	asked := make(chan identity.Peer, 2)
	answer := errors.New("not now")
	b.Decide(func(_ context.Context, p identity.Peer) error { asked <- p; return answer })
	conn, _, err := a.Dial(limit(t, 20*time.Second), b.id.DeviceID())
	if err == nil { // the path was there before the program was asked
		if _, err = conn.Read(make([]byte, 1)); err == nil {
			t.Error("a caller that was refused has a stream")
		}
		conn.Close()
	}
	select {
	case p := <-asked:
		if p.Device != a.id.DeviceID() || p.Account != a.id.AccountID() {
			t.Errorf("asked about %v", p)
		}
	case <-limit(t, 20*time.Second).Done(): // the refusal may be there first
		t.Fatalf("the program was not asked: %v", err)
	}
	answer = nil
	conn, _, err = a.Dial(limit(t, 20*time.Second), b.id.DeviceID())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	there, peer, err := b.Accept(limit(t, 20*time.Second))
	if err != nil || peer.Account != a.id.AccountID() {
		t.Fatalf("%v, %v", peer, err)
	}
	there.Close()
	if len(asked) != 1 {
		t.Errorf("the program was asked %d times about the second call", len(asked))
	}
}
