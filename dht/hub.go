package dht

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
)

// Bounds of a hub beside those of Config.
const (
	// signalLife is how long a signal is kept for an absent device: as long as
	// its recipient would take it, whichever way the two clocks differ.
	signalLife         = 2 * freshness
	maxSealedPerKey    = 32
	maxBytesPerKey     = 256 << 10
	maxBytesPerPutter  = 1 << 20
	maxListenersPerKey = 4   // one device, a few restarts that were not noticed yet
	maxListensPerPeer  = 16  // keys and streams of one libp2p peer
	listenerQueueLen   = 64  // ≥ maxSealedPerKey: a new listener takes all that waits
	networkShare       = 4   // one network may take a quarter of a node's room, or what one peer may
	parcelCost         = 512 // what a signal costs beside its bytes: without, tiny ones would be free
	sweepEvery         = 15 * time.Second
)

// hub is a node's post office: who listens, and what is kept for whom. It holds
// no stream and reads no clock. Its methods may be called concurrently; none blocks.
type hub struct {
	maxListeners, maxStored int
	drops                   *drops

	mu        sync.Mutex
	boxes     map[identity.DeviceID]*box
	listens   ledger // streams by who listens
	kept      ledger // bytes by who put them
	listeners int
	stored    int
}

// box is what a hub has for one device. A box with nothing in it is deleted.
type box struct {
	listeners []*listener
	waiting   []parcel // oldest first
	bytes     int
}

// parcel is a kept signal or letter.
type parcel struct {
	sum    digest
	sealed []byte
	from   origin
	charge account
	until  time.Time
}

func (m parcel) size() int { return len(m.sealed) + parcelCost }

// listener is one stream of a listening device. Its owner takes signals from
// queue until it leaves or is evicted.
type listener struct {
	key    identity.DeviceID
	from   origin
	charge account
	queue  chan []byte
	evict  chan string // gives the reason when another stream took its place
}

var errListeners = errors.New("too many listeners")

func newHub(maxListeners, maxStored int, d *drops) *hub {
	return &hub{
		maxListeners: maxListeners, maxStored: maxStored, drops: d,
		boxes:   make(map[identity.DeviceID]*box),
		listens: newLedger(maxListensPerPeer, max(maxListeners/networkShare, maxListensPerPeer)),
		kept:    newLedger(maxBytesPerPutter, max(maxStored/networkShare, maxBytesPerPutter)),
	}
}

// box returns the key's box, made on first use. The caller holds mu.
func (h *hub) box(key identity.DeviceID) *box {
	b := h.boxes[key]
	if b == nil {
		b = &box{}
		h.boxes[key] = b
	}
	return b
}

// listen registers a device that has proven itself; what waits for it is in the
// queue already. The oldest of too many streams of one device is evicted, as it
// is most likely dead and only the device itself can have opened the new one. A hub
// that is full evicts the oldest stream of the peer with most of them, in the
// network with most, if that is more than the newcomer has.
func (h *hub) listen(now time.Time, key identity.DeviceID, from origin) (*listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.listens.take(from, 1) {
		h.drops.add(dropListener)
		return nil, errListeners
	}
	b := h.box(key)
	if len(b.listeners) >= maxListenersPerKey {
		h.evict(b.listeners[0], "a newer stream of the device took this one's place")
	}
	l := &listener{key: key, from: from, charge: h.listens.of(from), queue: make(chan []byte, listenerQueueLen), evict: make(chan string, 1)}
	if h.listeners >= h.maxListeners && !h.makePlace(l) {
		h.listens.give(from, 1)
		h.tidy(key, b)
		h.drops.add(dropListener)
		return nil, errListeners
	}
	h.expire(b, now)
	for _, m := range b.waiting {
		l.queue <- m.sealed // never blocks: the queue is new and longer than any box
	}
	b.listeners = append(b.listeners, l)
	h.boxes[key] = b // a box that was emptied on the way is deleted
	h.listeners++
	return l, nil
}

// makePlace evicts one stream of those who have most and reports whether there was
// one with more than l's. The caller holds mu.
func (h *hub) makePlace(l *listener) bool {
	worst := l
	for _, b := range h.boxes {
		for _, o := range b.listeners { // oldest first
			if o.charge.compare(worst.charge) > 0 {
				worst = o
			}
		}
	}
	if worst == l {
		return false
	}
	h.evict(worst, "this node is full, and others have fewer streams here")
	return true
}

// evict ends a registration and tells its owner why. The caller holds mu.
func (h *hub) evict(l *listener, reason string) {
	l.evict <- reason // has room: a listener is evicted once
	h.end(l)
}

