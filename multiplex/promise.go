package multiplex

import (
	"math"
	"time"

	"peerlink/internal/stream"
)

// A peer with this feature is promised no more than can be held: what its
// channels may still send, what they hold unread, and what all its requests
// together may send early are never more than Config.MaxBuffered (docs/protocol.md,
// "Promises"). So nothing that it sends has to be dropped.
const featurePromises = 1 << 1

// Shares of what may be promised, which is Config.MaxBuffered but for what may
// come early.
const (
	// A quarter is for the least windows that new channels always get.
	leastShare = 1. / 4
	// New channels get Config.Window until a fifth is promised, 64 KiB until two
	// fifths are, and then a tenth of an equal share: ln 65 534 such ones and those
	// before fit into the three quarters.
	wideShare, earlyShare, tenth = 1. / 5, 2. / 5, 10
	// From here on a channel above its equal share gives way to others.
	shortShare = 7. / 8 * growShare
	// Windows of channels that do not send may be kept up to this share in all.
	idleShare = 1. / 4
)

const (
	// A channel counts among those that are read if it was within this time.
	activeTime = 500 * time.Millisecond
	// A channel that has carried nothing for so long gives its credit back if it
	// is asked.
	idleTime = 100 * time.Millisecond
	// Credit is asked back this often at most, and less often while none comes. A
	// peer that asks twice as often is not answered.
	minAsk, maxAsk = 100 * time.Millisecond, 400 * time.Millisecond
	// needPause is after how long a message that there was no room for is looked at
	// again: what has ended or was read meanwhile, here or on another link, makes room.
	needPause = 20 * time.Millisecond
	// maxReturns is how many channels give credit back at once.
	maxReturns = 8 * maxGrants
)

// active counts the channels that are read.
type active struct {
	epoch     uint8 // of activeTime each
	since     time.Time
	now, last int // channels, in this epoch and the one before
}

// count notes that e is read, and returns how many are.
func (a *active) count(e *entry, now time.Time) int {
	if d := now.Sub(a.since); d >= activeTime {
		a.last = a.now
		if d >= 2*activeTime {
			a.last = 0
		}
		a.now, a.since = 0, now
		a.epoch++
	}
	if e.epoch != a.epoch {
		e.epoch = a.epoch
		a.now++
	}
	return max(a.now, a.last, 1)
}

// asks is when credit was asked back.
type asks struct {
	at   time.Time // by us
	wait time.Duration
	came time.Time // by the peer
}

// bound is how much may be promised. A peer without the feature may exceed it.
func (s *Socket) bound() int {
	if s.plain.Load() {
		return s.cfg.MaxBuffered
	}
	return max(s.cfg.MaxBuffered-earlyCredit, earlyCredit)
}

func (s *Socket) part(share float64) int { return int(float64(s.bound()) * share) }

// most is how many channels there may be.
func (s *Socket) most() int { return min(max(s.cfg.MaxChannels, 1), math.MaxUint16-1) }

// least is the window that every new channel gets.
func (s *Socket) least() int {
	all := s.bound()
	for b := s.cfg.Budget; b != nil; b = b.whole {
		all = min(all, int(s.limit(b)))
	}
	return max(int(float64(all)*leastShare)/s.most(), 1)
}

// roomLocked is how much more may be promised of so much of the bound, and of
// three quarters of the Budget, without what further channels get at the least.
// s.mu is held.
func (s *Socket) roomLocked(share float64) int {
	if s.plain.Load() {
		return s.part(share) - s.promised
	}
	free := s.bound() - s.promised - s.loose
	// Least windows are rounded up: a small bound must not all be kept for them.
	kept := min(s.least()*max(s.most()-len(s.table), 0), s.part(leastShare))
	free = min(free-kept, free-s.bound()+s.part(share))
	return min(free, s.budgetLocked(refuseShare*share))
}

// budgetLocked is how much more the Budget has, up to a share. s.mu is held.
func (s *Socket) budgetLocked(share float64) int {
	room := int64(math.MaxInt32 - linkFloor)
	for b := s.cfg.Budget; b != nil; b = b.whole {
		room = min(room, int64(float64(s.limit(b))*share)-b.held.Load())
	}
	return int(room) + max(linkFloor-earlyCredit-s.promised, 0)
}

