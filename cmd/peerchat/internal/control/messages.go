package control

import (
	"time"

	"peerlink/identity"
)

// Say sends a message to a device, now or when it can be reached.
type Say struct {
	To   identity.DeviceID `json:"to"`
	Text string            `json:"text"`
}

// Message is a message of a conversation.
type Message struct {
	Seq    int64             `json:"seq"` // orders all messages
	Peer   identity.DeviceID `json:"peer"`
	ID     string            `json:"id"` // 32 hex digits
	Mine   bool              `json:"mine,omitempty"`
	Text   string            `json:"text"`
	At     time.Time         `json:"at"`
	Mark   string            `json:"mark,omitempty"` // of one's own: queued, sent, delivered or failed
	Reason string            `json:"reason,omitempty"`
}

// History asks for the N newest messages with a device whose Seq is below
// Before; 0 means all.
type History struct {
	Peer   identity.DeviceID `json:"peer"`
	Before int64             `json:"before,omitempty"`
	N      int               `json:"n"` // at most 40
}

// Forget deletes what was said with a device, and what waits for it, or with all
// strangers: devices for which no room is kept, and to which nothing was said by hand.
type Forget struct {
	Peer      identity.DeviceID `json:"peer,omitzero"`
	Strangers bool              `json:"strangers,omitempty"`
}

// Seen notes that the messages with a device up to Seq were seen.
type Seen struct {
	Peer identity.DeviceID `json:"peer"`
	Seq  int64             `json:"seq"`
}

// Talk is what there is with one device.
type Talk struct {
	Peer   identity.DeviceID `json:"peer"`
	Last   time.Time         `json:"last"` // of the newest message
	Unread int               `json:"unread"`
}
