package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// memory returns the bytes of live heap and of stacks after collection.
func memory() float64 {
	runtime.GC()
	runtime.GC() // what pools kept once more
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// settled waits until memory no longer falls: a link that has just been made
// and the ends of one before hold buffers for a moment.
func settled(ctx context.Context) (float64, error) {
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	for was := memory(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		now := memory()
		if now >= was {
			return was, nil
		}
		was = now
	}
}

// idleChannels is how many idle channels are counted: so many that what a link
// has once does not show.
const idleChannels = 10_000

// idle gives the memory of an idle channel in bytes, both ends. Each has been
// used once, and nobody waits in a Read.
func idle(ctx context.Context, p *pair, _ time.Duration) ([]sample, error) {
	conn, err := p.open(ctx, taskOnce)
	if err != nil {
		return nil, err
	}
	if err := conn.Close(); err != nil {
		return nil, err
	}
	near := make([]net.Conn, 0, idleChannels)
	p.far.expect(idleChannels)
	before, err := settled(ctx)
	if err != nil {
		return nil, err
	}
	for range idleChannels {
		conn, err := p.open(ctx, taskHold)
		if err != nil {
			return nil, err
		}
		near = append(near, conn)
	}
	after := memory()
	for i, c := range p.far.holding() { // in the order of opening
		if err := deliver(c, near[i]); err != nil {
			return nil, fmt.Errorf("idle channel %d of %d: %w", i+1, idleChannels, err)
		}
	}
	return []sample{alone((after - before) / idleChannels)}, nil
}

// deliver sends a byte from a to b: the channel is still alive, and the right one.
func deliver(a, b net.Conn) error {
	out := [1]byte{byte(rand.Uint32())}
	var in [1]byte
	if _, err := a.Write(out[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(b, in[:]); err != nil {
		return err
	}
	if in != out {
		return errWrong
	}
	return nil
}

// jammed are streams that nobody reads, each with a writer that is stuck.
type jammed struct {
	conns []net.Conn
	took  atomic.Int64 // bytes that Writes took
	wg    sync.WaitGroup
}

const (
	// mostJammed is how much all writers offer together. Nothing that is bounded
	// takes it.
	mostJammed = 256 << 20
	// quiet is how long no Write returns before all count as stuck.
	quiet = 100 * time.Millisecond
)

// errUnbounded is a transport that takes everything.
var errUnbounded = errors.New("streams that nobody reads took all that was offered")

// jam opens n streams that are not read, and writes to each until no writer
// gets on. The writers stay stuck until end.
func jam(ctx context.Context, p *pair, n int) (*jammed, error) {
	j := &jammed{}
	for range n {
		conn, err := p.open(ctx, taskHold)
		if err != nil {
			j.end()
			return nil, err
		}
		j.conns = append(j.conns, conn)
	}
	chunk := newBlock()[:4<<10] // a Write that is cut short tells nothing before its end
	for _, c := range j.conns {
		j.wg.Go(func() {
			for j.took.Load() < mostJammed {
				k, err := c.Write(chunk)
				j.took.Add(int64(k))
				if err != nil {
					return // reset for want of memory, or ended
				}
			}
		})
	}
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	for was := int64(-1); was != j.took.Load(); {
		was = j.took.Load()
		select {
		case <-tick.C:
		case <-ctx.Done():
			j.end()
			return nil, context.Cause(ctx)
		}
	}
	if j.took.Load() >= mostJammed {
		j.end()
		return nil, errUnbounded
	}
	return j, nil
}

// end closes the streams and waits for the writers.
func (j *jammed) end() {
	for _, c := range j.conns {
		_ = c.Close()
	}
	j.wg.Wait()
}
