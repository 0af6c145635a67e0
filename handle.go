package peerlink

import (
	"fmt"
	"net"
)

// Link is a handle to one link. It stays the same link's after that has ended.
// Its methods may be called concurrently, and none but Close blocks.
type Link struct {
	m *ConnectionManager
	l *link
}

// LinkState says what a link is good for.
type LinkState int

// The states, in the order in which a link goes through them; LinkSilent may be
// left again for LinkOpen.
const (
	LinkOpen   LinkState = iota // takes channels
	LinkSilent                  // takes channels, but has not answered in time since the network changed
	LinkEnding                  // takes no more channels: either side closes it, or another link takes its place
	LinkEnded                   // has ended; Link.Err tells why
)

// String returns the state's word, as "open".
func (s LinkState) String() string {
	names := [...]string{"open", "silent", "ending", "ended"}
	if s < 0 || int(s) >= len(names) {
		return "unknown"
	}
	return names[s]
}

// Link returns the link that an id names. If there is none, or it has ended, the
// error matches ErrNotConnected.
func (m *ConnectionManager) Link(id LinkID) (*Link, error) {
	l := m.find(id)
	if l == nil || l.mux.Err() != nil {
		return nil, fmt.Errorf("peerlink: link %s: %w", id, ErrNotConnected)
	}
	return &Link{m, l}, nil
}

// Connection describes the link as it is now; one that has ended has its last
// numbers, and no channels.
func (k *Link) Connection() Connection { return k.m.describe(k.l) }

// LocalAddr returns this side's address of the carrier's stream.
func (k *Link) LocalAddr() net.Addr { return k.l.local }

// RemoteAddr returns the far side's address of the carrier's stream.
func (k *Link) RemoteAddr() net.Addr { return k.l.remote }

// Done is closed when the link has ended. Err tells why, then.
func (k *Link) Done() <-chan struct{} { return k.l.mux.Done() }

// Err returns nil while the link lives, and afterwards why it ended: what matches
// net.ErrClosed after a close here, a *multiplex.GoingAwayError after one there,
// or the failure of the path.
func (k *Link) Err() error { return k.l.mux.Err() }

// State returns the state as it is now.
func (k *Link) State() LinkState {
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	switch {
	case k.l.mux.Err() != nil:
		return LinkEnded
	case k.l.retired || k.l.mux.Ending():
		return LinkEnding
	case k.l.suspect:
		return LinkSilent
	}
	return LinkOpen
}

// Close closes the link, telling the peer, and waits until it has ended, about a
// second at most. The error is a *ShutdownError if the peer has not confirmed all
// that was sent by then. Further calls return the same; of a link that has ended by
// itself the error is nil.
func (k *Link) Close() error { return k.m.closeLinks(new(ShutdownError), k.l) }

// Capacity returns how many links there may be (Config.Capacity), and how many
// places are taken: by links, and by links that this side is making. Without a free
// one, and a link that gives way, the error of a further link matches ErrCapacity.
func (m *ConnectionManager) Capacity() (most, taken int) {
	m.lock()
	defer m.mu.Unlock()
	return m.cfg.Capacity, len(m.links.byID) + m.talks.n
}
