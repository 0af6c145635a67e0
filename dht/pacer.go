package dht

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"

	"peerlink/internal/pause"
)

// Pace of joining. The first retries are quick, as the usual reason is a network
// that comes up; the jitter spreads a thousand devices whose node restarts.
const (
	joinFirstDelay = 250 * time.Millisecond
	joinMaxDelay   = 30 * time.Second
	joinJitter     = 0.5
	joinedDelay    = time.Minute            // between tries for the nodes that were down
	askedWithin    = 2 * joinFirstDelay     // when somebody waits for the network
	lostWithin     = 2 * time.Second        // when the last connection was lost: all others lost it, too
	pacerMinPause  = 100 * time.Millisecond // between two attempts, whatever is asked
)

type pacer struct {
	kickc  chan time.Duration // asks for an attempt within so long
	freshc chan time.Duration // and for short pauses from then on
}

func newPacer() pacer {
	return pacer{kickc: make(chan time.Duration, 1), freshc: make(chan time.Duration, 1)}
}

// kick asks for an attempt at a random time within d. One that is asked for
// already may come later.
func (p pacer) kick(d time.Duration) { pause.Tell(p.kickc, d) }

// restart is kick, and forgets how long it has not worked: the reason is gone.
func (p pacer) restart(d time.Duration) { pause.Tell(p.freshc, d) }

// run calls attempt until ctx is done: at once, then after growing pauses while
// it reports that the network was not joined, then now and then. What is kicked
// to come within a longer time also begins with longer pauses: then there is a
// crowd, and those that were turned away must not make a second one.
func (p pacer) run(ctx context.Context, attempt func(context.Context) bool) {
	bo := backoff.NewExponentialBackOff()
	bo.InitialInterval, bo.MaxInterval, bo.RandomizationFactor = joinFirstDelay, joinMaxDelay, joinJitter
	for ctx.Err() == nil {
		var delay time.Duration
		if attempt(ctx) {
			bo.InitialInterval = joinFirstDelay
			bo.Reset()
			delay = jittered(joinedDelay)
		} else {
			delay = bo.NextBackOff()
		}
		within, fresh := p.pause(ctx, delay)
		switch {
		case fresh:
			bo.InitialInterval = joinFirstDelay
			bo.Reset()
		case within > bo.InitialInterval:
			bo.InitialInterval = within
			bo.Reset()
		}
	}
}

// pause waits for delay, or shorter when a kick comes, but never spins. It
// returns what the kick said, and whether it was a restart.
func (p pacer) pause(ctx context.Context, delay time.Duration) (within time.Duration, fresh bool) {
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return 0, false
	case <-t.C:
		return 0, false
	case within = <-p.kickc:
	case within = <-p.freshc:
		fresh = true
	}
	soon := time.NewTimer(min(delay, pacerMinPause+rand.N(within)))
	defer soon.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-soon.C:
	}
	return within, fresh
}

// jittered spreads d over ±25 %.
func jittered(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2)
}
