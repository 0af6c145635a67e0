package multiplex

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// narrow is a conn on a path that takes so many bytes a second.
type narrow struct {
	net.Conn
	rate int
}

func (n narrow) Write(p []byte) (sum int, err error) {
	const packet = 1200
	for len(p) > 0 && err == nil {
		k := min(packet, len(p))
		time.Sleep(time.Duration(k) * time.Second / time.Duration(n.rate))
		k, err = n.Conn.Write(p[:k])
		sum, p = sum+k, p[k:]
	}
	return sum, err
}

// A transfer over a path on which a window takes half a minute goes on to its
// end, whichever side sends, and what is small does not wait behind all of it.
// fault: F4
func TestSlowPathDoesNotCountAsDead(t *testing.T) {
	for name, both := range map[string]bool{"one sends": false, "both send": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				client, server := Client(narrow{a, 10_000}, Config{}), Server(narrow{b, 10_000}, Config{})
				defer server.Close()
				defer client.Close()
				c, s := pairOn(t, client, server)
				const size = 1 << 20
				transfer := func(to, from net.Conn, done chan<- error) {
					go to.Write(fill(size))
					_, err := io.CopyN(io.Discard, from, size)
					done <- err
				}
				done := make(chan error, 2)
				n := 1
				go transfer(c, s, done)
				if both {
					n = 2
					go transfer(s, c, done)
				}
				time.Sleep(time.Minute)
				if d, err := client.Ping(t.Context()); err != nil || d > 10*time.Second {
					t.Errorf("a ping beside it: %v, %v", d, err)
				}
				for range n {
					if err := <-done; err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

// pairOn opens a channel between two links and returns its ends.
func pairOn(t *testing.T, client, server *Socket) (c, s net.Conn) {
	t.Helper()
	got := make(chan net.Conn, 1)
	go func() {
		defer close(got)
		if r, err := server.Accept(context.Background()); err == nil {
			if end, err := r.Accept(); err == nil {
				got <- end
			}
		}
	}()
	c, err := client.Open(t.Context(), "bulk")
	if err != nil {
		t.Fatal(err)
	}
	if s = <-got; s == nil {
		t.Fatal("no channel came")
	}
	return c, s
}

// A peer whose data keep coming may answer late, but not never.
// fault: B7
func TestWithheldAnswerIsNoticedBesideData(t *testing.T) {
	facing(t, Config{BeaconInterval: 3 * time.Second}, func(t *testing.T, h *hostile) {
		start := time.Now()
		c := h.accepted(1)
		go io.Copy(io.Discard, c)
		for h.s.Err() == nil {
			h.send(frame{1, fill(100)})
			time.Sleep(100 * time.Millisecond)
		}
		if d := time.Since(start); d < 9*time.Second || d > 10500*time.Millisecond || !errors.Is(h.s.Err(), ErrDead) {
			t.Errorf("after %v: %v", d, h.s.Err())
		}
	})
}

// Silence after data ends the link in its time, and a quarter of it.
// fault: B7
func TestSilenceAfterDataIsNoticed(t *testing.T) {
	facing(t, Config{}, func(t *testing.T, h *hostile) {
		c := h.accepted(1)
		go io.Copy(io.Discard, c)
		h.settle()
		h.answerBeacons()
		var last time.Time
		for range 120 { // until a beacon has been under way for 2 s
			h.send(frame{1, fill(100)})
			last = time.Now()
			time.Sleep(100 * time.Millisecond)
		}
		<-h.s.Done()
		if d := time.Since(last); d > 6250*time.Millisecond || !errors.Is(h.s.Err(), ErrDead) {
			t.Errorf("after %v: %v", d, h.s.Err())
		}
	})
}

func TestBatchesFitThePath(t *testing.T) {
	p := pacer{limit: lineCap}
	write := func(rate float64, n int) { // bytes a second
		p.limit = p.after(n, time.Duration(float64(n)/rate*float64(time.Second)))
	}
	for range 3 {
		write(1e6, p.limit)
	}
	if took := float64(p.limit) / 1e6; took > 0.11 || took < 0.05 {
		t.Errorf("a batch of %d takes %.2f s", p.limit, took)
	}
	for range 3 {
		write(1000, p.limit)
	}
	if p.limit != minCap {
		t.Errorf("%d on a very slow path", p.limit)
	}
	for range 1000 {
		write(1e9, rand.IntN(minCap/4))
	}
	if p.limit != minCap {
		t.Errorf("%d, though no batch was full", p.limit)
	}
	for range 5 {
		write(1e9, p.limit)
	}
	if p.limit != lineCap {
		t.Errorf("%d on a path that has become fast", p.limit)
	}
}
