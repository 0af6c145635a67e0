package webrtc

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"peerlink/identity"
	"peerlink/internal/calls"
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

// Both call at once: the call of the smaller id goes first, each Dial ends in a stream
// that the other accepts, and the second one does not run into a time-out.
//
// fault: E3
func TestBothCallAtOnce(t *testing.T) {
	x := newExchange()
	one, two := newIdentity(t, "one"), newIdentity(t, "two")
	if one.DeviceID().String() > two.DeviceID().String() {
		one, two = two, one
	}
	a, b := x.deviceOf(t, one), x.deviceOf(t, two)
	// b's offer is there before a's goes out, which has been made by then: the
	// two cross.
	ctx := limit(t, patience)
	made, arrived := make(chan struct{}), make(chan struct{})
	var hold, first sync.Once
	a.box.Alter = func(_ identity.DeviceID, m []byte) ([]byte, error) {
		hold.Do(func() {
			close(made)
			select {
			case <-arrived:
			case <-ctx.Done():
			}
		})
		return m, nil
	}
	var offers []callID
	b.box.Alter = func(to identity.DeviceID, m []byte) (_ []byte, err error) {
		d, err := decode(m, loopback)
		if err != nil || d.kind != calls.Offer {
			return m, err
		}
		first.Do(func() {
			select {
			case <-made:
			case <-ctx.Done():
			}
			err = b.box.Pass(context.Background(), to, m)
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
	if a.board.Ignored() == 0 {
		t.Error("the second one's offer was not passed over: the two calls did not cross")
	}
}

// A Dial that nobody answers says how far it came and what was tried.
func TestNoAnswer(t *testing.T) {
	x := newExchange()
	a := x.newDevice(t, "alice")
	bob := newIdentity(t, "bob")
	box := x.Join(bob) // hears, and says nothing
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
