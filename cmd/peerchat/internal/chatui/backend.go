package chatui

import (
	"context"
	"time"
)

// Backend is what the chat shows and what it asks for. Its methods are called
// from several goroutines at once; each call ends with its context at the
// latest. What it returns is not changed by either side afterwards.
type Backend interface {
	// Contacts returns all contacts, in any order.
	Contacts(ctx context.Context) ([]Contact, error)
	// History returns the n newest messages with a Seq below before, the oldest
	// first; before 0 means from the newest one on. Fewer than n mean that
	// nothing older exists. n is 40 at most.
	History(ctx context.Context, contact string, before int64, n int) ([]Message, error)
	// Send takes a text for a contact and returns it as a message, once it is
	// sure not to be lost. It does not wait for the contact. Calls come one
	// after the other.
	Send(ctx context.Context, contact, text string) (Message, error)
	// Seen notes that the messages of a contact up to seq were on the screen.
	Seen(ctx context.Context, contact string, seq int64) error
	// Events returns what happens from now on, until ctx ends. It closes the
	// channel at that time, and earlier if it has lost something or somebody:
	// then all is asked for again. Where the reader is too slow, closing is
	// better than waiting.
	Events(ctx context.Context) (<-chan Event, error)
}

// Contact is somebody to talk to.
type Contact struct {
	ID       string // names the contact in all calls; never empty
	Name     string // as the user or the contact calls it; the ID is shown where it is empty
	Presence Presence
	Unread   int    // messages after the last one that was Seen
	Detail   string // one line about the way to it, such as "direct, 12 ms"; may be empty
}

// Presence is whether a contact can be reached now.
type Presence uint8

// The presences. Unknown is the zero value.
const (
	Unknown Presence = iota
	Away
	Online
)

// Message is one message of a conversation, in either direction.
type Message struct {
	Contact string    // the ID of the contact at the other end
	Seq     int64     // above 0; names the message in its conversation and orders it
	Mine    bool      // written by this user
	Text    string    // as it was written; anything may stand in it
	Time    time.Time // when it was written or came
	Mark    Mark      // what became of it; for messages of this user only
	Reason  string    // why it Failed
}

// Mark is what became of a message.
type Mark uint8

// The marks, in the order of a message's life. Queued is the zero value.
const (
	Queued    Mark = iota // kept here until the contact can be reached
	Sent                  // on its way
	Delivered             // kept by the contact's device
	Failed                // given up; Message.Reason says why
)

// Event is a change. Exactly one field is set.
type Event struct {
	Contact *Contact // is new, or has changed
	Gone    string   // the ID of a contact that was removed
	Message *Message // is new, or its Mark has changed
}
