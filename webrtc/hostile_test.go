package webrtc

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pion "github.com/pion/webrtc/v4"

	"peerlink/identity"
	"peerlink/internal/calls"
)

// between is a signaller's operator who answers each side in the other's name,
// with DTLS certificates of his own, and passes on what both say.
type between struct {
	*Transport // for its sessions; it is never called
	t          *testing.T
	carried    atomic.Int32 // messages passed on
	donec      chan struct{}
}

func newBetween(t *testing.T) *between {
	m := newExchange().newDevice(t, "mallory")
	return &between{Transport: m.Transport, t: t, donec: make(chan struct{})}
}

// intercept makes him take over the call that alice makes to bob.
func (m *between) intercept(alice, bob *device) {
	var far *session
	alice.box.Alter = func(to identity.DeviceID, b []byte) ([]byte, error) {
		msg, err := decode(b, loopback)
		if err != nil || msg.kind != calls.Offer || far != nil {
			return nil, err
		}
		near, err := m.newSession(context.Background(), callee, msg.id, alice.id.DeviceID(), nil)
		if err != nil {
			return nil, err
		}
		answer, err := near.answer(msg)
		if err != nil {
			return nil, err
		}
		if far, err = m.newSession(context.Background(), caller, msg.id, to, nil); err != nil {
			return nil, err
		}
		offer, err := far.offer()
		if err != nil {
			return nil, err
		}
		ctx := limit(m.t, patience)
		// All of them: what is found later is told to nobody here.
		for _, s := range []*session{near, far} {
			select {
			case <-pion.GatheringCompletePromise(s.pc):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		go m.carry(near, far)
		mine, err := (&message{kind: calls.Answer, id: msg.id, sdp: answer, candidates: near.all()}).encode()
		if err != nil {
			return nil, err
		}
		if err := bob.box.Pass(ctx, alice.id.DeviceID(), mine); err != nil {
			return nil, err
		}
		return (&message{kind: calls.Offer, id: msg.id, sdp: offer, candidates: far.all()}).encode()
	}
	bob.box.Alter = func(_ identity.DeviceID, b []byte) ([]byte, error) {
		msg, err := decode(b, loopback)
		if err != nil || msg.kind != calls.Answer {
			return nil, err
		}
		return nil, far.describe(pion.SDPTypeAnswer, msg)
	}
}

// carry passes messages on, both ways, until one side hangs up.
func (m *between) carry(near, far *session) {
	defer close(m.donec)
	defer far.hangUp()
	defer near.hangUp()
	var a, b *channelPair
	for _, c := range []struct {
		s    *session
		pair **channelPair
	}{{near, &a}, {far, &b}} {
		select {
		case *c.pair = <-c.s.openc:
		case <-c.s.lostc:
			return
		}
	}
	copied := make(chan struct{}, 2)
	pass := func(from, to messages) {
		defer func() { copied <- struct{}{} }()
		buf := make([]byte, maxMessage)
		for {
			n, text, err := from.ReadDataChannel(buf)
			if err != nil {
				return
			}
			m.carried.Add(1)
			if _, err := to.WriteDataChannel(buf[:n], text); err != nil {
				return
			}
		}
	}
	go pass(a, b)
	go pass(b, a)
	<-copied
	near.hangUp()
	far.hangUp()
	<-copied
}

// A signaller that swaps fingerprints stands between the two DTLS channels,
// can read everything said before the proof, and gets no further. fault: D2
func TestSignallerThatSwapsFingerprintsFails(t *testing.T) {
	x := newExchange()
	var heard lockedBuffer // of bob
	alice, bob := x.newDevice(t, "alice"), x.newDevice(t, "bob", func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(&heard, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	m := newBetween(t)
	m.intercept(alice, bob)
	ctx, cancel := context.WithCancel(limit(t, patience))
	acceptc := bob.acceptLater(ctx)
	conn, peer, err := alice.Dial(ctx, bob.id.DeviceID())
	if err == nil {
		t.Fatalf("alice got a stream to %v (%v)", peer, conn)
	}
	var said interface{ Refused() string }
	if errors.As(err, &said) {
		t.Errorf("the man between spoke in bob's name: %v", err)
	}
	<-m.donec
	if n := m.carried.Load(); n < 3 {
		t.Errorf("only %d messages were passed on: the attack has not come as far as the proofs", n)
	}
	bob.idle(t)
	cancel()
	if r := <-acceptc; r.err == nil {
		t.Errorf("bob got a stream of %v", r.peer)
	}
	bob.Close()
	// Whichever side gets the other's proof first sees what happened; the other
	// may only see the end of the channel.
	if !errors.Is(err, identity.ErrSignature) && !strings.Contains(heard.String(), identity.ErrSignature.Error()) {
		t.Errorf("alice: %v; bob: %s", err, heard.String())
	}
}

// lockedBuffer keeps a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// idle waits until no call runs.
func (d *device) idle(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		if _, in := d.board.Running(); in == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("a call does not end")
		}
	}
}

// Fingerprints that nobody's certificate has: DTLS itself fails, in time.
func TestWrongFingerprintsFail(t *testing.T) {
	x := newExchange()
	short := func(c *Config) { c.Timeout = 3 * time.Second }
	alice, bob, other := x.newDevice(t, "alice", short), x.newDevice(t, "bob", short), newBetween(t)
	bob.box.Alter = func(_ identity.DeviceID, b []byte) ([]byte, error) {
		msg, err := decode(b, loopback)
		if err != nil || msg.kind != calls.Answer {
			return b, err
		}
		s, err := other.newSession(context.Background(), caller, msg.id, alice.id.DeviceID(), nil)
		if err != nil {
			return nil, err
		}
		defer s.hangUp()
		offer, err := s.offer()
		if err != nil {
			return nil, err
		}
		msg.sdp = printLine.ReplaceAllString(msg.sdp, printLine.FindString(offer))
		return msg.encode()
	}
	_, _, err := alice.Dial(limit(t, patience), bob.id.DeviceID())
	if err == nil {
		t.Fatal("dialled")
	}
	if errors.Is(err, os.ErrDeadlineExceeded) != errors.Is(err, ErrNoPath) {
		t.Errorf("%v", err)
	}
}

var printLine = regexp.MustCompile(`(?m)^a=fingerprint:[^\r\n]*`)
