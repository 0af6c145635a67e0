package tlssock

import (
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"
)

// Bounds on those who have not proven anything yet. An honest handshake takes
// two round trips, so few are ever under way at once.
const (
	// maxPending is how many handshakes run at once; one holds two goroutines
	// and at most about 60 KiB. All of them together need 0.1 s of a core.
	maxPending = 128
	// maxPendingPerSource is how many of them one source may have.
	maxPendingPerSource = 32
	// grace is how long a handshake keeps its place whatever happens: two round
	// trips over the worst link that we care for, on a busy machine. Taking
	// places earlier would let a rush of honest callers push out each other.
	grace = 5 * time.Second
	// sourceBurst and sourceEvery are what one source may begin: 64 at once and
	// then 20 a second.
	sourceBurst = 64
	sourceEvery = 50 * time.Millisecond
	// maxSources bounds the table of sources, 100 bytes each.
	maxSources = 4096
	// sweepEvery is how often the table is searched for forgotten sources.
	sweepEvery = time.Second
)

// handshakeRate is how many handshakes a second a listener begins, whoever
// asks: a server's share of one costs about 0.6 ms of a core, so this takes a
// quarter of the machine at most.
func handshakeRate() int { return 400 * runtime.GOMAXPROCS(0) }

// gate decides which stranger may begin a handshake. A source is an IPv4 /24
// or an IPv6 /64, the least that one customer usually holds.
//
// Overflow: a source above its rate is turned away. Above its share of pending
// handshakes, its oldest one is dropped if it has had its grace, and otherwise
// the newcomer is turned away. When all places are taken, the newcomer waits in
// the system's backlog until one is free or the oldest handshake of the source
// that holds most of them has had its grace, and then takes that place: whoever
// stalls loses to whoever comes, a rush of honest callers is served in turn, and
// one source cannot push out another. When the table of sources is full of
// active ones, newcomers share one place in it. Loopback addresses have no
// limits of their own, as they do not tell the machine's users apart.
//
// It reads no clock and does no I/O.
type gate struct {
	mu      sync.Mutex
	sources map[netip.Prefix]*source
	pending []*slot // oldest first
	shared  source  // for those who find no room in sources
	swept   time.Time
	freed   chan struct{} // closed and replaced when a place is freed; nil until asked for
}

// source is what is remembered about a prefix.
type source struct {
	limited bool
	pending int
	// next is when this source would be idle again if it began handshakes only
	// every sourceEvery (GCRA: one instant instead of a token count).
	next time.Time
}

// slot is one handshake's place, kept until its result has been accepted.
type slot struct {
	source *source
	conn   net.Conn
	since  time.Time
	quitc  chan struct{} // closed by whoever takes the place away
	donec  chan struct{} // closed when the handshake's goroutine is done
}

// verdict is the gate's answer to a connection.
type verdict struct {
	in   *slot         // its place; nil if it is turned away or has to wait
	out  *slot         // the handshake that has to make room for it, if any
	wait time.Duration // not zero: ask again after this, or when freed is closed
	// freed is closed when a place is free.
	freed <-chan struct{}
}

// enter asks for a place for conn.
func (g *gate) enter(conn net.Conn, now time.Time) (v verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	src := g.source(prefixOf(conn.RemoteAddr()), now)
	switch {
	case src.limited && src.pending >= maxPendingPerSource:
		v.out = g.oldestOf(src)
		if now.Sub(v.out.since) < grace {
			return verdict{}
		}
	case len(g.pending) >= maxPending:
		v.out = g.oldestOf(g.busiest())
		if age := now.Sub(v.out.since); age < grace {
			if g.freed == nil {
				g.freed = make(chan struct{})
			}
			return verdict{wait: grace - age, freed: g.freed}
		}
	}
	if src.limited && !src.begin(now) {
		return verdict{}
	}
	if v.out != nil {
		g.remove(v.out)
	}
	v.in = &slot{source: src, conn: conn, since: now, quitc: make(chan struct{}), donec: make(chan struct{})}
	g.pending = append(g.pending, v.in)
	src.pending++
	return v
}

// begin charges a handshake to the source's rate and tells whether it may.
func (src *source) begin(now time.Time) bool {
	if src.next.Before(now) {
		src.next = now
	}
	if src.next.Sub(now) >= sourceBurst*sourceEvery {
		return false
	}
	src.next = src.next.Add(sourceEvery)
	return true
}

// leave frees the place of a finished handshake; a slot that had to make room
// has none any more.
func (g *gate) leave(s *slot) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remove(s)
}

func (g *gate) remove(s *slot) {
	if i := slices.Index(g.pending, s); i >= 0 {
		g.pending = slices.Delete(g.pending, i, i+1)
		s.source.pending--
		if g.freed != nil {
			close(g.freed)
			g.freed = nil
		}
	}
}

func (g *gate) oldestOf(src *source) *slot {
	i := slices.IndexFunc(g.pending, func(s *slot) bool { return s.source == src })
	return g.pending[i]
}

func (g *gate) busiest() *source {
	most := g.pending[0].source
	for _, s := range g.pending {
		if s.source.pending > most.pending {
			most = s.source
		}
	}
	return most
}

func (g *gate) source(p netip.Prefix, now time.Time) *source {
	if src, ok := g.sources[p]; ok {
		return src
	}
	if len(g.sources) >= maxSources && now.Sub(g.swept) >= sweepEvery {
		g.swept = now
		for p, src := range g.sources {
			if src.pending == 0 && !src.next.After(now) {
				delete(g.sources, p)
			}
		}
	}
	if len(g.sources) >= maxSources {
		g.shared.limited = true
		return &g.shared
	}
	if g.sources == nil {
		g.sources = make(map[netip.Prefix]*source)
	}
	src := &source{limited: !p.Addr().IsLoopback()}
	g.sources[p] = src
	return src
}

// prefixOf returns the source that addr belongs to; all addresses that are not
// TCP ones are one source.
func prefixOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 24
	}
	p, _ := ip.Prefix(bits)
	return p
}
