package proving

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"peerlink/internal/pause"
	"peerlink/internal/quota"
)

// Gate decides which connection may have a place while it has not proven
// anything yet. Set the fields before the first use. Its methods may be called
// concurrently; none of them blocks, reads a clock or does I/O.
//
// A source above its rate is turned away. Above its share of the places, its
// oldest connection loses its place if that has had its grace; otherwise the
// newcomer is turned away. When all places are taken, the newcomer waits until
// one is free, or until the oldest connection of the source that holds most of
// them has had its grace, and then takes that place. So a connection that stalls
// loses to one that comes, a rush of honest callers is served in turn, and one
// source cannot push out another. More sources than that, whose connections all
// stall, let Places newcomers in each Grace: the others wait before the gate.
type Gate struct {
	// Places is how many connections have one at a time; PerSource is how many of
	// them one limited source may have.
	Places, PerSource int
	// Grace is how long a place is safe.
	Grace time.Duration
	// Yield takes the grace from the source with most places when all are taken, for a
	// newcomer of a source with fewer. For a caller of Admit that does not wait.
	Yield bool
	// Rate is how often a limited source may begin, and for how many sources that
	// is remembered. nil: as often as it likes.
	Rate *quota.Rates[netip.Prefix]
	// Source tells where a connection comes from, and whether the limits of one
	// source hold there. nil: all come from one source without limits.
	Source func(net.Conn) (from netip.Prefix, limited bool)

	mu      sync.Mutex
	pending []*Place             // oldest first
	held    map[netip.Prefix]int // of pending, how many are of each source
	freed   pause.Bell           // a place is
}

// Place is what a connection has until Leave.
type Place struct {
	// Conn is the connection.
	Conn net.Conn

	gate  *Gate
	from  netip.Prefix
	since time.Time
	kept  bool
	lost  bool
	lostc chan struct{} // closed when the place was given to another one
	donec chan struct{} // closed by Leave
}

// Verdict is the gate's answer to a connection.
type Verdict struct {
	// In is its place; nil if it is turned away or has to wait.
	In *Place
	// Out is the place that it took, if any: close that connection.
	Out *Place
	// Wait, if it is not zero, is how long to wait before Admit is called again;
	// Freed is closed before that if a place becomes free.
	Wait  time.Duration
	Freed <-chan struct{}
}

// Admit asks for a place for conn.
func (g *Gate) Admit(conn net.Conn, now time.Time) (v Verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var from netip.Prefix
	limited := false
	if g.Source != nil {
		from, limited = g.Source(conn)
	}
	switch {
	case limited && g.held[from] >= g.PerSource:
		v.Out = g.oldestOf(from)
		if v.Out == nil || now.Sub(v.Out.since) < g.Grace {
			return Verdict{}
		}
	case len(g.pending) >= g.Places:
		wait := g.Grace
		if v.Out = g.worst(); v.Out != nil {
			wait -= now.Sub(v.Out.since)
			if g.Yield && g.held[v.Out.from] > g.held[from]+1 {
				wait = 0
			}
		}
		if wait > 0 {
			return Verdict{Wait: wait, Freed: g.freed.Next()}
		}
	}
	if limited && g.Rate != nil && !g.Rate.Allow(from, now) {
		return Verdict{}
	}
	if v.Out != nil {
		v.Out.lost = true
		close(v.Out.lostc)
		g.remove(v.Out)
	}
	v.In = &Place{Conn: conn, gate: g, from: from, since: now, lostc: make(chan struct{}), donec: make(chan struct{})}
	g.pending = append(g.pending, v.In)
	if g.held == nil {
		g.held = make(map[netip.Prefix]int)
	}
	g.held[from]++
	return v
}

// Keep makes a place safe from newcomers. It returns false if the place was lost
// before.
func (p *Place) Keep() bool {
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	p.kept = true
	return !p.lost
}

// Leave frees a place; call it once. It returns false if the place was lost
// before.
func (p *Place) Leave() bool {
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	p.gate.remove(p)
	close(p.donec)
	return !p.lost
}

// Lost returns a channel that is closed when the place is given to another
// connection.
func (p *Place) Lost() <-chan struct{} { return p.lostc }

// Held returns how many places are taken.
func (g *Gate) Held() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.pending)
}

func (g *Gate) remove(p *Place) {
	i := slices.Index(g.pending, p)
	if i < 0 {
		return
	}
	g.pending = slices.Delete(g.pending, i, i+1)
	if g.held[p.from]--; g.held[p.from] == 0 {
		delete(g.held, p.from)
	}
	g.freed.Ring()
}

// oldestOf returns the oldest place of a source that is not safe; nil if there is
// none.
func (g *Gate) oldestOf(from netip.Prefix) *Place {
	i := slices.IndexFunc(g.pending, func(p *Place) bool { return p.from == from && !p.kept })
	if i < 0 {
		return nil
	}
	return g.pending[i]
}

// worst returns the oldest place that is not safe of the source with most places;
// nil if all are safe. Of several such sources it is the one that has the oldest.
func (g *Gate) worst() (out *Place) {
	for _, p := range g.pending {
		if !p.kept && (out == nil || g.held[p.from] > g.held[out.from]) {
			out = p
		}
	}
	return out
}
