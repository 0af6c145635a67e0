package peerlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/internal/trace"
	"peerlink/multiplex"
)

// Addr is the address of a channel's end: the device there, whatever the
// carrier. It is what LocalAddr and RemoteAddr of a channel return.
type Addr struct{ Peer identity.Peer }

// Network returns "peerlink".
func (a *Addr) Network() string { return "peerlink" }

// String returns the device id's 64 hex digits.
func (a *Addr) String() string { return a.Peer.Device.String() }

// PeerOf returns the proven device at the far end of a channel.
func PeerOf(c net.Conn) (identity.Peer, bool) {
	a, ok := c.RemoteAddr().(*Addr)
	if !ok {
		return identity.Peer{}, false
	}
	return a.Peer, true
}

// LinkID names a link of a manager for ever: its slot and the slot's
// generation. An id never names another link after its own has closed. The
// zero value names none.
type LinkID struct{ slot, generation uint32 }

// String returns "slot.generation", which ParseLinkID reads.
func (id LinkID) String() string { return fmt.Sprintf("%d.%d", id.slot, id.generation) }

// IsZero reports whether the id names no link.
func (id LinkID) IsZero() bool { return id.generation == 0 }

// ParseLinkID reads what String wrote, and nothing else.
func ParseLinkID(s string) (LinkID, error) {
	a, b, ok := strings.Cut(s, ".")
	slot, err1 := strconv.ParseUint(a, 10, 32)
	gen, err2 := strconv.ParseUint(b, 10, 32)
	id := LinkID{uint32(slot), uint32(gen)}
	if !ok || err1 != nil || err2 != nil || gen == 0 || id.String() != s {
		return LinkID{}, fmt.Errorf("peerlink: %.40q is not a link id (want SLOT.GENERATION, as 0.1)", s)
	}
	return id, nil
}

// Direction says who began a link.
type Direction int

// The directions.
const (
	Inbound  Direction = iota // the peer called
	Outbound                  // this side called
)

// String returns "inbound" or "outbound".
func (d Direction) String() string {
	if d == Outbound {
		return "outbound"
	}
	return "inbound"
}

// maxAsked is how many channel requests of this side wait for answers on one
// link: what multiplex asks at once. A request that has a place here has
// been sent if the link breaks, one that has none has not.
const maxAsked = 256

// link is one live connection to one device.
type link struct {
	id            LinkID
	peer          identity.Peer
	carrier       string
	path          string
	local, remote net.Addr
	direction     Direction
	// deliberate links were asked for by themselves (NewLink, certain carriers,
	// an address, AddConn): the rule about two links at once leaves them alone.
	deliberate bool
	of         *negotiation // that this link was dialled for; nil: for none
	mux        *multiplex.Socket
	up         time.Time
	asking     chan struct{}

	// Guarded by ConnectionManager.mu:
	retired     bool      // gives no more channels: it is about to be closed
	suspect     bool      // did not answer in time after the network changed
	probing     bool      // a beacon of probe is under way
	opened      uint64    // channels that came about, of both sides
	opening     int       // requests of this side under way
	lastChannel time.Time // when the last channel came about
	idleSince   time.Time // when it was first seen without channels; zero: it has some
	// accepted are the channels that the peer opened, one for each URI, for
	// unique calls; looked through when there are acceptedSweep.
	accepted      map[string]*channel.Socket
	acceptedSweep int
}

// TraceEvent is a milestone of a connect: Step (“record found”, “offer sent”,
// “answer received”, “ice pair”, “tls”, “link up”, “channel open”, “attempt
// failed”), the time, and a few words.
type TraceEvent = trace.Event

// WithTrace returns a context whose ConnectDevice tells read about each
// milestone. read is called from several goroutines and must be quick. Callers
// that join a negotiation under way hear only of their own channel.
func WithTrace(ctx context.Context, read func(TraceEvent)) context.Context {
	return trace.With(ctx, read)
}

// crossing is how long after a link of this side came up the peer may still
// have been making one itself, without knowing: some round trips of the worst
// link we care for (600 ms) would be more than is worth waiting for.
const crossing = time.Second

// errCrossed is why a link is given up that was made while the other side made
// one, too.
var errCrossed = errors.New("both sides connected at once, and the other link is the one to keep")

type slotState struct {
	generation uint32
	link       *link
}

// preferred reports whether a is the link that both sides prefer over b, when
// there are two to one device: the one whose caller has the smaller id; of two
// of one direction, the older.
func (m *ConnectionManager) preferred(a, b *link) bool {
	if a.direction != b.direction {
		return (a.direction == Outbound) == m.smaller(a.peer.Device)
	}
	return a.up.Before(b.up)
}

// smaller reports whether this device's id is smaller than the peer's.
func (m *ConnectionManager) smaller(peer identity.DeviceID) bool {
	self := m.cfg.Identity.DeviceID()
	return string(self[:]) < string(peer[:])
}

