package bench

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"runtime"
	"sync"
	"time"

	"peerlink/internal/pause"
	"peerlink/multiplex"
)

// moveFor copies a block again and again, n bytes at a time, for d.
func moveFor(ctx context.Context, n int, d time.Duration) (figures, error) {
	from, to := newBlock(), make([]byte, blockLen)
	moved := func(d time.Duration) (total int64) {
		for began := time.Now(); time.Since(began) < d && ctx.Err() == nil; {
			for at := 0; at < blockLen; at += n {
				copy(to[at:at+n], from[at:])
			}
			total += blockLen
		}
		return total
	}
	moved(warmUp(d))
	began, before := time.Now(), cpuTime()
	gb := float64(moved(d)) / 1e9
	f := noFigures()
	f[gbps], f[cpuPerGB] = gb/time.Since(began).Seconds(), (cpuTime()-before)/gb
	return f, context.Cause(ctx)
}

// writes sends bulk one way for d, in writes of size bytes.
func (l *lab) writes(ctx context.Context, w way, size int, d time.Duration) (figures, error) {
	p, err := l.over(ctx, w)
	if err != nil {
		return figures{}, err
	}
	defer p.close()
	defer context.AfterFunc(ctx, p.close)()
	conn, err := p.open(ctx, taskSample)
	if err != nil {
		return figures{}, err
	}
	s := []*source{{conn: conn, block: newBlock()}}
	if _, err := send(s, size, warmUp(d)); err != nil {
		return figures{}, err
	}
	before, err := l.cpu()
	if err != nil {
		return figures{}, err
	}
	sent, err := send(s, size, d)
	if err != nil {
		return figures{}, err
	}
	after, err := l.cpu()
	f := noFigures()
	f[gbps], f[cpuPerGB] = sent.rate()/1e3, (after-before)/(sent.total()/1e9)
	return f, err
}

// trips makes round trips one way for d.
func (l *lab) trips(ctx context.Context, w way, d time.Duration) (figures, error) {
	p, err := l.over(ctx, w)
	if err != nil {
		return figures{}, err
	}
	defer p.close()
	defer context.AfterFunc(ctx, p.close)()
	s, err := roundTrips(ctx, p, d)
	if err != nil {
		return figures{}, err
	}
	f := noFigures()
	f[tripP50], f[tripP99] = s[0].value, s[1].value
	return f, nil
}

const (
	// idleConns is how many idle connections are watched, and idleBeacons how
	// often their links, if they have any, send a beacon.
	idleConns   = 200
	idleBeacons = 250 * time.Millisecond
	// idleTime is for how long they are watched at least: what making them leaves
	// to do, a millisecond of work, must not show.
	idleTime = 3 * time.Second
	// idleRegion is the shared memory of each: nothing is sent that needs more.
	idleRegion = 64 << 10
)

// idle watches n idle connections, or links, for d. On both sides somebody waits
// in Read on each.
func (l *lab) idle(ctx context.Context, w way, n int, d time.Duration) (figures, error) {
	p := &openConns{}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer p.close()
	defer context.AfterFunc(ctx, p.close)()
	for range n {
		conn, err := p.add(l.hold(ctx, w))
		if err != nil {
			return figures{}, err
		}
		wg.Go(func() { _, _ = io.Copy(io.Discard, conn) })
	}
	runtime.GC()
	if err := pause.For(ctx, idleBeacons); err != nil { // what setting up left to do
		return figures{}, err
	}
	before, err := l.cpu()
	began := time.Now()
	if err == nil {
		err = pause.For(ctx, d)
	}
	if err != nil {
		return figures{}, err
	}
	took := time.Since(began)
	after, err := l.cpu()
	f := noFigures()
	f[idleCPU] = 1e3 * (after - before) / took.Seconds()
	return f, err
}

// linked is a channel that ends its link with it.
type linked struct {
	net.Conn
	link *multiplex.Socket
}

// Close implements net.Conn.
func (l linked) Close() error { return errors.Join(l.Conn.Close(), l.link.Close()) }

// hold makes an idle connection, or a link with one idle channel.
func (l *lab) hold(ctx context.Context, w way) (net.Conn, error) {
	p := &pair{dial: func(ctx context.Context) (net.Conn, error) { return l.dial(ctx, w.carrier, idleRegion) }}
	if w.linked {
		p.dial = func(ctx context.Context) (net.Conn, error) {
			m, err := l.link(ctx, w.carrier, idleRegion, multiplex.Config{BeaconInterval: idleBeacons})
			if err != nil {
				return nil, err
			}
			c, err := m.OpenEarly(ctx, "bench://")
			if err != nil {
				return nil, errors.Join(err, m.Close())
			}
			return linked{c, m}, nil
		}
	}
	return p.open(ctx, taskIdle)
}

// dials makes connections, one after the other, for d.
func (l *lab) dials(ctx context.Context, w way, d time.Duration) (figures, error) {
	var times []time.Duration
	for began := time.Now(); len(times) == 0 || time.Since(began) < warmUp(d)+d; {
		start := time.Now()
		conn, err := l.dial(ctx, w.carrier, 0)
		if err != nil {
			return figures{}, err
		}
		took := time.Since(start)
		if err := conn.Close(); err != nil {
			return figures{}, err
		}
		if time.Since(began) > warmUp(d) || len(times) == 0 {
			times = append(times, took)
		}
	}
	f := noFigures()
	f[dialTime] = quantile(times, .5) / 1e3
	return f, nil
}

// orNaN is the number, or NaN for none: JSON has no word for it.
func orNaN(v *float64) float64 {
	if v == nil {
		return math.NaN()
	}
	return *v
}
