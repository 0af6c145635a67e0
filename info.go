package peerlink

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"peerlink/channel"
	"peerlink/identity"
)

// Connection describes a live link.
type Connection struct {
	ID        LinkID
	Peer      identity.Peer
	Carrier   string // the Dialer's or Listener's name, "adopted" after AddConn
	Path      string // how the carrier runs: engine and addresses, for people
	Direction Direction
	Created   time.Time
	RTT       time.Duration // from beacons; 0 until the first came back
	// Bytes on the link, frames' headers included.
	BytesSent, BytesReceived uint64
	Channels                 []ChannelInfo
}

// ChannelInfo describes an open channel.
type ChannelInfo struct {
	ID  channel.ID
	URI string
	channel.Stats
}

// Connections returns the live links, by id, as they are now.
func (m *ConnectionManager) Connections() []Connection {
	var cs []Connection
	for _, l := range m.allLinks() {
		st := l.mux.Stats()
		c := Connection{
			ID: l.id, Peer: l.peer, Carrier: l.carrier, Path: l.path, Direction: l.direction,
			Created: l.up, RTT: st.RTT, BytesSent: st.BytesSent, BytesReceived: st.BytesReceived,
		}
		for _, s := range l.mux.Channels() {
			c.Channels = append(c.Channels, ChannelInfo{ID: s.ID(), URI: s.URI(), Stats: s.Stats()})
		}
		cs = append(cs, c)
	}
	slices.SortFunc(cs, func(a, b Connection) int {
		return cmp.Or(cmp.Compare(a.ID.slot, b.ID.slot), cmp.Compare(a.ID.generation, b.ID.generation))
	})
	return cs
}

// Metrics are totals since the manager was made.
type Metrics struct {
	Opened uint64 // links that came up
	Closed uint64 // links that ended
	Failed uint64 // negotiations without a link
	Links  int    // live now
}

// Metrics returns the totals.
func (m *ConnectionManager) Metrics() Metrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.totals
	t.Links = m.links
	return t
}

// CloseConnectionsWith closes the links with a device, or with all devices of
// an account or authority, telling them, and returns how many those were. It
// waits until they have ended, at most a second or so.
func (m *ConnectionManager) CloseConnectionsWith(who identity.Subject) int {
	n := 0
	donec := make(chan struct{})
	for _, l := range m.allLinks() {
		if l.peer.Device != who && l.peer.Account != who && l.peer.CA != who {
			continue
		}
		n++
		go func() {
			_ = l.mux.Close()
			donec <- struct{}{}
		}()
	}
	for range n {
		<-donec
	}
	return n
}

// CloseLink closes one link, telling the peer. An id whose link has ended, or
// that never was one, is an error that matches ErrNotConnected.
func (m *ConnectionManager) CloseLink(id LinkID) error {
	m.mu.Lock()
	var l *link
	if int64(id.slot) < int64(len(m.slots)) && m.slots[id.slot].generation == id.generation {
		l = m.slots[id.slot].link
	}
	m.mu.Unlock()
	if l == nil {
		return fmt.Errorf("peerlink: link %s: %w", id, ErrNotConnected)
	}
	return l.mux.Close()
}

// ConnectivityChanged sends a beacon on every link at once, for use when the
// network has changed: links that lead nowhere any more end within the
// beacon time-out instead of at the next beacon. It does not wait.
func (m *ConnectionManager) ConnectivityChanged() {
	for _, l := range m.allLinks() {
		m.goFunc(func() {
			ctx, cancel := context.WithCancel(m.ctx)
			defer cancel()
			_, _ = l.mux.Ping(ctx) // what it finds out, the link's own end tells
		})
	}
}