// takeLocked promises n bytes more to a channel, if the Budget has them. s.mu
// is held.
func (s *Socket) takeLocked(e *entry, n int) bool {
	switch {
	case n <= 0, s.plain.Load() && !s.widen(n), !s.plain.Load() && !s.keep(charged(s.promised+n)-charged(s.promised)):
		return false
	}
	s.promised += n
	e.promise += int32(n)
	return true
}

// giveLocked frees what was promised to a channel. s.mu is held.
func (s *Socket) giveLocked(e *entry, n int) {
	if n <= 0 {
		return
	}
	if s.plain.Load() {
		s.cfg.Budget.widened(-n)
	} else {
		s.cfg.Budget.count(charged(s.promised-n) - charged(s.promised))
	}
	s.promised -= n
	e.promise -= int32(n)
}

// charged is how much of a link's promises counts for its Budget.
func charged(promised int) int { return max(promised+earlyCredit-linkFloor, 0) }

// firstLocked promises a new channel its first window beyond what it has, which
// is have bytes at the least, if there is room. s.mu is held.
func (s *Socket) firstLocked(e *entry, have int) {
	n := s.part(growShare) / (tenth * (len(s.table) + 1))
	switch {
	case s.plain.Load():
		if n = s.cfg.Window - earlyCredit; n <= s.roomLocked(newShare) {
			s.takeLocked(e, n)
		}
		return
	case s.promised+s.cfg.Window <= s.part(wideShare):
		n = s.cfg.Window
	case s.promised+earlyCredit <= s.part(earlyShare):
		n = max(n, earlyCredit)
	}
	n = max(min(n, s.cfg.Window, s.budgetLocked(refuseShare)/8), have) - int(e.promise)
	s.takeLocked(e, min(n, s.roomLocked(1)))
}

// startLocked promises a channel that begins its least window, or all of its
// first one if it is ours. It reports whether there was room. s.mu is held.
func (s *Socket) startLocked(e *entry) bool {
	switch {
	case e.basic:
		return true
	case s.plain.Load():
	case s.bound()-s.promised-s.loose < s.startingLocked() || !s.takeLocked(e, s.startingLocked()):
		return false
	case len(s.table) > 0 && s.version.Load() == 0 && s.roomLocked(1) < 0: // others will have nothing
		s.giveLocked(e, int(e.promise))
		return false
	}
	if s.ours(e.id) {
		s.firstLocked(e, 0)
	}
	return true
}

// startingLocked is the window that a channel has before it is accepted, and
// always gets: 64 KiB for a peer that needs so much, as far as is known. s.mu is
// held.
func (s *Socket) startingLocked() int {
	if s.plain.Load() || s.version.Load() == 0 {
		return earlyCredit
	}
	return s.least()
}

// windowLocked is what the channel's window is announced as. Socket.mu is held.
func (e *entry) windowLocked() int {
	switch {
	case e.basic:
		return 0
	case e.s.plain.Load():
		return earlyCredit + int(e.promise)
	}
	return int(e.promise)
}

// learn notes what the peer's hello says about promises.
func (s *Socket) learn(version int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if version >= version2 && s.features.Load()&featurePromises != 0 && !s.cfg.plain {
		return
	}
	for _, e := range s.table { // each has as much without a promise
		s.giveLocked(e, min(earlyCredit, int(e.promise)))
	}
	s.cfg.Budget.count(-charged(s.promised))
	s.cfg.Budget.widened(s.promised)
	s.plain.Store(true)
}

// Shrink implements stream.Link.
func (e *entry) Shrink(to int) {
	s := e.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plain.Load() {
		s.giveLocked(e, int(e.promise))
		return
	}
	if n := int(e.debt); n > 0 && !s.ours(e.id) {
		if to > 0 && e.left == 0 && n <= s.roomLocked(1) && s.takeLocked(e, n) || to == 0 || e.left != 0 {
			s.repayLocked(e, n)
			if e.left == 0 && s.cause == nil {
				s.line.control(protocolID, encodeGrant(e.id, n), prompt)
			}
		}
		to -= int(e.debt)
	}
	s.giveLocked(e, int(e.promise)-max(to, 0))
	e.settleLocked()
}

