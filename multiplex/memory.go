package multiplex

import (
	"net"
	"sync/atomic"
	"time"

	"peerlink/channel"
)

// Shares of the bounds on unread bytes.
const (
	// A link's windows may promise three quarters of Config.MaxBuffered to channels
	// that grow. To a peer that keeps no count of its promises (see
	// featurePromises), half of that goes to new channels, and the first 64 KiB of
	// each channel do not count.
	growShare, newShare = 3. / 4, 3. / 8
	// Links to such peers share half of a Budget in the same way.
	budgetShare = 1. / 2
	// From this part of a Budget on, the peers' requests are declined.
	refuseShare = 3. / 4
	// Half as much as may wait unread may be channels, of channelCost each: one link may
	// then have all that ids allow in the budget of a manager.
	tableShare = 1. / 2
	// Up to this round-trip time 256 KiB are enough for 850 MB/s, and a wider
	// window only makes other channels wait behind the bulk of one.
	shortRTT = 300 * time.Microsecond
	// Through memory a round trip takes no time, but waking who waits for credit
	// takes tens of microseconds, in which gigabytes a second are a lot: 256 KiB of
	// window give 3.9 GB/s there, 1 MiB 10, 4 MiB 14.
	memoryWindow = 4 << 20
	// A channel whose window was kept small gets the usual one if it is read at
	// such a pace: it has not stalled.
	soonRead = 10 * time.Millisecond
	// A link with so few unread bytes is not asked to give any back.
	linkFloor = 256 << 10
	// A link with so few channels may have one more.
	floorChannels = 8
)

// Budget bounds the unread bytes of all links that share it, and so what they
// promise their peers. While that grows towards it, windows stop to grow, new
// channels get less, then the peers' requests are declined. Where a peer that
// cannot be promised so little reaches it, the channel of that link that has held
// most for longest is reset with CodeResource. Each link may hold 256 KiB all
// the same. Besides, channels may take half as much as may wait unread, 1 KiB each: a
// request is declined on a link that has 8 channels, and more than are left for
// others. Its methods may be called concurrently.
type Budget struct {
	limit  int64
	whole  *Budget // of which this is a half; or nil
	unread atomic.Int64
	held   atomic.Int64 // may come to be unread, or is, where the peer keeps no count of promises
	tables atomic.Int64 // channelCost for each channel
	extra  atomic.Int64 // promised to such peers beyond 64 KiB a channel
}

// NewBudget makes a budget of so many bytes, 1 MiB at least.
func NewBudget(limit int) *Budget { return &Budget{limit: max(int64(limit), 1<<20)} }

// Half makes a budget of half of b's bytes, for links that must leave the other half to
// others: what they hold counts in both. Each call makes another one.
func (b *Budget) Half() *Budget { return &Budget{limit: b.limit / 2, whole: b} }

// Lift frees a link from the Half that is its Budget: what the link holds goes on to
// count there, and is bounded by the whole alone. It does not block.
func (s *Socket) Lift() { s.lifted.Store(true) }

// limit is how much a budget of the link allows.
func (s *Socket) limit(b *Budget) int64 {
	if b.whole != nil && s.lifted.Load() {
		return b.whole.limit
	}
	return b.limit
}

// Unread returns how many bytes wait for Reads on all links.
func (b *Budget) Unread() int64 { return b.unread.Load() }

// count adds n bytes to what is held.
func (b *Budget) count(n int) {
	for ; b != nil; b = b.whole {
		b.held.Add(int64(n))
	}
}

// enter counts n more channels.
func (b *Budget) enter(n int) {
	for ; b != nil; b = b.whole {
		b.tables.Add(int64(n * channelCost))
	}
}

// widened adds n bytes to what is promised to peers without promises.
func (b *Budget) widened(n int) {
	for ; b != nil; b = b.whole {
		b.extra.Add(int64(n))
	}
}

// widen takes n bytes of the budget's share for the wider windows of peers
// without promises.
func (s *Socket) widen(n int) bool {
	s.cfg.Budget.widened(n)
	for b := s.cfg.Budget; b != nil; b = b.whole {
		if b.extra.Load() > int64(float64(s.limit(b))*budgetShare) {
			s.cfg.Budget.widened(-n)
			return false
		}
	}
	return true
}

