package peerlink

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"peerlink/identity"
	"peerlink/multiplex"
)

// LinkID names a link of a manager for ever: its slot and the slot's
// generation. An id never names another link after its own has closed. The
// zero value names none.
type LinkID struct{ slot, generation uint32 }

// String returns "slot.generation", which ParseLinkID reads.
func (id LinkID) String() string { return fmt.Sprintf("%d.%d", id.slot, id.generation) }

// IsZero reports whether the id names no link.
func (id LinkID) IsZero() bool { return id.generation == 0 }

// ParseLinkID reads what String wrote.
func ParseLinkID(s string) (LinkID, error) {
	a, b, ok := strings.Cut(s, ".")
	slot, err1 := strconv.ParseUint(a, 10, 32)
	gen, err2 := strconv.ParseUint(b, 10, 32)
	if !ok || err1 != nil || err2 != nil || gen == 0 {
		return LinkID{}, fmt.Errorf("peerlink: %.40q is not a link id (want SLOT.GENERATION, as 0.1)", s)
	}
	return LinkID{uint32(slot), uint32(gen)}, nil
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

// link is one live connection to one device.
type link struct {
	id        LinkID
	peer      identity.Peer
	carrier   string
	path      string
	direction Direction
	mux       *multiplex.Socket
	up        time.Time
}

// preferred reports whether a is the link that both sides prefer over b, when
// there are two to one device: the one whose caller has the smaller id; of two
// of one direction, the older.
func (m *ConnectionManager) preferred(a, b *link) bool {
	if a.direction != b.direction {
		self := m.cfg.Identity.DeviceID()
		callerIsSelf := a.direction == Outbound
		selfIsSmaller := string(self[:]) < string(a.peer.Device[:])
		return callerIsSelf == selfIsSmaller
	}
	return a.up.Before(b.up)
}

// register gives a link a slot and makes it known. first says that no other
// link to the device existed. It fails when the manager is full or closed.
func (m *ConnectionManager) register(l *link) (first bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		return false, errClosed
	}
	if err := m.cfg.Trust.Check(l.peer); err != nil {
		return false, err // asked under the lock, so that no change can fall between check and watch
	}
	if m.links >= m.cfg.Capacity {
		return false, fmt.Errorf("%w: %d exist", ErrCapacity, m.links)
	}
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
	first = len(m.byDevice[l.peer.Device]) == 0
	m.byDevice[l.peer.Device] = append(m.byDevice[l.peer.Device], l)
	m.links++
	m.totals.Opened++
	return first, nil
}

// unregister forgets a link that has ended and frees its slot.
func (m *ConnectionManager) unregister(l *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := &m.slots[l.id.slot]
	if st.link != l {
		return
	}
	st.link = nil
	m.freeSlots = append(m.freeSlots, l.id.slot)
	ls := m.byDevice[l.peer.Device]
	for i := range ls {
		if ls[i] == l {
			ls = append(ls[:i:i], ls[i+1:]...)
			break
		}
	}
	if len(ls) == 0 {
		delete(m.byDevice, l.peer.Device)
	} else {
		m.byDevice[l.peer.Device] = ls
	}
	m.links--
	m.totals.Closed++
}

type slotState struct {
	generation uint32
	link       *link
}

// bestLinkLocked returns the live link to a device that both sides prefer, or nil.
// m.mu is held.
func (m *ConnectionManager) bestLinkLocked(device identity.DeviceID, carriers []string) *link {
	var best *link
	for _, l := range m.byDevice[device] {
		if l.mux.Ending() || !allowedCarrier(l.carrier, carriers) {
			continue
		}
		if best == nil || m.preferred(l, best) {
			best = l
		}
	}
	return best
}

func allowedCarrier(name string, carriers []string) bool {
	if carriers == nil {
		return true
	}
	return slices.Contains(carriers, name)
}
