package channel

import "time"

// Traffic is what went over a channel, a link, or many links.
type Traffic struct {
	// Bytes, datagrams included; of a link frames' headers as well.
	BytesSent     uint64 `json:"bytes_sent"`
	BytesReceived uint64 `json:"bytes_received"`
	// FramesSent counts frames with data of channels; FramesReceived those of a
	// channel, or all of a link. A channel counts modulo 2³².
	FramesSent     uint64 `json:"frames_sent"`
	FramesReceived uint64 `json:"frames_received"`
	// Stalls is how often a Write on a channel had to wait for credit, of a channel
	// modulo 2³².
	Stalls uint64 `json:"stalls"`
	// WouldBlocks is how often a TrySend or SendUnreliable was not sent, for want
	// of room, of a channel modulo 2³².
	WouldBlocks uint64 `json:"would_blocks"`
	// DatagramsDropped counts received ones that were not read in time, or came
	// for a channel that does not exist or has ended.
	DatagramsSent     uint64 `json:"datagrams_sent"`
	DatagramsReceived uint64 `json:"datagrams_received"`
	DatagramsDropped  uint64 `json:"datagrams_dropped"`
}

// Add adds what went over another channel or link.
func (t *Traffic) Add(o Traffic) {
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

// Stats are a channel's numbers since it was opened.
type Stats struct {
	Traffic
	Unread       int       `json:"unread"` // bytes that wait for a Read
	Created      time.Time `json:"created"`
	LastActivity time.Time `json:"last_activity"`
}

// Stats returns the channel's numbers.
func (s *Socket) Stats() Stats {
	if s == nil {
		return Stats{}
	}
	c := s.stream().Counts()
	return Stats{
		Traffic: Traffic{
			BytesSent: c.BytesSent, BytesReceived: c.BytesReceived, FramesSent: uint64(c.FramesSent), FramesReceived: uint64(c.FramesReceived),
			Stalls: uint64(c.Stalls), WouldBlocks: uint64(c.WouldBlocks),
			DatagramsSent: c.DatagramsSent, DatagramsReceived: c.DatagramsReceived, DatagramsDropped: c.Dropped,
		},
		Unread: c.Unread, Created: c.Created, LastActivity: c.LastActivity,
	}
}
