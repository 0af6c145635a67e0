package peerlink

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"peerlink/channel"
	"peerlink/identity"
)

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
	m.tellLocked(Event{Kind: LinkUp, Link: l.id, Peer: l.peer, Carrier: l.carrier, Direction: l.direction})
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
	m.tellLocked(Event{Kind: LinkDown, Link: l.id, Peer: l.peer, Carrier: l.carrier, Direction: l.direction, Err: cause})
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