// register gives a link a slot and makes it known. It fails when the manager
// is full or closed, the peer is not trusted, or a link that both sides prefer
// came up meanwhile. first says that no other link to the device existed;
// crossed are links that this one takes the place of, for the caller to close.
func (m *ConnectionManager) register(l *link) (first bool, crossed []*link, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.admitLocked(l); err != nil {
		return false, nil, err
	}
	others := m.byDevice[l.peer.Device]
	for _, o := range others {
		if l.direction == Inbound && o.losesToLocked(m, l) {
			o.retired = true
			crossed = append(crossed, o)
		}
	}
	m.placeLocked(l)
	if l.of != nil {
		l.of.won = true
	}
	m.byDevice[l.peer.Device] = append(others, l)
	m.links++
	t := m.carrierLocked(l.carrier)
	t.Opened++
	t.Links++
	m.bus.tell(Event{Kind: LinkUp, Link: l.id, Peer: l.peer, Carrier: l.carrier, Direction: l.direction})
	if l.direction == Inbound {
		m.completeLocked(l)
	}
	return len(others) == 0, crossed, nil
}

// admitLocked says why a link may not be made known. m.mu is held.
func (m *ConnectionManager) admitLocked(l *link) error {
	switch {
	case m.leaving:
		return errClosed
	case l.of != nil && l.of.won:
		return errLost // before it is known, so that nobody has a channel on it
	case m.links >= m.cfg.Capacity:
		return fmt.Errorf("%w: %d exist", ErrCapacity, m.links)
	case len(m.byDevice[l.peer.Device]) >= m.cfg.PerDevice:
		return fmt.Errorf("%w: %d exist with this device", ErrCapacity, m.cfg.PerDevice)
	}
	// Asked under the lock, so that no change can fall between check and watch.
	if err := m.cfg.Trust.Check(l.peer); err != nil {
		return err
	}
	if l.direction == Outbound && !l.deliberate {
		for _, o := range m.byDevice[l.peer.Device] {
			if o.direction == Inbound && !o.deliberate && !o.suspect && !o.mux.Ending() && m.preferred(o, l) {
				return errCrossed
			}
		}
	}
	return nil
}

// losesToLocked reports whether a link of this side was made while the peer
// made l, which both prefer. Then the peer has accepted no channel on it: it
// holds such links back (see holdBack). m.mu is held.
func (o *link) losesToLocked(m *ConnectionManager, l *link) bool {
	return o.direction == Outbound && !o.deliberate && !l.deliberate && !o.retired && o.opened == 0 && m.preferred(l, o)
}

// placeLocked gives a link its id. m.mu is held.
func (m *ConnectionManager) placeLocked(l *link) {
	var slot uint32
	if n := len(m.freeSlots); n > 0 {
		slot, m.freeSlots = m.freeSlots[n-1], m.freeSlots[:n-1]
	} else {
		slot = uint32(len(m.slots))
		m.slots = append(m.slots, slotState{})
	}
	st := &m.slots[slot]
	st.generation++
	st.link = l
	l.id = LinkID{slot, st.generation}
	l.up = time.Now()
	l.lastChannel = l.up
}

// unregister forgets a link that has ended and frees its slot.
func (m *ConnectionManager) unregister(l *link) {
	cause, st := l.mux.Err(), l.mux.Stats()
	m.mu.Lock()
	defer m.mu.Unlock()
	slot := &m.slots[l.id.slot]
	if slot.link != l {
		return
	}
	slot.link = nil
	if slot.generation != ^uint32(0) { // else its ids are used up
		m.freeSlots = append(m.freeSlots, l.id.slot)
	}
	ls := slices.DeleteFunc(m.byDevice[l.peer.Device], func(o *link) bool { return o == l })
	if len(ls) == 0 {
		delete(m.byDevice, l.peer.Device)
	} else {
		m.byDevice[l.peer.Device] = ls
	}
	m.links--
	t := m.carrierLocked(l.carrier)
	t.Links--
	t.Closed++
	t.add(traffic(st))
	m.bus.tell(Event{Kind: LinkDown, Link: l.id, Peer: l.peer, Carrier: l.carrier, Direction: l.direction, Err: cause})
}

// find returns the link that an id names, or nil.
func (m *ConnectionManager) find(id LinkID) *link {
	m.mu.Lock()
	defer m.mu.Unlock()
	if int64(id.slot) < int64(len(m.slots)) && m.slots[id.slot].generation == id.generation {
		return m.slots[id.slot].link
	}
	return nil
}

// bestLinkLocked returns the live link to a device that both sides prefer, or
// nil. One that does not answer is the last choice. m.mu is held.
func (m *ConnectionManager) bestLinkLocked(device identity.DeviceID, carriers []string) *link {
	var best *link
	for _, l := range m.byDevice[device] {
		switch {
		case l.retired || l.mux.Ending() || carriers != nil && !slices.Contains(carriers, l.carrier):
		case best == nil, best.suspect && !l.suspect:
			best = l
		case l.suspect == best.suspect && m.preferred(l, best):
			best = l
		}
	}
	return best
}

// allLinks returns the links that are known now.
func (m *ConnectionManager) allLinks() []*link {
	m.mu.Lock()
	defer m.mu.Unlock()
	ls := make([]*link, 0, m.links)
	for _, of := range m.byDevice {
		ls = append(ls, of...)
	}
	return ls
}

// retire closes links that gave way to another; their channel requests are
// asked again there.
func (m *ConnectionManager) retire(links []*link, why error) {
	for _, l := range links {
		m.goFunc(func() { _ = l.mux.CloseWith(channel.CodeClosed, why.Error()) })
	}
}

// admitChannel counts a channel that comes about on a link; false if the link
// is given up, and so is the channel.
func (m *ConnectionManager) admitChannel(l *link) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.retired {
		return false
	}
	l.opened++
	l.lastChannel = time.Now()
	l.idleSince = time.Time{}
	return true
}
