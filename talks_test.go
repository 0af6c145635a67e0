package peerlink

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/identity"
)

func newTalks() *talks {
	return &talks{byDevice: make(map[identity.DeviceID][]*negotiation), greeting: make(map[identity.DeviceID]int)}
}

// Callers share a negotiation if they want a link of the same carriers and none
// of their own.
func TestCallersJoinTheNegotiationThatServesThem(t *testing.T) {
	ts, bob := newTalks(), identity.DeviceID{2}
	began := map[string]*negotiation{}
	for name, opts := range map[string]ConnectOptions{
		"any": {}, "none": {Carriers: []string{}}, "tcp": {Carriers: []string{"tcp"}}, "alone": {Mode: NewLink},
	} {
		began[name] = ts.begin(bob, opts, func(error) {})
		if n := ts.joinable(bob, opts); n != nil {
			t.Errorf("%s: a caller joins a negotiation that has no callers left", name)
		}
		began[name].join(t.Context())
		if n := ts.joinable(bob, opts); n != began[name] && name != "alone" || n != nil && name == "alone" {
			t.Errorf("%s: a caller joins %+v", name, n)
		}
	}
	if ts.joinable(identity.DeviceID{3}, ConnectOptions{}) != nil || ts.joinable(bob, ConnectOptions{Carriers: []string{"ice"}}) != nil {
		t.Error("a caller joins a negotiation with another device, or over other carriers")
	}
	if !ts.end(began["any"], nil, errAbandoned) || ts.end(began["any"], nil, errLost) || ts.n != 3 || ts.joinable(bob, ConnectOptions{}) != nil {
		t.Errorf("a negotiation ends twice, or not at all: %d are left", ts.n)
	}
	<-began["any"].done
}

// The peer's link ends the negotiations that it serves.
func TestInboundLinkEndsTheNegotiationsThatItServes(t *testing.T) {
	ts, bob := newTalks(), identity.DeviceID{2}
	l := &link{peer: identity.Peer{Device: bob}, carrier: "tcp"}
	for _, c := range []struct {
		opts   ConnectOptions
		served bool
	}{
		{ConnectOptions{}, true},
		{ConnectOptions{Carriers: []string{"ice", "tcp"}}, true},
		{ConnectOptions{Carriers: []string{"ice"}}, false},
		{ConnectOptions{Mode: NewLink}, false},
	} {
		var why error
		n := ts.begin(bob, c.opts, func(err error) { why = err })
		ts.complete(l)
		if n.over != c.served || (n.link == l) != c.served || errors.Is(why, errCrossed) != c.served {
			t.Errorf("%+v: ended: %v with %p, because of %v", c.opts, n.over, n.link, why)
		}
		if hello := ts.greet(n); hello == c.served {
			t.Errorf("%+v: says hello: %v", c.opts, hello)
		}
	}
}

func TestGreetingIsQuietAfterTheLastHello(t *testing.T) {
	ts, bob := newTalks(), identity.DeviceID{2}
	n, alone := ts.begin(bob, ConnectOptions{}, nil), ts.begin(bob, ConnectOptions{Mode: NewLink}, nil)
	if !ts.greet(alone) || len(ts.greeting) != 0 {
		t.Error("a link that was asked for by itself makes the peer's wait")
	}
	ts.greeted(alone)
	ts.greet(n)
	ts.greet(n)
	quiet := ts.quiet.Next()
	ts.greeted(n)
	select {
	case <-quiet:
		t.Error("quiet while a stream greets")
	default:
	}
	ts.greeted(n)
	<-quiet
	if len(ts.greeting) != 0 {
		t.Errorf("%d devices are greeted", len(ts.greeting))
	}
}

// A round that fails is told to the callers without a deadline; the others wait
// for the next, and their error has the attempts of both.
func TestNegotiationGoesOnForPatientCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTalks().begin(identity.DeviceID{2}, ConnectOptions{}, nil)
		noWay := errors.New("no way")
		ends := n.join(t.Context())
		if n.pause(noWay) {
			t.Error("another round, for a caller that does not wait for it")
		}
		patient, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if n.join(patient) != nil {
			t.Error("a patient caller leaves with the round")
		}
		try := func(carrier string) {
			n.now = append(n.now, attempt{Attempt{Carrier: carrier, Took: time.Second, Err: noWay}, time.Now(), carrier})
		}
		try("tcp")
		if !n.pause(noWay) {
			t.Error("no other round")
		}
		<-ends
		if err := n.leave(t.Context()); err != noWay || n.waiters != 1 {
			t.Errorf("the caller is told %v, %d wait", err, n.waiters)
		}
		try("ice")
		<-patient.Done()
		var ce *ConnectError
		err := n.leave(patient)
		if !errors.As(err, &ce) || ce.Rounds != 2 || len(ce.Attempts) != 2 || !errors.Is(err, context.DeadlineExceeded) || n.waiters+n.patient != 0 {
			t.Errorf("the patient caller is told %v", err)
		}
	})
}
