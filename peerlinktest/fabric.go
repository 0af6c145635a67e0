package peerlinktest

import (
	"context"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"peerlink/internal/pause"
)

// fabric is what all carriers of a network run through: the ways between the
// peers, what is cut, and the streams that there are.
type fabric struct {
	t      testing.TB
	seed   uint64
	all    []Carrier
	serves sync.WaitGroup // what the end of the test waits for

	mu      sync.Mutex
	changed pause.Bell // rings when something is cut or healed
	peers   []*Peer
	ports   map[portKey]*port
	lines   map[string]Line // of a carrier's new ways
	ways    map[key]*way
	down    map[key]bool // by carrier and from
	wires   []*wire      // open, oldest first
	luck    bool         // a line loses something, or has a jitter
}

func newFabric(t testing.TB, seed uint64, all []Carrier) *fabric {
	return &fabric{
		t: t, seed: seed, all: all,
		ports: map[portKey]*port{}, lines: map[string]Line{}, ways: map[key]*way{}, down: map[key]bool{},
	}
}

// way returns one direction between two peers.
func (f *fabric) way(carrier, from, to string) *way {
	k := key{carrier, from, to}
	w := f.ways[k]
	if w == nil {
		h := fnv.New64a() // each way has luck of its own: the others do not disturb it
		_, _ = h.Write([]byte(carrier + "\x00" + from + "\x00" + to))
		w = &way{key: k, Line: f.lines[carrier], dice: rand.New(rand.NewPCG(f.seed, h.Sum64()))}
		f.ways[k] = w
	}
	return w
}

func (f *fabric) blocked(w *way) bool {
	return w.cut || f.down[key{carrier: w.carrier, from: w.from}] || f.down[key{carrier: w.carrier, from: w.to}]
}

// alter changes what is blocked, everywhere at the same moment.
func (f *fabric) alter(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	for _, w := range f.ways {
		if f.blocked(w) {
			w.free = time.Time{} // what waited for it waits no longer
		}
	}
	for _, w := range f.wires {
		w.hold()
	}
	f.changed.Ring()
}

// ring wakes all that wait on a condition in d.
func (f *fabric) ring(wake *sync.Cond, d time.Duration) *time.Timer {
	return time.AfterFunc(d, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		wake.Broadcast()
	})
}

// cross waits as long as a packet without bytes needs for a way.
func (f *fabric) cross(ctx context.Context, carrier, from, to string) error {
	for {
		f.mu.Lock()
		w, changed := f.way(carrier, from, to), f.changed.Next()
		blocked, at := f.blocked(w), w.arrival(0)
		f.mu.Unlock()
		for !blocked && time.Until(at) > 0 {
			if err := pause.Until(ctx, time.Until(at), changed); err != nil {
				return context.Cause(ctx)
			}
			f.mu.Lock()
			blocked, changed = f.blocked(w), f.changed.Next()
			f.mu.Unlock()
		}
		if !blocked {
			return context.Cause(ctx)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// wire is both ends of a connection in memory.
type wire [2]*stream

// pipe returns a connection in memory: from's end, and to's.
func (f *fabric) pipe(carrier, from, to string) (a, b *stream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, y := newFlow(f, f.way(carrier, from, to)), newFlow(f, f.way(carrier, to, from))
	a, b = &stream{f: f, in: y, out: x}, &stream{f: f, in: x, out: y}
	f.wires = append(f.wires, &wire{a, b})
	return a, b
}

func (w *wire) hold() {
	w[0].out.hold()
	w[1].out.hold()
}

// reset breaks the connection. fabric.mu is held.
func (w *wire) reset() {
	w[0].out.end(syscall.ECONNRESET)
	w[1].out.end(syscall.ECONNRESET)
}