// Overdraw implements stream.Link: what the peer sent before it knew its window
// may be more than that.
func (e *entry) Overdraw(n int, received uint64) bool {
	s := e.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.plain.Load() || s.ours(e.id):
		return false
	case e.left != 0: // and it is dropped
		return true
	case received > earlyCredit || s.early+n > earlyCredit:
		return false
	}
	s.early += n
	e.debt += int32(n)
	return true
}

// Advance implements stream.Link: a channel that is not answered yet may send
// early.
func (e *entry) Advance(n int) int {
	s := e.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < 0 && s.ours(e.id) {
		s.repayLocked(e, -n)
		e.settleLocked()
	}
	if n <= 0 || !e.waits || e.told {
		return 0
	}
	want := min(n, earlyCredit-int(e.debt))
	n = want
	if !s.plain.Load() {
		n = max(min(n, earlyCredit-s.lent), 0)
	}
	if n < want {
		if s.thirsty == nil {
			s.thirsty = make(map[*entry]struct{})
		}
		s.thirsty[e] = struct{}{}
		s.dry.Store(true)
	}
	s.lent += n
	e.debt += int32(n)
	return n
}

// repayLocked takes what was sent early out of n bytes of credit, and returns
// how much that was. s.mu is held.
func (s *Socket) repayLocked(e *entry, n int) int {
	n = min(n, int(e.debt))
	e.debt -= int32(n)
	if s.ours(e.id) {
		s.lent -= n
	} else {
		s.early -= n
	}
	return n
}

// quench has channels that want to send early look again, when others have been
// answered. No lock may be held.
func (s *Socket) quench() {
	if !s.dry.Load() {
		return
	}
	s.mu.Lock()
	var es map[*entry]struct{}
	if s.lent < earlyCredit {
		es, s.thirsty = s.thirsty, nil
		s.dry.Store(false)
	}
	s.mu.Unlock()
	for e := range es {
		e.stream.Wake()
	}
}

// Widen implements stream.Link. The window doubles until it is twice what is
// read in a round trip: then the sender never waits for credit alone, but for
// its path or the reader.
func (e *entry) Widen(p stream.Pace) (more, repaid int) {
	s, rtt := e.s, e.s.pathTime()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table[e.id] == e {
		more = s.widenLocked(e, p, rtt)
	}
	if !s.ours(e.id) { // else a debt is of what was sent, and not of this
		repaid = s.repayLocked(e, p.Read+more)
	}
	return more, repaid
}

func (s *Socket) widenLocked(e *entry, p stream.Pace, rtt time.Duration) (more int) {
	share, now := math.MaxInt32, time.Now()
	if p.Wanted == 0 && !s.plain.Load() {
		n := s.active.count(e, now)
		share = s.part(growShare) / n
		if give := min(p.Read/2, p.Window-share); give > 0 && s.promised > s.part(shortShare) {
			s.giveLocked(e, give)
			return -give
		}
		if n == 1 {
			share = math.MaxInt32
		}
	}
	want := min(s.wanted(p, rtt, share), share-p.Window)
	n := min(want, s.roomLocked(growShare))
	enough := p.Window / 8 // less is not worth the while
	if p.Wanted > 0 {      // parts of what many messages need would fill the room for ever
		enough = s.part(growShare)/4 - p.Window
	}
	if n >= min(enough, want) && s.takeLocked(e, n) {
		more = n
	}
	if more < want/2 && !s.plain.Load() && p.Window < s.part(growShare)/2 {
		s.askLocked(now)
	}
	return more
}

