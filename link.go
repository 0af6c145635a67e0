package peerlink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"peerlink/identity"
	"peerlink/internal/trace"
	"peerlink/multiplex"
)

// Addr is the address of a channel's end: the device there, over any carrier. It
// is what LocalAddr and RemoteAddr of a channel return.
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

// LinkID names a link of a manager, and never another one. The zero value names
// none.
type LinkID struct{ n uint64 }

// String returns the number that ParseLinkID reads.
func (id LinkID) String() string { return strconv.FormatUint(id.n, 10) }

// IsZero reports whether the id names no link.
func (id LinkID) IsZero() bool { return id.n == 0 }

// ParseLinkID reads what String wrote, and nothing else.
func ParseLinkID(s string) (LinkID, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	id := LinkID{n}
	if err != nil || id.IsZero() || id.String() != s {
		return LinkID{}, fmt.Errorf("peerlink: %.40q is not a link id (want a number, as 7)", s)
	}
	return id, nil
}

// Direction says which side began a link.
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
// link: as many as multiplex sends ahead. If the link breaks, a request that has
// a place here was sent, and one without a place was not.
const maxAsked = 256

// MarshalText implements encoding.TextMarshaler with String.
func (id LinkID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with ParseLinkID.
func (id *LinkID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseLinkID(string(b))
	return err
}

// MarshalText implements encoding.TextMarshaler with String.
func (d Direction) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It reads what String wrote.
func (d *Direction) UnmarshalText(b []byte) error {
	for _, *d = range []Direction{Inbound, Outbound} {
		if d.String() == string(b) {
			return nil
		}
	}
	return fmt.Errorf("peerlink: %.40q is no direction", b)
}

// link is one live connection to one device.
type link struct {
	id            LinkID
	peer          identity.Peer
	carrier       string
	path          Path
	local, remote net.Addr
	direction     Direction
	// deliberate links were asked for by themselves (NewLink, certain carriers,
	// an address, AddConn): the rule about two links at once leaves them alone.
	deliberate bool
	of         *negotiation // the link was dialled for it; nil: for none
	mux        *multiplex.Socket
	up         time.Time
	asking     chan struct{}

	// Guarded by ConnectionManager.mu:
	member      bool      // its device is one, when it was looked at last
	looked      time.Time // when that was
	stranger    bool      // made by a device that is no member: gives way
	retired     bool      // gives no more channels: it is about to be closed
	suspect     bool      // did not answer in time after the network changed
	probing     bool      // a beacon of probe is under way
	reprobe     bool      // asked for meanwhile
	opened      uint64    // channels that both sides have opened
	lastChannel time.Time // when the last channel was opened
	idleSince   time.Time // when it was first seen without channels; zero: it has some
}

// TraceEvent is a milestone of a connect. Its fields are Step, a string (“record
// found”, “offer sent”, “answer received”, “ice pair”, “tls”, “link up”, “channel
// open”, “attempt failed”), At, the time, and Detail, a few words.
type TraceEvent = trace.Event

// WithTrace returns a context for ConnectDevice, to call read at each milestone.
// read is called from several goroutines and must be quick. Callers that join a
// negotiation under way are told of their own channel only.
func WithTrace(ctx context.Context, read func(TraceEvent)) context.Context {
	return trace.With(ctx, read)
}

// crossing is how long a new link of this side makes the peer's links wait: the
// peer may have begun one before it knew of this one. Several round trips of the
// worst link (600 ms) would be safer, but are not worth the wait.
const crossing = time.Second

// errCrossed is why a link is given up that was made while the other side made
// one, too.
var errCrossed = errors.New("both sides connected at once, and the other link is the one to keep")

// links are the live links, by id and by device. ConnectionManager.mu guards
// them: the methods are called while that is held.
type links struct {
	self                identity.DeviceID
	capacity, perDevice int
	last                uint64    // of the ids that were given
	looked              time.Time // when all were looked at last, see refresh
	byID                map[LinkID]*link
	byDevice            map[identity.DeviceID][]*link
}

// smaller reports whether a device's id is smaller than another one's.
func smaller(a, b identity.DeviceID) bool { return bytes.Compare(a[:], b[:]) < 0 }

// preferred reports whether a is the link that both sides prefer over b, when
// there are two to one device: the one called from the smaller id; of two of one
// direction, the older.
func (ls *links) preferred(a, b *link) bool {
	if a.direction != b.direction {
		return (a.direction == Outbound) == smaller(ls.self, a.peer.Device)
	}
	return a.up.Before(b.up)
}

// overtaken reports whether the peer made a link at the same time as this side
// made l, and both prefer the peer's.
func (ls *links) overtaken(l *link) bool {
	return l.direction == Outbound && !l.deliberate && slices.ContainsFunc(ls.byDevice[l.peer.Device], func(o *link) bool {
		return o.direction == Inbound && !o.deliberate && !o.suspect && !o.mux.Ending() && ls.preferred(o, l)
	})
}

// add gives a link its id. It returns the links of this side that were made
// while the peer made l, which both prefer: they are retired, and the caller
// closes them. The peer has accepted no channel on them (see holdBack).
func (ls *links) add(l *link) (crossed []*link) {
	for _, o := range ls.byDevice[l.peer.Device] {
		if l.direction == Inbound && o.direction == Outbound && !o.deliberate && !l.deliberate && !o.retired && o.opened == 0 && ls.preferred(l, o) {
			o.retired = true
			crossed = append(crossed, o)
		}
	}
	ls.last++
	l.id = LinkID{ls.last}
	ls.byID[l.id] = l
	l.up = time.Now()
	l.lastChannel = l.up
	ls.byDevice[l.peer.Device] = append(ls.byDevice[l.peer.Device], l)
	return crossed
}

// remove forgets a link; false if that was done before.
func (ls *links) remove(l *link) bool {
	if ls.byID[l.id] != l {
		return false
	}
	delete(ls.byID, l.id)
	of := slices.DeleteFunc(ls.byDevice[l.peer.Device], func(o *link) bool { return o == l })
	if ls.byDevice[l.peer.Device] = of; len(of) == 0 {
		delete(ls.byDevice, l.peer.Device)
	}
	return true
}

// best returns the live link to a device that both sides prefer, or nil. A
// suspect one is the last choice. carriers are the allowed carriers' names; nil: all.
func (ls *links) best(device identity.DeviceID, carriers []string) *link {
	var best *link
	for _, l := range ls.byDevice[device] {
		switch {
		case l.retired || l.mux.Ending() || carriers != nil && !slices.Contains(carriers, l.carrier):
		case best == nil, best.suspect && !l.suspect:
			best = l
		case l.suspect == best.suspect && ls.preferred(l, best):
			best = l
		}
	}
	return best
}

// young returns a link of this side to a device that the peer may not have
// known when it began its own, and for how long yet; nil if there is none.
func (ls *links) young(device identity.DeviceID) (*link, time.Duration) {
	for _, o := range ls.byDevice[device] {
		if age := time.Since(o.up); o.direction == Outbound && !o.deliberate && age < crossing && !o.mux.Ending() {
			return o, crossing - age
		}
	}
	return nil, 0
}

// all returns the links.
func (ls *links) all() []*link { return slices.Collect(maps.Values(ls.byID)) }

// idle retires the links that have had no channels for a time, and returns them.
func (ls *links) idle(now time.Time, timeout time.Duration) (idle []*link) {
	for _, l := range ls.all() {
		switch {
		case l.retired, l.mux.Ending():
		case len(l.asking) > 0 || l.mux.Stats().Channels > 0:
			l.idleSince = time.Time{}
		case l.idleSince.IsZero():
			l.idleSince = now
		case now.Sub(l.idleSince) >= timeout:
			l.retired = true
			idle = append(idle, l)
		}
	}
	return idle
}

// event returns what readers of events are told about a link.
func (l *link) event(kind EventKind, err error) Event {
	return Event{Kind: kind, Link: l.id, Peer: l.peer, Carrier: l.carrier, Direction: l.direction, Err: err}
}

// register makes a link known, and closes the links that it takes the place of.
// It fails when the manager is full or closed, the peer is not trusted, or a link
// that both sides prefer came up before.
func (m *ConnectionManager) register(l *link) error {
	m.look(l)
	m.refresh()
	m.mu.Lock()
	defer m.mu.Unlock()
	out, err := m.admitLocked(l)
	if err != nil {
		return err
	}
	m.giveWayLocked(out)
	if len(m.links.byDevice[l.peer.Device]) == 0 && m.cfg.OnNewDevice != nil {
		who := asker{l.peer.Device, !l.stranger}
		m.life.Go(func(ctx context.Context) {
			m.workers.notify(ctx, "OnNewDevice", who, func() { m.cfg.OnNewDevice(l.peer) })
		})
	}
	old := m.links.best(l.peer.Device, nil)
	m.retire(m.links.add(l), errCrossed)
	if l.of != nil {
		l.of.won = true
	}
	m.totals.carrier(l.carrier).Opened++
	m.bus.tell(l.event(LinkUp, nil))
	if l.direction == Inbound {
		m.talks.complete(l)
		if old != nil && !old.retired { // that the peer made another may mean that it has lost this one
			m.life.Go(func(ctx context.Context) { m.probe(ctx, old) })
		}
	}
	return nil
}

// admitLocked returns why a link may not be made known, or the link that has to give
// way to it, or nil. m.mu is held.
func (m *ConnectionManager) admitLocked(l *link) (out *link, err error) {
	switch {
	case m.leaving:
		return nil, errClosed
	case l.of != nil && l.of.won:
		return nil, errLost // before it is known, so that no channel is opened on it
	}
	out, err = m.links.room(asker{l.peer.Device, !l.stranger}, time.Now())
	switch {
	case err != nil:
		return nil, err
	case m.links.overtaken(l):
		return nil, errCrossed
	}
	// Asked under the lock, so that no change can fall between check and watch.
	return out, m.cfg.Trust.Admit(l.peer)
}

// unregister forgets a link that has ended.
func (m *ConnectionManager) unregister(l *link) {
	cause, st := l.mux.Err(), l.mux.Stats()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.links.remove(l) {
		return
	}
	t := m.totals.carrier(l.carrier)
	t.Closed++
	t.Add(st.Traffic)
	m.bus.tell(l.event(LinkDown, cause))
}

// find returns the link that an id names, or nil.
func (m *ConnectionManager) find(id LinkID) *link {
	m.lock()
	defer m.mu.Unlock()
	return m.links.byID[id]
}

// allLinks returns the links that are known now.
func (m *ConnectionManager) allLinks() []*link {
	m.lock()
	defer m.mu.Unlock()
	return m.links.all()
}

// retire closes links that gave way to another; their channel requests are
// asked again there.
func (m *ConnectionManager) retire(links []*link, why error) {
	for _, l := range links {
		m.life.Go(func(context.Context) { _ = l.mux.CloseWith(told(why)) })
	}
}

// admitChannel counts a channel that is opened on a link; false if the link is
// given up, and so is the channel.
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
