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
)

// Budget bounds the unread bytes of all links that share it, and so what they
// promise their peers. While that grows towards it, windows stop to grow, new
// channels get less, then the peers' requests are declined. Where a peer that
// cannot be promised so little reaches it, the channel of that link that has held
// most for longest is reset with CodeResource. Each link may hold 256 KiB all
// the same. Its methods may be called concurrently.
type Budget struct {
	limit  int64
	unread atomic.Int64
	held   atomic.Int64 // may come to be unread, or is, where the peer keeps no count of promises
	extra  atomic.Int64 // promised to such peers beyond 64 KiB a channel
}

// NewBudget makes a budget of so many bytes, 1 MiB at least.
func NewBudget(limit int) *Budget { return &Budget{limit: max(int64(limit), 1<<20)} }

// Unread returns how many bytes wait for Reads on all links.
func (b *Budget) Unread() int64 { return b.unread.Load() }

// widen takes n bytes of the budget's share for the wider windows of peers
// without promises.
func (b *Budget) widen(n int) bool {
	return b == nil || take(&b.extra, n, int64(float64(b.limit)*budgetShare))
}

// keep takes n bytes, or gives them back if negative, for what a peer is promised.
func (b *Budget) keep(n int) bool {
	return b == nil || take(&b.held, n, b.limit)
}

// take adds n, unless that makes it more than most.
func take(sum *atomic.Int64, n int, most int64) bool {
	if sum.Add(int64(n)) <= most || n <= 0 {
		return true
	}
	sum.Add(int64(-n))
	return false
}

// tight reports whether the requests of a link's peer are to be declined. What the
// link may hold all the same is not counted: its windows were promised on top of that.
func (b *Budget) tight(heldByLink int64) bool {
	return b != nil && b.unread.Load()-min(heldByLink, linkFloor) > int64(float64(b.limit)*refuseShare)
}

// Hold implements stream.Link.
func (e *entry) Hold(n int) { e.s.hold(n) }

func (s *Socket) hold(n int) {
	s.buffered.Add(int64(n))
	if b := s.cfg.Budget; b != nil {
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
	b := s.cfg.Budget
	return b != nil && held > linkFloor && b.held.Load()+int64(n) > b.limit
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
