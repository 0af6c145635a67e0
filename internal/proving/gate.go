package proving

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"peerlink/internal/pause"
)

// maxSources bounds a gate's table of sources, 100 bytes each.
const maxSources = 4096

// sweepEvery is how often the table is searched for idle sources.
const sweepEvery = time.Second

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
// source cannot push out another. When the table of sources is full of active
// ones, newcomers share one entry of it.
type Gate struct {
	// Places is how many connections have one at a time; PerSource is how many of
	// them one limited source may have.
	Places, PerSource int
	// Grace is how long a place is safe.
	Grace time.Duration
	// Burst and Every are what a limited source may begin: so many at once, and
	// then one in so long. Zero: no limit.
	Burst int
	Every time.Duration
	// Source tells where a connection comes from, and whether the limits of one
	// source hold there. nil: all come from one source without limits.
	Source func(net.Conn) (from netip.Prefix, limited bool)

	mu      sync.Mutex
	sources map[netip.Prefix]*source
	pending []*Place // oldest first
	shared  source   // of connections that find no room in sources
	swept   time.Time
	freed   pause.Bell // a place is
}

type source struct {
	from    netip.Prefix
	limited bool
	pending int
	// next is when this source would be idle again if it began only every
	// Gate.Every (GCRA: one instant instead of a token count).
	next time.Time
}

// Place is what a connection has until Leave.
type Place struct {
	// Conn is the connection.
	Conn net.Conn

	gate   *Gate
	source *source
	since  time.Time
	kept   bool
	lost   bool
	lostc  chan struct{} // closed when the place was given to another one
	donec  chan struct{} // closed by Leave
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
	src := g.source(conn, now)
	switch {
	case src.limited && src.pending >= g.PerSource:
		v.Out = g.oldestOf(src)
		if v.Out == nil || now.Sub(v.Out.since) < g.Grace {
			return Verdict{}
		}
	case len(g.pending) >= g.Places:
		wait := g.Grace
		if v.Out = g.oldestOf(g.busiest()); v.Out != nil {
			wait -= now.Sub(v.Out.since)
		}
		if wait > 0 {
			return Verdict{Wait: wait, Freed: g.freed.Next()}
		}
	}
	if src.limited && !g.begin(src, now) {
		return Verdict{}
	}
	src.pending++ // first, or a source that loses its last place is forgotten
	if v.Out != nil {
		v.Out.lost = true
		close(v.Out.lostc)
		g.remove(v.Out)
	}
	v.In = &Place{Conn: conn, gate: g, source: src, since: now, lostc: make(chan struct{}), donec: make(chan struct{})}
	g.pending = append(g.pending, v.In)
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

// begin charges a connection to the source's rate and tells whether it may.
func (g *Gate) begin(src *source, now time.Time) bool {
	if src.next.Before(now) {
		src.next = now
	}
	if g.Burst > 0 && src.next.Sub(now) >= time.Duration(g.Burst)*g.Every {
		return false
	}
	src.next = src.next.Add(g.Every)
	return true
}

func (g *Gate) remove(p *Place) {
	i := slices.Index(g.pending, p)
	if i < 0 {
		return
	}
	g.pending = slices.Delete(g.pending, i, i+1)
	if p.source.pending--; p.source.pending == 0 && g.Every == 0 && p.source != &g.shared {
		delete(g.sources, p.source.from) // there is no rate to remember
	}
	g.freed.Ring()
}

// oldestOf returns the oldest place of a source that is not safe; nil if there is
// none.
func (g *Gate) oldestOf(src *source) *Place {
	i := slices.IndexFunc(g.pending, func(p *Place) bool { return p.source == src && !p.kept })
	if i < 0 {
		return nil
	}
	return g.pending[i]
}

func (g *Gate) busiest() *source {
	most := g.pending[0].source
	for _, p := range g.pending {
		if p.source.pending > most.pending {
			most = p.source
		}
	}
	return most
}

func (g *Gate) source(conn net.Conn, now time.Time) *source {
	var from netip.Prefix
	limited := false
	if g.Source != nil {
		from, limited = g.Source(conn)
	}
	if src, ok := g.sources[from]; ok {
		return src
	}
	if len(g.sources) >= maxSources && now.Sub(g.swept) >= sweepEvery {
		g.swept = now
		maps.DeleteFunc(g.sources, func(_ netip.Prefix, src *source) bool { return src.pending == 0 && !src.next.After(now) })
	}
	if len(g.sources) >= maxSources {
		g.shared.limited = true
		return &g.shared
	}
	if g.sources == nil {
		g.sources = make(map[netip.Prefix]*source)
	}
	src := &source{from: from, limited: limited}
	g.sources[from] = src
	return src
}
