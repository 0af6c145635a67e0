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
}

// Stats are a link's numbers since it began.
type Stats struct {
	BytesSent, BytesReceived uint64 // with the headers of frames; what the conn took and gave
	FramesReceived           uint64
	Unread                   int64 // bytes that wait for Reads, over all channels
	Channels                 int   // open, or not yet ended on both sides
	RTT                      time.Duration
	Created                  time.Time
}

// Stats returns the link's numbers.
func (s *Socket) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{
		BytesSent: s.stats.bytesOut.Load(), BytesReceived: s.stats.bytesIn.Load(), FramesReceived: s.stats.framesIn.Load(),
		Unread: s.buffered.Load(), Channels: len(s.table), RTT: s.beacons.rtt, Created: s.stats.created,
	}
}

// Channels returns the channels that have not ended on both sides, by id.
func (s *Socket) Channels() []*channel.Socket {
	var cs []*channel.Socket
	for _, e := range s.entries() {
		cs = append(cs, e.port.Socket())
	}
	slices.SortFunc(cs, func(a, b *channel.Socket) int { return cmp.Compare(a.ID(), b.ID()) })
	return cs
}

// Ending reports whether the link has ended or is about to, because either
// side closes it: it opens no more channels. The connection manager asks this
// before it gives a link to a caller, so that none gets one that is dying.
func (s *Socket) Ending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause != nil || s.verdict != nil || s.goingAway != nil
}
