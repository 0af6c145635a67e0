package bench

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// mostTrips bounds the times that are kept of one round: 8 MiB.
const mostTrips = 1 << 20

// roundTrips gives the median and the 99th of a hundred round trips, in µs, and
// what a trip allocates, both ends.
func roundTrips(ctx context.Context, p *pair, d time.Duration) ([]sample, error) {
	conn, err := p.open(ctx, taskEcho)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	t := &trips{conn: conn}
	times := make([]time.Duration, 0, mostTrips)
	if times, err = tripsFor(t, warmUp(d), times); err != nil {
		return nil, err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	times, err = tripsFor(t, d, times[:0])
	runtime.ReadMemStats(&after)
	allocs := float64(after.Mallocs-before.Mallocs) / float64(len(times))
	return []sample{alone(quantile(times, .5)), alone(quantile(times, .99)), alone(allocs)}, err
}

// tripsFor makes round trips for d, one at least, and appends their times while
// there is room.
func tripsFor(t *trips, d time.Duration, times []time.Duration) ([]time.Duration, error) {
	for began, start := time.Now(), time.Now(); ; {
		if err := t.once(); err != nil {
			return times, err
		}
		now := time.Now()
		times = append(times, now.Sub(start))
		if now.Sub(began) >= d || len(times) == cap(times) {
			return times, nil
		}
		start = now
	}
}

// opens gives the median time in µs from opening a channel to its first byte
// back, one after the other.
func opens(ctx context.Context, p *pair, d time.Duration) ([]sample, error) {
	times := make([]time.Duration, 0, mostTrips)
	for began := time.Now(); len(times) == 0 || time.Since(began) < warmUp(d)+d && len(times) < cap(times); {
		start := time.Now()
		conn, err := p.open(ctx, taskOnce)
		if err != nil {
			return nil, err
		}
		took := time.Since(start)
		if err := conn.Close(); err != nil {
			return nil, err
		}
		if time.Since(began) > warmUp(d) {
			times = append(times, took)
		}
	}
	return []sample{alone(quantile(times, .5))}, nil
}

// openers is how many open channels at once.
const openers = 64

// openRate gives how many channels a second are opened, echoed and closed.
func openRate(ctx context.Context, p *pair, d time.Duration) ([]sample, error) {
	if _, _, err := openFor(ctx, p, warmUp(d)); err != nil {
		return nil, err
	}
	n, took, err := openFor(ctx, p, d)
	return []sample{alone(float64(n) / took.Seconds())}, err
}

// openFor lets the openers go on for d, and returns how many channels they
// made, and in which time.
func openFor(ctx context.Context, p *pair, d time.Duration) (int64, time.Duration, error) {
	var stop atomic.Bool
	defer time.AfterFunc(d, func() { stop.Store(true) }).Stop()
	var n atomic.Int64
	errs := make([]error, openers)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for !stop.Load() && errs[i] == nil {
				conn, err := p.open(ctx, taskOnce)
				if err == nil {
					err = conn.Close()
				}
				errs[i] = err
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return n.Load(), time.Since(began), errors.Join(errs...)
}
