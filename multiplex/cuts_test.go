package multiplex

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
)

// A load test or a port scan: short connections, each cut off at once, beside a
// channel that has nothing to do with it.
//
// case: E23
func TestShortChannelsThatAreCutOffHarmNobody(t *testing.T) {
	for name, c := range map[string]struct {
		n    int
		open func(*Socket, context.Context, string) (*channel.Socket, error)
		all  bool // are opened first, and then cut off at once
	}{
		"one after the other":        {n: 1040, open: (*Socket).Open},
		"early":                      {n: 1040, open: (*Socket).OpenEarly},
		"ten thousand":               {n: 10_000, open: (*Socket).Open},
		"all at once":                {n: 3000, open: (*Socket).Open, all: true},
		"all at once, not answered ": {n: 250, open: (*Socket).OpenEarly, all: true},
	} {
		t.Run(name, func(t *testing.T) {
			if raceEnabled {
				c.n = min(c.n, 2000)
			}
			synctest.Test(t, func(t *testing.T) {
				client, server, _, _ := eagerPipe(t, Config{})
				a, b := between(t, client, server, "innocent")
				ended := make(chan error, c.n)
				serve(server, func(c *channel.Socket) {
					_, err := io.Copy(io.Discard, c)
					ended <- err
				})
				var open []*channel.Socket
				for i := range c.n {
					s, err := c.open(client, t.Context(), fmt.Sprint(i))
					if err != nil {
						t.Fatalf("channel %d: %v", i, err)
					}
					_, _ = s.Write([]byte("x"))
					if open = append(open, s); !c.all {
						_ = s.Reset(300)
					}
				}
				for _, s := range open {
					_ = s.Reset(300)
				}
				exchange(t, a, b, 3)
				time.Sleep(time.Minute)
				if client.Err() != nil || server.Err() != nil {
					t.Fatalf("the link ended: %v, %v", client.Err(), server.Err())
				}
				exchange(t, a, b, 3)
				if n, m := client.Stats().Channels, server.Stats().Channels; n != 1 || m != 1 {
					t.Errorf("%d and %d channels are left", n, m)
				}
				for range len(ended) {
					if re, ok := errors.AsType[*channel.ResetError](<-ended); !ok || re.Code != 300 {
						t.Errorf("a channel that was cut off ended by %v", re)
					}
				}
			})
		})
	}
}

// case: E23
func TestOpenThatWaitsForItsTurnEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _, _ := eagerPipe(t, Config{})
		serve(server, func(*channel.Socket) {})
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		start := time.Now()
		for i := 0; ; i++ {
			s, err := client.Open(ctx, "x")
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 500*time.Millisecond || i < pacedCuts {
					t.Errorf("open %d: %v after %v", i, err, time.Since(start))
				}
				break
			}
			_ = s.Reset(300)
		}
		if _, err := client.Open(t.Context(), "x"); err != nil {
			t.Errorf("a second later: %v", err)
		}
	})
}

// A peer of an older build does not pace itself.
//
// case: E23
func TestMoreThanEnoughCutOffIsDeclinedForAWhile(t *testing.T) {
	facing(t, Config{BeaconInterval: -1}, func(t *testing.T, h *hostile) {
		innocent := h.accepted(9)
		handlers := 0
		serve(h.s, func(*channel.Socket) { handlers++ })
		for range 2 * maxCuts {
			h.send(h.open(1, "x"))
			h.send(frame{protocolID, encodeReset(1, 300)})
		}
		h.alive()
		declined := 0
		for _, q := range h.requests() {
			if q.answer && !q.accepted {
				if declined++; q.code != channel.CodeResource {
					t.Fatalf("declined by %+v", q)
				}
			}
		}
		if declined != maxCuts || handlers > maxCuts {
			t.Errorf("%d were declined, and %d handlers begun", declined, handlers)
		}
		h.send(frame{9, []byte("fine")})
		if n, err := innocent.Read(make([]byte, 4)); n != 4 || err != nil {
			t.Errorf("the innocent channel: %d, %v", n, err)
		}
		time.Sleep(time.Second)
		h.send(h.open(1, "x"))
		h.alive()
		if qs := h.requests(); !qs[len(qs)-1].accepted {
			t.Errorf("a second later: %+v", qs[len(qs)-1])
		}
	})
}
