package dht

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// busy is a node that can take so many newcomers a second and turns others away.
type busy struct {
	perTick int // a tick is 100 ms

	mu    sync.Mutex
	down  bool
	since time.Time
	ticks map[int64]int // attempts
}

func (b *busy) attempt(context.Context) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	tick := int64(time.Since(b.since) / (100 * time.Millisecond))
	b.ticks[tick]++
	return !b.down && b.ticks[tick] <= b.perTick
}

// begin counts anew.
func (b *busy) begin(down bool, perTick int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.perTick = perTick
	b.down, b.since, b.ticks = down, time.Now(), make(map[int64]int)
}

// most is how many attempts came within one tick at most.
func (b *busy) most() (most int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.ticks {
		most = max(most, n)
	}
	return most
}

// A thousand devices lose their only node, which restarts: their attempts are
// spread, none starves, and they do not march in step while it is down.
//
// fault: E7
func TestThousandDevicesComeBackSpreadOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const devices, perTick = 1000, 40
		node := &busy{}
		node.begin(false, devices)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		joined := make([]time.Time, devices)
		var mu sync.Mutex
		pacers := make([]pacer, devices)
		for i := range pacers {
			pacers[i] = newPacer()
			go pacers[i].run(ctx, func(ctx context.Context) bool {
				ok := node.attempt(ctx)
				mu.Lock()
				defer mu.Unlock()
				if ok && joined[i].IsZero() {
					joined[i] = time.Now()
				}
				return ok
			})
		}
		lose := func(down bool) {
			synctest.Wait()
			mu.Lock()
			clear(joined)
			mu.Unlock()
			node.begin(down, perTick)
			for _, p := range pacers {
				p.kick(lostWithin)
			}
		}
		missing := func() (n int) {
			mu.Lock()
			defer mu.Unlock()
			for _, at := range joined {
				if at.IsZero() {
					n++
				}
			}
			return n
		}
		lose(false)
		time.Sleep(lostWithin + pacerMinPause + 1)
		if most := node.most(); most > devices/10 {
			t.Errorf("%d of %d devices came within 100 ms", most, devices)
		}
		time.Sleep(30 * time.Second)
		if n := missing(); n > 0 {
			t.Errorf("%d devices have not come back", n)
		}
		lose(true) // and stays down for a while
		time.Sleep(2 * time.Minute)
		if most := node.most(); most > devices/10 {
			t.Errorf("%d attempts within 100 ms while it was down", most)
		}
		node.begin(false, perTick)
		time.Sleep(joinMaxDelay*3/2 + 30*time.Second)
		if n := missing(); n > 0 {
			t.Errorf("%d devices have not come back after the long outage", n)
		}
		cancel()
		synctest.Wait()
	})
}

// Whoever waits for the network does not wait for the back-off, and asking
// without end does not make it spin.
func TestKickShortensThePauseButDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var attempts atomic.Int64
		go p.run(ctx, func(context.Context) bool { attempts.Add(1); return true })
		synctest.Wait()
		start := time.Now()
		p.kick(askedWithin)
		for attempts.Load() < 2 {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(start); took > askedWithin+pacerMinPause+time.Millisecond {
			t.Errorf("it took %v", took)
		}
		before := attempts.Load()
		for range 1000 { // for ten seconds
			p.kick(askedWithin)
			time.Sleep(10 * time.Millisecond)
		}
		if n := attempts.Load() - before; n > 100 || n < 10 {
			t.Errorf("%d attempts in 10 s", n)
		}
		cancel()
		synctest.Wait()
	})
}
