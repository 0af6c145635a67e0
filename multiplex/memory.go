package multiplex

import (
	"net"
	"sync/atomic"
	"time"

	"peerlink/channel"
)

// Shares of the bounds on unread bytes.
const (
	// A link's windows beyond the first 64 KiB of each channel may promise three
	// quarters of Config.MaxBuffered, half of that to new channels, the rest to
	// those that grow. The last quarter is for the first 64 KiB.
	growShare, newShare = 3. / 4, 3. / 8
	// A process's links share half of a Budget in the same way.
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

// Budget bounds the unread bytes of all links that share it. While they grow
// towards it, windows stop to grow, new channels get 64 KiB, then the peers'
// requests are declined; where it is reached, the channel that has held most
// for longest is reset with CodeResource. Each link may hold 256 KiB all the
// same. Its methods may be called concurrently.
type Budget struct {
	limit         int64
	unread, extra atomic.Int64
}

// NewBudget makes a budget of so many bytes, 1 MiB at least.
func NewBudget(limit int) *Budget { return &Budget{limit: max(int64(limit), 1<<20)} }

// Unread returns how many bytes wait for Reads on all links.
func (b *Budget) Unread() int64 { return b.unread.Load() }

// promise takes n bytes of the budget's share for wider windows.
func (b *Budget) promise(n int) bool {
	if b == nil {
		return true
	}
	if b.extra.Add(int64(n)) > int64(float64(b.limit)*budgetShare) {
		b.extra.Add(int64(-n))
		return false
	}
	return true
}

func (b *Budget) release(n int) {
	if b != nil {
		b.extra.Add(int64(-n))
	}
}

// tight reports whether the peers' requests are to be declined.
func (b *Budget) tight() bool {
	return b != nil && b.unread.Load() > int64(float64(b.limit)*refuseShare)
}

// Hold implements channel.Link.
func (e *entry) Hold(n int) { e.s.hold(n) }

func (s *Socket) hold(n int) {
	s.buffered.Add(int64(n))
	if s.cfg.Budget != nil {
		s.cfg.Budget.unread.Add(int64(n))
	}
}

// promiseLocked takes n bytes for the window of a channel, within a share of
// the link's bound. s.mu is held.
func (s *Socket) promiseLocked(e *entry, n int, share float64) int {
	if n <= 0 || float64(s.extra+n) > float64(s.cfg.MaxBuffered)*share || !s.cfg.Budget.promise(n) {
		return 0
	}
	s.extra += n
	e.extra += n
	return n
}

// releaseLocked gives back what the channel's window had. s.mu is held.
func (s *Socket) releaseLocked(e *entry) {
	s.extra -= e.extra
	s.cfg.Budget.release(e.extra)
	e.extra = 0
}

// Widen implements channel.Link. The window doubles until it is twice what is
// read in a round trip: then the sender never waits for credit alone, but for
// its path or the reader.
func (e *entry) Widen(_ *channel.Port, window, read int, within time.Duration) int {
	s := e.s
	n, rtt := window, s.pathTime()
	switch {
	case window < s.cfg.Window && within >= 0 && within < soonRead:
		n = s.cfg.Window - window // others held much when it was opened
	case rtt < shortRTT || within < 0 || float64(window)*float64(within) >= 2*float64(read)*float64(rtt):
		return 0
	case s.memory():
		n = min(n, memoryWindow-window)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table[e.id] != e {
		return 0
	}
	room := int(float64(s.cfg.MaxBuffered)*growShare) - s.extra
	n = min(n, room)
	if n < window/8 {
		return 0 // not worth the while
	}
	return s.promiseLocked(e, n, growShare)
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

// Addrs implements channel.Link.
func (e *entry) Addrs() (local, remote net.Addr) { return e.s.cfg.LocalAddr, e.s.cfg.RemoteAddr }

// full reports whether n more unread bytes are too many.
func (s *Socket) full(n int) bool {
	held := s.buffered.Load() + int64(n)
	if held > int64(s.cfg.MaxBuffered) {
		return true
	}
	b := s.cfg.Budget
	return b != nil && held > linkFloor && b.unread.Load()+int64(n) > b.limit
}

// relieve makes room for n more bytes of e: of the channels that can lose what
// they hold and say so, the one that has held most for longest is reset. It
// reports whether e may have the bytes.
func (s *Socket) relieve(e *entry, n int) bool {
	for s.full(n) {
		worst, unread := e, 0
		var most float64
		for _, other := range s.losers() {
			held, age := other.port.Stale()
			if score := float64(held) * float64(max(age, 1)); score > most {
				worst, unread, most = other, held, score
			}
		}
		s.condemn(worst, channel.CodeResource)
		if worst == e || unread == 0 {
			return false
		}
		worst.port.Drop(&channel.ResetError{Code: channel.CodeResource})
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
