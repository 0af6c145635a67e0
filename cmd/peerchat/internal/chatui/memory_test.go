package chatui

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// noon is the time of the first message of a memory.
var noon = time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)

// memory is a Backend that keeps everything in memory. It marks each message
// as delivered at once, and answers if it was told how.
type memory struct {
	mu       sync.Mutex
	contacts []Contact
	msgs     map[string][]Message
	readers  map[chan Event]struct{}
	seen     map[string]int64
	sent     []outgoing
	pages    []int64                  // of History: each before
	refuse   error                    // what Send and History return
	answer   func(text string) string // empty for none
	block    chan struct{}            // Send waits for it to close
	deaf     bool                     // Events fails
}

func newMemory(contacts ...Contact) *memory {
	return &memory{contacts: contacts, msgs: map[string][]Message{}, readers: map[chan Event]struct{}{}, seen: map[string]int64{}}
}

var errDeaf = errors.New("the daemon is gone")

func (b *memory) Contacts(context.Context) ([]Contact, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.contacts), nil
}

func (b *memory) History(_ context.Context, contact string, before int64, n int) ([]Message, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		return nil, b.refuse
	}
	b.pages = append(b.pages, before)
	all := b.msgs[contact]
	if before > 0 {
		all = all[:min(int(before-1), len(all))]
	}
	return slices.Clone(all[max(len(all)-n, 0):]), nil
}

func (b *memory) Send(ctx context.Context, contact, text string) (Message, error) {
	if b.block != nil {
		select {
		case <-b.block:
		case <-ctx.Done():
			return Message{}, ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent = append(b.sent, outgoing{contact, text})
	if b.refuse != nil {
		return Message{}, b.refuse
	}
	m := b.put(Message{Contact: contact, Mine: true, Text: text, Mark: Queued})
	m.Mark = Delivered
	b.mark(m)
	if b.answer != nil {
		if a := b.answer(text); a != "" {
			b.put(Message{Contact: contact, Text: a})
		}
	}
	m.Mark = Queued // what it was when it was taken; the event tells more
	return m, nil
}

// put numbers a message, keeps it and tells it. The lock is held.
func (b *memory) put(m Message) Message {
	m.Seq = int64(len(b.msgs[m.Contact]) + 1)
	if m.Time.IsZero() {
		m.Time = noon.Add(time.Duration(m.Seq) * time.Minute)
	}
	b.msgs[m.Contact] = append(b.msgs[m.Contact], m)
	if !m.Mine {
		for i := range b.contacts {
			if b.contacts[i].ID == m.Contact {
				b.contacts[i].Unread++
				k := b.contacts[i]
				b.tell(Event{Contact: &k})
			}
		}
	}
	b.tell(Event{Message: &m})
	return m
}

func (b *memory) mark(m Message) {
	b.msgs[m.Contact][m.Seq-1] = m
	b.tell(Event{Message: &m})
}

// say is put from outside.
func (b *memory) say(m Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.put(m)
}

// change tells a new state of a contact.
func (b *memory) change(k Contact) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.contacts, func(c Contact) bool { return c.ID == k.ID })
	if i < 0 {
		b.contacts = append(b.contacts, k)
	} else {
		b.contacts[i] = k
	}
	b.tell(Event{Contact: &k})
}

// tell gives an event to all readers; one who is too slow is closed.
func (b *memory) tell(e Event) {
	for c := range b.readers {
		select {
		case c <- e:
		default:
			delete(b.readers, c)
			close(c)
		}
	}
}

func (b *memory) Seen(_ context.Context, contact string, seq int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen[contact] = seq
	for i := range b.contacts {
		if b.contacts[i].ID == contact {
			b.contacts[i].Unread = 0
			k := b.contacts[i]
			b.tell(Event{Contact: &k})
		}
	}
	return nil
}

func (b *memory) Events(ctx context.Context) (<-chan Event, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deaf {
		return nil, errDeaf
	}
	c := make(chan Event, 1024)
	b.readers[c] = struct{}{}
	context.AfterFunc(ctx, func() { b.hangUp(c) })
	return c, nil
}

// hangUp ends what a reader hears.
func (b *memory) hangUp(c chan Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.readers[c]; there {
		delete(b.readers, c)
		close(c)
	}
}

// hangUpAll ends it for everybody, after a change that nobody hears.
func (b *memory) hangUpAll(missed func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	readers := b.readers
	b.readers = map[chan Event]struct{}{}
	missed()
	for c := range readers {
		close(c)
	}
}
