package multiplex

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"peerlink/channel"
)

type counters struct {
	created                     time.Time
	bytesIn, bytesOut, framesIn atomic.Uint64
	framesOut, stalls, blocked  atomic.Uint64

	datagramsIn, datagramsOut, datagramsDropped atomic.Uint64
}

// Stats are a link's numbers since it began.
type Stats struct {
	channel.Traffic
	Unread   int64         // bytes that wait for Reads, over all channels
	Channels int           // that this side has a use for, or the peer has not answered
	RTT      time.Duration // smoothed, from beacons; 0 before the first answer, and with peers of version 1
	Created  time.Time
}

// Stats returns the link's numbers.
func (s *Socket) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{
		Traffic: channel.Traffic{
			BytesSent: s.stats.bytesOut.Load(), BytesReceived: s.stats.bytesIn.Load(), FramesReceived: s.stats.framesIn.Load(),
			FramesSent: s.stats.framesOut.Load(), Stalls: s.stats.stalls.Load(), WouldBlocks: s.stats.blocked.Load(),
			DatagramsSent: s.stats.datagramsOut.Load(), DatagramsReceived: s.stats.datagramsIn.Load(), DatagramsDropped: s.stats.datagramsDropped.Load(),
		},
		Unread: s.buffered.Load(), Channels: len(s.table), RTT: s.beacons.rtt, Created: s.stats.created,
	}
}

// Channels returns the channels that this side has a use for, or the peer has not
// answered, by id.
func (s *Socket) Channels() []*channel.Socket {
	var cs []*channel.Socket
	for _, e := range s.entries() {
		cs = append(cs, e.socket())
	}
	slices.SortFunc(cs, func(a, b *channel.Socket) int { return cmp.Compare(a.ID(), b.ID()) })
	return cs
}

// Ending reports whether the link has ended or is about to, because either
// side closes it: then it opens no more channels.
func (s *Socket) Ending() bool {
	select {
	case <-s.leaving:
		return true
	default:
		return false
	}
}

// Leaving is closed when Ending begins to hold.
func (s *Socket) Leaving() <-chan struct{} { return s.leaving }

// leaveLocked notes that the link ends. s.mu is held.
func (s *Socket) leaveLocked() {
	if !s.Ending() {
		close(s.leaving)
	}
}
