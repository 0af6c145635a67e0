package peerlink

import (
	"cmp"
	"fmt"
	"iter"
	"net"
	"slices"
	"sync"
	"time"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/internal/route"
	"peerlink/multiplex"
)

// Path is the way that a link's bytes take: by fields for programs, by String for
// people. A carrier tells it by a method Path() Path of its streams; of others the
// two addresses are known.
type Path = route.Path

// Connection describes a live link.
type Connection struct {
	ID        LinkID
	Peer      identity.Peer
	Carrier   string // the Dialer's or Listener's name, "adopted" after AddConn
	Path      Path   // how the carrier runs: engine and addresses
	Direction Direction
	// LocalAddr and RemoteAddr are the stream's, as its carrier tells them.
	LocalAddr, RemoteAddr net.Addr
	Created               time.Time
	// LastActivity is when a channel was last opened or, while it is open,
	// carried data.
	LastActivity time.Time
	RTT          time.Duration // smoothed, from beacons; 0 until the first came back
	Traffic
	// Unread is how many bytes wait for Reads, over all channels.
	Unread int64
	// Opened is how many channels both sides have opened.
	Opened   uint64
	Channels []ChannelInfo // the open ones, by id
}

// Traffic is what went over a link, or over many.
type Traffic struct {
	// Bytes, frames' headers and datagrams included.
	BytesSent, BytesReceived uint64
	// FramesSent counts frames with data of channels, FramesReceived all.
	FramesSent, FramesReceived uint64
	// Stalls is how often a Write on a channel had to wait for credit.
	Stalls uint64
	// WouldBlocks is how often a TrySend or SendUnreliable was not sent, for
	// want of room.
	WouldBlocks uint64
	// DatagramsDropped counts received ones that were not read in time, or came
	// for a channel that does not exist or has ended.
	DatagramsSent, DatagramsReceived, DatagramsDropped uint64
}

// traffic is what went over a link.
func traffic(st multiplex.Stats) Traffic {
	return Traffic{
		BytesSent: st.BytesSent, BytesReceived: st.BytesReceived, FramesSent: st.FramesSent, FramesReceived: st.FramesReceived,
		Stalls: st.Stalls, WouldBlocks: st.WouldBlocks,
		DatagramsSent: st.DatagramsSent, DatagramsReceived: st.DatagramsReceived, DatagramsDropped: st.DatagramsDropped,
	}
}

func (t *Traffic) add(o Traffic) {
	t.BytesSent += o.BytesSent
	t.BytesReceived += o.BytesReceived
	t.FramesSent += o.FramesSent
	t.FramesReceived += o.FramesReceived
	t.Stalls += o.Stalls
	t.WouldBlocks += o.WouldBlocks
	t.DatagramsSent += o.DatagramsSent
	t.DatagramsReceived += o.DatagramsReceived
	t.DatagramsDropped += o.DatagramsDropped
}

// ChannelInfo describes an open channel.
type ChannelInfo struct {
	ID        channel.ID
	URI       string
	Direction Direction // Outbound: this side asked for it
	channel.Stats
}

// Connections returns the live links, by id, as they are now.
func (m *ConnectionManager) Connections() []Connection {
	return slices.Collect(m.Links())
}

// Links returns an iterator over the live links, by id: the links that there are
// when the loop begins and have not ended when their turn comes, each as it is
// then. It may be ranged over more than once.
func (m *ConnectionManager) Links() iter.Seq[Connection] {
	return func(yield func(Connection) bool) {
		ls := m.allLinks()
		slices.SortFunc(ls, func(a, b *link) int {
			return cmp.Or(cmp.Compare(a.id.slot, b.id.slot), cmp.Compare(a.id.generation, b.id.generation))
		})
		for _, l := range ls {
			if m.find(l.id) == l && !yield(m.describe(l)) {
				return
			}
		}
	}
}

