package bench

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// flow is what several sources sent at once.
type flow struct {
	each []int64 // bytes of each, verified
	took time.Duration
	cpu  float64 // seconds of the process; NaN where the system does not tell
}

func (f flow) total() (n float64) {
	for _, k := range f.each {
		n += float64(k)
	}
	return n
}

// rate is the speed of all together in MB/s.
func (f flow) rate() float64 { return f.total() / 1e6 / f.took.Seconds() }

// sources opens n streams for bulk.
func sources(ctx context.Context, p *pair, n int) ([]*source, error) {
	var ss []*source
	for range n {
		conn, err := p.open(ctx, taskSink)
		if err != nil {
			closeAll(ss)
			return nil, err
		}
		ss = append(ss, &source{conn: conn, block: newBlock()})
	}
	return ss, nil
}

func closeAll(ss []*source) {
	for _, s := range ss {
		_ = s.conn.Close() // all that was sent is verified, or the measure fails
	}
}

// send lets all sources send for d, in writes of size bytes, until the last
// report is here.
func send(ss []*source, size int, d time.Duration) (flow, error) {
	var stop atomic.Bool
	defer time.AfterFunc(d, func() { stop.Store(true) }).Stop()
	f := flow{each: make([]int64, len(ss))}
	errs := make([]error, len(ss))
	began, before := time.Now(), cpuTime()
	var wg sync.WaitGroup
	for i, s := range ss {
		wg.Go(func() { f.each[i], errs[i] = s.phase(size, &stop) })
	}
	wg.Wait()
	f.took, f.cpu = time.Since(began), cpuTime()-before
	return f, errors.Join(errs...)
}

// warmUp is the part of a measure's time that goes before it.
func warmUp(d time.Duration) time.Duration { return d / 4 }

// stream opens streams for bulk, warms them up, and sends over them for d.
func stream(ctx context.Context, p *pair, d time.Duration, size, streams int) (flow, error) {
	ss, err := sources(ctx, p, streams)
	if err != nil {
		return flow{}, err
	}
	defer closeAll(ss)
	if _, err := send(ss, size, warmUp(d)); err != nil {
		return flow{}, err
	}
	return send(ss, size, d)
}

// speed gives the speed of one stream, in MB/s.
func speed(ctx context.Context, p *pair, d time.Duration, size int) ([]sample, error) {
	f, err := stream(ctx, p, d, size, 1)
	return []sample{alone(f.rate())}, err
}

// bulk gives the speed of one stream in MB/s, and its CPU time in s/GB.
func bulk(ctx context.Context, p *pair, d time.Duration) ([]sample, error) {
	f, err := stream(ctx, p, d, 64<<10, 1)
	return []sample{alone(f.rate()), alone(f.cpu / (f.total() / 1e9))}, err
}

// eight gives the sum of eight streams' speeds and the slowest's against the
// mean, in MB/s.
func eight(ctx context.Context, p *pair, d time.Duration) ([]sample, error) {
	f, err := stream(ctx, p, d, 64<<10, 8)
	if err != nil {
		return nil, err
	}
	mbps := func(n float64) float64 { return n / 1e6 / f.took.Seconds() }
	return []sample{alone(f.rate()), {mbps(float64(slices.Min(f.each))), mbps(f.total() / 8)}}, nil
}

// besideBulk makes a round trip every millisecond while a source sends for d,
// and returns their times and what was sent. Back to back, the many quick trips
// that fit into a pause of the bulk would hide the slow ones.
func besideBulk(t *trips, s *source, d time.Duration) ([]time.Duration, flow, error) {
	var f flow
	var errBulk error
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		defer done.Store(true)
		f, errBulk = send([]*source{s}, 64<<10, d)
	})
	times, err := everyMillisecond(t, d, &done)
	wg.Wait()
	return times, f, errors.Join(err, errBulk)
}

func everyMillisecond(t *trips, d time.Duration, done *atomic.Bool) ([]time.Duration, error) {
	times := make([]time.Duration, 0, d/time.Millisecond+1)
	began := time.Now()
	for next := began; next.Sub(began) < d && !done.Load(); next = next.Add(time.Millisecond) {
		time.Sleep(time.Until(next))
		start := time.Now()
		if err := t.once(); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
		if late := time.Since(next); late > time.Millisecond {
			next = next.Add(late.Truncate(time.Millisecond))
		}
	}
	return times, nil
}

// loaded opens a stream for bulk and one for round trips, and warms up.
func loaded(ctx context.Context, p *pair, d time.Duration) (*trips, *source, error) {
	conn, err := p.open(ctx, taskEcho)
	if err != nil {
		return nil, nil, err
	}
	ss, err := sources(ctx, p, 1)
	if err != nil {
		return nil, nil, err
	}
	t := &trips{conn: conn}
	_, _, err = besideBulk(t, ss[0], warmUp(d))
	return t, ss[0], err
}

// beside gives the median and the 99th of a hundred round trips beside bulk, in
// µs, and the bulk's speed against its speed alone: half before, half after.
func beside(ctx context.Context, p *pair, d time.Duration) ([]sample, error) {
	t, s, err := loaded(ctx, p, d)
	if err != nil {
		return nil, err
	}
	before, err1 := send([]*source{s}, 64<<10, d/2)
	times, bulk, err2 := besideBulk(t, s, d)
	after, err3 := send([]*source{s}, 64<<10, d/2)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	return []sample{alone(quantile(times, .5)), alone(quantile(times, .99)), {bulk.rate(), mean(before, after)}}, nil
}

// besideRaw is the baseline of the round trips alone.
func besideRaw(ctx context.Context, p *pair, d time.Duration) ([]sample, error) {
	t, s, err := loaded(ctx, p, d)
	if err != nil {
		return nil, err
	}
	times, _, err := besideBulk(t, s, d)
	return []sample{alone(quantile(times, .5)), alone(quantile(times, .99))}, err
}

// mean is the speed over both, in MB/s.
func mean(a, b flow) float64 {
	return (a.total() + b.total()) / 1e6 / (a.took + b.took).Seconds()
}

// stalled gives the speed of a fresh channel while n others are not read, in
// MB/s, against its speed without them, half before and half after; and by how
// many MiB the memory has grown since the link was idle.
func stalled(ctx context.Context, p *pair, d time.Duration, n int) ([]sample, error) {
	idle, err := settled(ctx)
	if err != nil {
		return nil, err
	}
	before, err := stream(ctx, p, d/2, 64<<10, 1)
	if err != nil {
		return nil, err
	}
	j, err := jam(ctx, p, n)
	if err != nil {
		return nil, err
	}
	grown := memory() - idle
	during, err := stream(ctx, p, d, 64<<10, 1)
	j.end()
	p.far.release()
	if err != nil {
		return nil, err
	}
	after, err := stream(ctx, p, d/2, 64<<10, 1)
	if err != nil {
		return nil, err
	}
	return []sample{{during.rate(), mean(before, after)}, alone(grown / (1 << 20))}, nil
}