// keep takes n bytes, or gives them back if negative, for what a peer is promised.
func (s *Socket) keep(n int) bool {
	s.cfg.Budget.count(n)
	for b := s.cfg.Budget; b != nil && n > 0; b = b.whole {
		if b.held.Load() > s.limit(b) {
			s.cfg.Budget.count(-n)
			return false
		}
	}
	return true
}

// tightLocked reports whether the requests of the peer are to be declined. What the
// link may hold all the same is not counted: its windows were promised on top of that.
// A link may not have more channels than there is room for beside those of all links, so
// it leaves as much as it takes. s.mu is held.
func (s *Socket) tightLocked() bool {
	for b := s.cfg.Budget; b != nil; b = b.whole {
		limit, mine := float64(s.limit(b)), int64(len(s.table)*channelCost)
		if b.unread.Load()-min(s.buffered.Load(), linkFloor) > int64(limit*refuseShare) ||
			len(s.table) >= floorChannels && mine > int64(limit*tableShare)-b.tables.Load() {
			return true
		}
	}
	return false
}

// Hold implements stream.Link.
func (e *entry) Hold(n int) { e.s.hold(n) }

func (s *Socket) hold(n int) {
	s.buffered.Add(int64(n))
	for b := s.cfg.Budget; b != nil; b = b.whole {
		b.unread.Add(int64(n))
		if s.plain.Load() {
			b.held.Add(int64(n))
		}
	}
}

// crampedLocked reports whether there is no room for n bytes beside what is promised.
func (s *Socket) crampedLocked(n int) bool {
	if s.plain.Load() {
		return s.full(n)
	}
	return s.promised+s.loose+n > s.bound()
}

// Loose implements stream.Link: datagrams have what is not promised.
func (e *entry) Loose(n int) bool {
	s := e.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 && s.crampedLocked(n) {
		return false
	}
	s.loose += n
	s.hold(n)
	return true
}

// pathTime is the round-trip time that windows grow by.
func (s *Socket) pathTime() time.Duration {
	rtt := time.Duration(s.quickest.Load())
	if s.memory() {
		rtt = max(rtt, shortRTT)
	}
	return rtt
}

// memory reports whether the carrier is this machine's memory.
func (s *Socket) memory() bool { return s.line.size == maxBody }

// Addrs implements stream.Link.
func (e *entry) Addrs() (local, remote net.Addr) { return e.s.cfg.LocalAddr, e.s.cfg.RemoteAddr }

// full reports whether n more unread bytes are too many.
func (s *Socket) full(n int) bool {
	held := s.buffered.Load() + int64(n)
	if held > int64(s.cfg.MaxBuffered) {
		return true
	}
	for b := s.cfg.Budget; b != nil; b = b.whole {
		if held > linkFloor && b.held.Load()+int64(n) > s.limit(b) {
			return true
		}
	}
	return false
}

// relieve makes room for n more bytes of e: of the channels that can lose what
// they hold and say so, the one that has held most for longest is reset. It
// reports whether e may have the bytes.
func (s *Socket) relieve(e *entry, n int) bool {
	for s.full(n) {
		worst, unread := e, 0
		var most float64
		for _, other := range s.losers() {
			held, age := other.stream.Stale()
			if score := float64(held) * float64(max(age, 1)); score > most {
				worst, unread, most = other, held, score
			}
		}
		s.condemn(worst, channel.CodeResource)
		if worst == e || unread == 0 {
			return false
		}
		worst.stream.Drop(&channel.ResetError{Code: channel.CodeResource})
	}
	return true
}

// losers returns the channels that may be reset to make room: those whose peer
// still writes, and so hears of the reset, and those that end by an error
// anyway. What a peer has ended cleanly is a promise that it was taken: the
// peer may have gone since.
func (s *Socket) losers() []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var es []*entry
	for _, e := range s.table {
		if e.condemned || !e.gotEnd {
			es = append(es, e)
		}
	}
	return es
}