func (m *ConnectionManager) describe(l *link) Connection {
	st := l.mux.Stats()
	c := Connection{
		ID: l.id, Peer: l.peer, Carrier: l.carrier, Path: l.path, Direction: l.direction,
		LocalAddr: l.local, RemoteAddr: l.remote, Created: l.up, RTT: st.RTT, Unread: st.Unread,
		Traffic: traffic(st),
	}
	m.locked(func() { c.Opened, c.LastActivity = l.opened, l.lastChannel })
	for _, s := range l.mux.Channels() {
		ci := ChannelInfo{ID: s.ID(), URI: s.URI(), Direction: directionOf(l, s.ID()), Stats: s.Stats()}
		if ci.LastActivity.After(c.LastActivity) {
			c.LastActivity = ci.LastActivity
		}
		c.Channels = append(c.Channels, ci)
	}
	return c
}

// directionOf returns which side asked for a channel: the calling side of a link takes
// the lower half of the ids.
func directionOf(l *link, id channel.ID) Direction {
	if (id < 0x8000) == (l.direction == Outbound) {
		return Outbound
	}
	return Inbound
}

// Totals are a carrier's, or all carriers', numbers since the manager was made.
type Totals struct {
	Opened uint64 // links that came up
	Closed uint64 // links that ended
	Links  int    // live now
	Failed uint64 // tries without a link: a carrier's attempts, or all in all the connects
	// Traffic is that of all links, the ended ones included.
	Traffic
}

// Metrics are totals since the manager was made.
type Metrics struct {
	Totals
	Connecting int    // links being made now
	Refused    uint64 // devices that were refused, by trust, capacity or OnICERequest
	Accepted   uint64 // channels that peers asked for and got
	Declined   uint64 // channels that peers asked for and did not get
	Retried    uint64 // channel requests that were sent again after their link was lost
	Panics     uint64 // callbacks of the application that panicked
	Channels   int    // open now
	// Carriers are the totals by carrier's name.
	Carriers map[string]Totals
}

// totals are the numbers so far; ConnectionManager.mu guards them.
type totals struct {
	Metrics  // but for what Metrics adds up
	carriers map[string]*Totals
}

// carrier returns a carrier's totals, for the caller to change.
func (t *totals) carrier(name string) *Totals {
	c := t.carriers[name]
	if c == nil {
		c = new(Totals)
		t.carriers[name] = c
	}
	return c
}

// Metrics returns the totals. It looks at every link.
func (m *ConnectionManager) Metrics() Metrics {
	m.mu.Lock()
	live, t := m.links.all(), m.totals.Metrics
	t.Connecting = m.talks.n
	t.Carriers = make(map[string]Totals, len(m.totals.carriers))
	for name, c := range m.totals.carriers {
		t.Carriers[name] = *c
	}
	m.mu.Unlock()
	for _, l := range live {
		st := l.mux.Stats()
		c := t.Carriers[l.carrier]
		c.add(traffic(st))
		t.Carriers[l.carrier] = c
		t.Channels += st.Channels
	}
	for _, c := range t.Carriers {
		t.Opened += c.Opened
		t.Closed += c.Closed
		t.Links += c.Links
		t.add(c.Traffic)
	}
	return t
}

// CloseConnectionsWith closes the links with a device, or with all devices of
// an account or authority, telling them, and returns how many links it closed.
// It waits until they have ended, at most a second or so.
func (m *ConnectionManager) CloseConnectionsWith(subject identity.Subject) int {
	n := 0
	var closing sync.WaitGroup
	for _, l := range m.allLinks() {
		if l.peer.Device != subject && l.peer.Account != subject && l.peer.CA != subject {
			continue
		}
		n++
		closing.Go(func() {
			_ = l.mux.Close()
			m.unregister(l) // so that the lists say so when this returns
		})
	}
	closing.Wait()
	return n
}

// CloseLink closes one link, telling the peer, and waits until it has ended. An
// id that names no live link is an error that matches ErrNotConnected.
func (m *ConnectionManager) CloseLink(id LinkID) error {
	l := m.find(id)
	if l == nil {
		return fmt.Errorf("peerlink: link %s: %w", id, ErrNotConnected)
	}
	err := l.mux.Close()
	m.unregister(l)
	return err
}