// wanted is by how much a window is too small for its path and reader.
func (s *Socket) wanted(p stream.Pace, rtt time.Duration, share int) int {
	n := p.Window
	switch {
	case p.Wanted > 0:
		return p.Wanted - p.Window
	case p.Window < s.cfg.Window/8*7 && p.Within >= 0 && p.Within < max(soonRead, 2*rtt):
		n = s.cfg.Window - p.Window // others held much when it was opened
	case rtt >= shortRTT && p.Within >= 0 && share < math.MaxInt32 && p.Window < share/2 && p.Unread < p.Window/4:
		// Behind the bulk of others the quickest round trip says nothing.
	case rtt < shortRTT || p.Within < 0 || float64(p.Window)*float64(p.Within) >= 2*float64(p.Read)*float64(rtt):
		return 0
	case s.memory():
		n = min(n, memoryWindow-p.Window)
	}
	return n
}

// askLocked asks the peer for credit that it does not use. s.mu is held.
func (s *Socket) askLocked(now time.Time) {
	if now.Sub(s.asks.at) < max(s.asks.wait, minAsk) {
		return
	}
	s.asks.at, s.asks.wait = now, min(2*max(s.asks.wait, minAsk/2), maxAsk)
	keep := min(s.part(idleShare)/max(len(s.table), 1), s.cfg.Window)
	s.line.control(protocolID, encodeAsk(max(keep, s.least())), prompt)
}

// handleAsk gives back what channels that have nothing to send have above so
// many bytes of credit.
func (s *Socket) handleAsk(above int) error {
	now := time.Now()
	s.mu.Lock()
	early := s.plain.Load() || now.Sub(s.asks.came) < minAsk/2
	if !early {
		s.asks.came = now
	}
	s.mu.Unlock()
	if early {
		return nil
	}
	told, bytes := 0, 0
	above = max(above, 1) // all of a window is never given back
	for _, e := range s.entries() {
		s.mu.Lock()
		early := s.ours(e.id) && (e.waits || e.debt > 0) // then it has credit that nobody has given
		s.mu.Unlock()
		if early {
			continue
		}
		e.stream.Unused(above, idleTime, func(n int) { // what is written from now on goes behind it
			body := encodeNumbers("u", uint64(e.id), uint64(n))
			s.line.control(protocolID, body, prompt)
			told, bytes = told+1, bytes+headerLen+len(body)
		})
		if told == maxReturns {
			break
		}
	}
	return s.owed(bytes)
}

// handleReturns takes credit back that the peer does not use.
func (s *Socket) handleReturns(gs []grant) error {
	if s.plain.Load() {
		return nil
	}
	for _, g := range gs {
		s.mu.Lock()
		e, err := s.findLocked(g.id)
		s.asks.wait = 0
		bad := e != nil && e.debt > 0 && !s.ours(g.id)
		s.mu.Unlock()
		switch {
		case err != nil:
			return err
		case bad:
			return violation("channel %d gives back credit that it lacks", g.id)
		case e == nil:
			continue
		}
		if err := e.stream.Return(g.n); err != nil {
			return violation("channel %d: %w", g.id, err)
		}
		if n := e.stream.Needs(); n > 0 { // it may have been told while there was enough
			s.want(e, n)
		}
	}
	return nil
}

// handleNeeds makes windows as large as a message of the peer needs, if there is
// room. The reader sends what that gives.
func (s *Socket) handleNeeds(gs []grant) error {
	if s.plain.Load() {
		return nil
	}
	for _, g := range gs {
		s.mu.Lock()
		e, err := s.findLocked(g.id)
		s.mu.Unlock()
		if err != nil {
			return err
		}
		if e != nil {
			s.want(e, min(g.n, lineCap))
		}
	}
	return nil
}

// want serves one need, and keeps it for later if there is no room, or no answer
// to the channel's request: what is granted before that would count twice.
func (s *Socket) want(e *entry, n int) {
	s.mu.Lock()
	early := e.undecided != nil
	s.mu.Unlock()
	if !early && e.stream.Want(n) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.needs) >= maxAsked || s.table[e.id] != e {
		return
	}
	if s.needs[e] = n; !s.serving {
		s.serving = true
		time.AfterFunc(needPause, s.serveNeeds)
	}
}

// serveNeeds tries again what there was no room for.
func (s *Socket) serveNeeds() {
	s.mu.Lock()
	needs := s.needs
	s.needs, s.serving = make(map[*entry]int), false
	s.mu.Unlock()
	for e, n := range needs {
		s.want(e, n)
	}
	s.flush()
}
