package daemon

import (
	"context"
	"sync"

	"peerlink"
	"peerlink/cmd/peerchat/internal/control"
)

// bell is rung when something has changed; each listener hears of it at least
// once. The zero value can be used.
type bell struct {
	mu   sync.Mutex
	next chan struct{}
}

// wait returns a channel that the next ring closes.
func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// changes tells a command of changes until it goes. A command that reads slowly
// is told of many as one.
func (d *Daemon) changes(ctx context.Context, _ control.None, begin func() error, tell func(control.Changed) error) error {
	ctx, cancel := context.WithCancel(ctx)
	links := make(chan struct{}, 1)
	ended := make(chan struct{})
	events := d.acc.ConnectionManager().Events(ctx) // from now on
	go func() {
		defer close(ended)
		for e := range events {
			if e.Initial || e.Kind != peerlink.LinkUp && e.Kind != peerlink.LinkDown && e.Kind != peerlink.Missed {
				continue
			}
			select {
			case links <- struct{}{}:
			default:
			}
		}
	}()
	defer func() {
		cancel()
		<-ended
	}()
	contacts := d.contacts.changed.wait()
	if err := begin(); err != nil {
		return err
	}
	for {
		var what control.Changed
		select {
		case <-links:
			what.Links = true
		case <-contacts:
			what.Contacts, contacts = true, d.contacts.changed.wait()
		case <-ctx.Done():
			return nil
		}
		if err := tell(what); err != nil {
			return err
		}
	}
}
