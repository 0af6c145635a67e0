package multiplex

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// slow is a conn whose writes take half a round trip.
type slow struct {
	net.Conn
	by time.Duration
}

func (s slow) Write(p []byte) (int, error) {
	time.Sleep(s.by)
	return s.Conn.Write(p)
}

// Scenarios 25–28.
func TestBeaconsMeasureTheRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		client, server := Client(slow{a, 30 * time.Millisecond}, Config{}), Server(slow{b, 20 * time.Millisecond}, Config{})
		defer server.Close()
		defer client.Close()
		if client.Stats().RTT != 0 {
			t.Error("a round trip before any beacon")
		}
		time.Sleep(time.Minute)
		if client.Version() != 2 || server.Version() != 2 {
			t.Errorf("versions %d and %d", client.Version(), server.Version())
		}
		for _, s := range []*Socket{client, server} {
			if d := s.Stats().RTT; d < 50*time.Millisecond || d > 130*time.Millisecond {
				t.Errorf("round trip %v", d)
			}
		}
		d, err := client.Ping(t.Context())
		if d != 50*time.Millisecond || err != nil {
			t.Errorf("ping %v, %v", d, err)
		}
	})
}

func TestBeaconsAreSentOnceAnInterval(t *testing.T) {
	facing(t, Config{BeaconInterval: 3 * time.Second}, func(t *testing.T, h *hostile) {
		h.settle()
		for i := range 10 {
			if ms := h.messages('p'); len(ms) != 1 || ms[0].answer {
				t.Fatalf("interval %d: beacons %+v", i, ms)
			}
			h.answerBeacons()
			time.Sleep(3*time.Second - 1)
			if ms := h.messages('p'); len(ms) != 0 {
				t.Fatalf("interval %d: early beacons %+v", i, ms)
			}
			time.Sleep(time.Nanosecond)
		}
	})
}

func TestNoBeaconsForAPeerThatLacksThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{}, Server)
		go h.listen()
		h.send(h.open(1, "x"))
		time.Sleep(10 * time.Minute)
		h.alive()
		if ms := h.messages('p'); len(ms) != 0 || h.s.Version() != 1 {
			t.Errorf("version %d, beacons %+v", h.s.Version(), ms)
		}
		if _, err := h.s.Ping(t.Context()); err == nil {
			t.Error("ping of a peer without beacons")
		}
	})
}

// Scenario 28. fault: B7
func TestUnansweredBeaconEndsTheLinkInItsTime(t *testing.T) {
	for name, busy := range map[string]bool{"idle": false, "a write blocks": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHostile(t, Config{}, Server)
				start := time.Now()
				h.send(frame{protocolID, encodeHello(2, 0)})
				if busy { // nobody reads
					go h.accepted(1).Write(fill(1 << 20))
				} else {
					go h.listen()
				}
				<-h.s.Done()
				if d := time.Since(start); d != 5*time.Second || !errors.Is(h.s.Err(), ErrDead) {
					t.Errorf("after %v: %v", d, h.s.Err())
				}
			})
		})
	}
}

// fault: B7
func TestWithheldAnswerIsNoticedAlthoughThePeerIsBusy(t *testing.T) {
	facing(t, Config{}, func(t *testing.T, h *hostile) {
		start := time.Now()
		for i := 0; h.s.Err() == nil; i++ { // it asks, and never answers
			h.send(frame{protocolID, encodeBeacon(uint64(i), false)})
			time.Sleep(100 * time.Millisecond)
		}
		if d := time.Since(start); d > 6*time.Second || !errors.Is(h.s.Err(), ErrDead) {
			t.Errorf("after %v: %v", d, h.s.Err())
		}
	})
}

func TestSilentPeerIsDeadWhereVersion1IsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{MinVersion: 2}, Server)
		if err := h.s.Ready(context.Background()); !errors.Is(err, ErrDead) {
			t.Errorf("ready: %v", err)
		}
	})
}

func TestPingFailsWithoutAnswerWhenBeaconsAreOff(t *testing.T) {
	facing(t, Config{BeaconInterval: -1}, func(t *testing.T, h *hostile) {
		time.Sleep(time.Hour)
		if ms := h.messages('p'); len(ms) != 0 {
			t.Errorf("beacons %+v", ms)
		}
		start := time.Now()
		if _, err := h.s.Ping(context.Background()); !errors.Is(err, ErrDead) || time.Since(start) != 5*time.Second {
			t.Errorf("ping: %v after %v", err, time.Since(start))
		}
	})
}

func TestPingsAreBounded(t *testing.T) {
	facing(t, Config{}, func(t *testing.T, h *hostile) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		errs := make(chan error)
		for range 100 {
			go func() {
				_, err := h.s.Ping(ctx)
				errs <- err
			}()
		}
		for range 100 {
			if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		if n := len(h.messages('p')); n != maxBeacons {
			t.Errorf("%d beacons were sent", n)
		}
		h.alive()
		h.answerBeacons()
		h.settle()
		time.Sleep(9 * time.Second)
		h.alive()
	})
}

func TestPingEndsWithTheLink(t *testing.T) {
	facing(t, Config{}, func(t *testing.T, h *hostile) {
		errc := make(chan error)
		go func() {
			_, err := h.s.Ping(context.Background())
			errc <- err
		}()
		synctest.Wait()
		h.conn.Close()
		if err := <-errc; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
		if _, err := h.s.Ping(context.Background()); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("ping of a link that ended: %v", err)
		}
	})
}

// An id may be used again once a beacon has come back: a reset that waits must
// not arrive behind the answer.
func TestBeaconAnswerDoesNotOvertakeReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{BeaconInterval: -1}, Server)
		h.send(frame{protocolID, encodeHello(2, 0)})
		h.accepted(1).Close() // its reset waits, for nobody reads yet
		h.send(frame{protocolID, encodeBeacon(7, false)})
		go h.listen()
		var order []byte
		for _, f := range h.received(protocolID) {
			order = append(order, f[2])
		}
		if string(order) != "vxp" {
			t.Errorf("order of messages is %q, want hello, reset, beacon", order)
		}
	})
}
