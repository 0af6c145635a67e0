package daemon

import (
	"context"

	"peerlink"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/internal/pause"
)

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
			pause.Tell(links, struct{}{})
		}
	}()
	defer func() {
		cancel()
		<-ended
	}()
	contacts := d.contacts.changed.Next()
	if err := begin(); err != nil {
		return err
	}
	for {
		var what control.Changed
		select {
		case <-links:
			what.Links = true
		case <-contacts:
			what.Contacts, contacts = true, d.contacts.changed.Next()
		case <-ctx.Done():
			return nil
		}
		if err := tell(what); err != nil {
			return err
		}
	}
}