// leave ends a registration. It may be called after an eviction.
func (h *hub) leave(l *listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end(l)
}

// end takes l out of its box, once. The caller holds mu.
func (h *hub) end(l *listener) {
	b := h.boxes[l.key]
	if b == nil {
		return
	}
	if i := slices.Index(b.listeners, l); i >= 0 {
		b.listeners = slices.Delete(b.listeners, i, i+1)
		h.listeners--
		h.listens.give(l.from, 1)
	}
	h.tidy(l.key, b)
}

// tidy deletes a box with nothing in it. The caller holds mu.
func (h *hub) tidy(key identity.DeviceID, b *box) {
	if len(b.listeners) == 0 && len(b.waiting) == 0 {
		delete(h.boxes, key)
	}
}

// put hands a signal or letter to the device's listeners and keeps it for its
// life. It reports whether it was pushed to a stream at least, and whether it was
// kept. Putting the same again changes nothing and is answered alike.
func (h *hub) put(now time.Time, from origin, key identity.DeviceID, sealed []byte, life time.Duration) (pushed, stored bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.box(key)
	defer h.tidy(key, b)
	sum := digestOf(sealed)
	if slices.ContainsFunc(b.waiting, func(m parcel) bool { return m.sum == sum }) {
		h.drops.add(dropDuplicate)
		return len(b.listeners) > 0, true
	}
	for _, l := range b.listeners {
		select {
		case l.queue <- sealed:
			pushed = true
		default: // its device takes nothing: others must not wait for it
			h.drops.add(dropSlow)
		}
	}
	stored = h.keep(b, parcel{sum: sum, sealed: sealed, from: from, until: now.Add(life)})
	if !stored {
		h.drops.add(dropQuota)
	}
	return pushed, stored
}

// keep stores m within all quotas. In a full box the putter who takes the most
// room loses its oldest, and in a full hub the putter who takes the most of it, so
// that a flood displaces itself first. The caller holds mu.
func (h *hub) keep(b *box, m parcel) bool {
	n := m.size()
	if n > maxBytesPerKey || !h.kept.take(m.from, n) {
		return false
	}
	m.charge = h.kept.of(m.from)
	if !h.makeRoom(m) {
		h.kept.give(m.from, n)
		return false
	}
	for len(b.waiting) >= maxSealedPerKey || b.bytes+n > maxBytesPerKey {
		h.discard(b, b.oldestOfLargest())
	}
	b.waiting = append(b.waiting, m)
	b.bytes += n
	h.stored += n
	return true
}

// makeRoom discards what the putter with most has, as long as that is more than m's
// putter has with m, and reports whether there is room for m then. Boxes that it
// empties are deleted by the next sweep. The caller holds mu.
func (h *hub) makeRoom(m parcel) bool {
	for h.stored+m.size() > h.maxStored {
		worst := m
		for _, b := range h.boxes {
			for _, o := range b.waiting {
				if o.charge.compare(worst.charge) > 0 {
					worst = o
				}
			}
		}
		if worst.charge == m.charge {
			return false
		}
		for _, b := range h.boxes {
			for i := 0; i < len(b.waiting) && h.stored+m.size() > h.maxStored; {
				if b.waiting[i].from != worst.from {
					i++
				} else {
					h.discard(b, i)
				}
			}
		}
	}
	return true
}

// oldestOfLargest is the index of the oldest parcel of the putter whose parcels take
// the most bytes of the box, in the network whose do. The box has some.
func (b *box) oldestOfLargest() int {
	sizes := newLedger(0, 0)
	for _, m := range b.waiting {
		sizes.add(m.from, m.size())
	}
	best := 0
	for i, m := range b.waiting {
		if sizes.of(m.from).compare(sizes.of(b.waiting[best].from)) > 0 {
			best = i
		}
	}
	return best
}

// discard deletes parcel i of b. The caller holds mu.
func (h *hub) discard(b *box, i int) {
	m := b.waiting[i]
	n := m.size()
	b.waiting = slices.Delete(b.waiting, i, i+1)
	b.bytes -= n
	h.stored -= n
	h.kept.give(m.from, n)
}

// expire deletes what is over in b. The caller holds mu.
func (h *hub) expire(b *box, now time.Time) {
	for i := len(b.waiting) - 1; i >= 0; i-- {
		if now.After(b.waiting[i].until) {
			h.discard(b, i)
		}
	}
}

func (h *hub) sweep(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, b := range h.boxes {
		h.expire(b, now)
		h.tidy(key, b)
	}
}

func (h *hub) size() (listeners, stored int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.listeners, h.stored
}

func (h *hub) listening(p peer.ID) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return *h.listens.of(origin{peer: p}).peer
}
