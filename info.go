package peerlink

import (
	"cmp"
	"iter"
	"net"
	"slices"
	"time"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/internal/route"
)

// Path is the way that a link's bytes take. Its fields are for programs: Engine
// ("tcp", "udp", "webrtc", "unix", "shm", or an adopted stream's carrier), Over (the
// protocol below), Class (of ICE: "host", "srflx", "prflx", "mapped", "direct", "relay"),
// Local and Remote (netip.AddrPort), Relay and Detail, all of them strings but for the
// addresses, and empty where they say nothing. String is for people. A carrier tells it by a method Path() Path of its streams; of others the
// two addresses are known.
type Path = route.Path

// Connection describes a live link. As JSON it leaves out the stream's addresses.
type Connection struct {
	ID        LinkID        `json:"id"`
	Peer      identity.Peer `json:"peer"`
	Carrier   string        `json:"carrier"`       // the Dialer's or Listener's name, "adopted" after AddConn
	Path      Path          `json:"path,omitzero"` // how the carrier runs: engine and addresses
	Direction Direction     `json:"direction"`
	// LocalAddr and RemoteAddr are the stream's, as its carrier tells them.
	LocalAddr  net.Addr  `json:"-"`
	RemoteAddr net.Addr  `json:"-"`
	Created    time.Time `json:"created"`
	// LastActivity is when a channel was last opened or, while it is open,
	// carried data.
	LastActivity time.Time     `json:"last_activity"`
	RTT          time.Duration `json:"rtt_ns"` // smoothed, from beacons; 0 until the first came back
	Traffic
	// Unread is how many bytes wait for Reads, over all channels.
	Unread int64 `json:"unread"`
	// Opened is how many channels both sides have opened.
	Opened   uint64        `json:"opened"`
	Channels []ChannelInfo `json:"channels"` // the open ones, by id
}

// Traffic is what went over a link, or over many.
type Traffic = channel.Traffic

// ChannelInfo describes an open channel.
type ChannelInfo struct {
	ID        channel.ID `json:"id"`
	URI       string     `json:"uri"`
	Direction Direction  `json:"direction"` // Outbound: this side asked for it
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
		slices.SortFunc(ls, func(a, b *link) int { return cmp.Compare(a.id.n, b.id.n) })
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
		Traffic: st.Traffic,
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
	Opened uint64 `json:"opened"` // links that came up
	Closed uint64 `json:"closed"` // links that ended
	Links  int    `json:"links"`  // live now
	Failed uint64 `json:"failed"` // tries without a link: a carrier's attempts, or all in all the connects
	// Traffic is that of all links, the ended ones included.
	Traffic
}

// Metrics are totals since the manager was made.
type Metrics struct {
	Totals
	Connecting int    `json:"connecting"` // links being made now
	Refused    uint64 `json:"refused"`    // devices that were refused, by trust, capacity or OnICERequest
	Accepted   uint64 `json:"accepted"`   // channels that peers asked for and got
	Declined   uint64 `json:"declined"`   // channels that peers asked for and did not get
	Retried    uint64 `json:"retried"`    // channel requests that were sent again after their link was lost
	Panics     uint64 `json:"panics"`     // callbacks of the application that panicked
	Channels   int    `json:"channels"`   // open now
	// Carriers are the totals by carrier's name.
	Carriers map[string]Totals `json:"carriers"`
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
	m.lock()
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
		c.Links++
		c.Add(st.Traffic)
		t.Carriers[l.carrier] = c
		t.Channels += st.Channels
	}
	for _, c := range t.Carriers {
		t.Opened += c.Opened
		t.Closed += c.Closed
		t.Links += c.Links
		t.Add(c.Traffic)
	}
	return t
}

// CloseConnectionsWith closes the links with a device (an identity.DeviceID), or with
// all devices of an account or authority (an identity.AccountID), telling them, and
// returns how many links it closed.
// It waits until they have ended, at most a second or so. CloseLink does the same with
// one link, and says whether the peer has confirmed all that was sent.
func (m *ConnectionManager) CloseConnectionsWith(subject identity.Subject) int {
	links := slices.DeleteFunc(m.allLinks(), func(l *link) bool {
		return l.peer.Device != subject && l.peer.Account != subject && l.peer.CA != subject
	})
	_ = m.closeLinks(new(ShutdownError), links...)
	return len(links)
}

// CloseLink is Link.Close of the link that an id names. If there is none, or it has
// ended, the error matches ErrNotConnected.
func (m *ConnectionManager) CloseLink(id LinkID) error {
	k, err := m.Link(id)
	if err != nil {
		return err
	}
	return k.Close()
}
