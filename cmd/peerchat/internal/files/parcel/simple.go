package parcel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"peerlink/cmd/peerchat/internal/files/digest"
	"peerlink/cmd/peerchat/internal/files/inbox"
	"peerlink/cmd/peerchat/internal/transfer"
)

// simpleAtOnce is how many files are sent at once in the simple form, each over
// a channel of its own; more only wait on the disk.
const simpleAtOnce = 4

// lastWord is how long a receiver of the simple form waits until its sender has
// read that the file is kept, and closes.
const lastWord = 5 * time.Second

// sendSimple sends each file over a channel of its own, to a receiver that
// serves nothing else: whole, or not at all. why is what it said to the other form.
func (s *sender) sendSimple(ctx context.Context, why error) error {
	places := make(chan struct{}, simpleAtOnce)
	var wg sync.WaitGroup
	defer wg.Wait()
	for it := range s.source() {
		switch {
		case it.folder && it.skip == nil:
			return fmt.Errorf("%w (or it takes single files only, and %q is a folder)", why, it.name())
		case it.skip != nil:
			s.tally.event(Event{Kind: Skipped, Path: it.name(), Err: it.skip})
			continue
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wg.Go(func() {
			defer func() { <-places }()
			e := Event{Kind: Kept, Path: it.name(), Name: it.name(), Size: it.size, Simple: true}
			if e.Sum, e.Err = s.sendOne(ctx, it); e.Err != nil {
				e.Kind = Failed
			}
			s.tally.event(e)
		})
	}
	return nil
}

func (s *sender) sendOne(ctx context.Context, it item) (digest.Sum, error) {
	f, err := it.open()
	if err != nil {
		return digest.Sum{}, err
	}
	defer f.Close()
	conn, err := s.cfg.Open(ctx, SimpleScheme+it.name())
	if err != nil {
		return digest.Sum{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	at := int64(0)
	sum, err := transfer.Send(conn, it.name(), it.size, f, func(n int) {
		at += int64(n)
		s.tally.event(Event{Kind: Moved, Path: it.name(), Size: it.size, At: at, Simple: true})
	})
	switch {
	case err == nil:
		err = it.unchanged(f)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, transfer.ErrRefused):
		err = fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return sum, err
}

// ServeSimple receives one file over a channel named SimpleScheme… and closes
// it, as Serve does. On an error nothing of the file remains.
func (r *Receiver) ServeSimple(ctx context.Context, conn net.Conn, from Peer, watch func(Event)) (Summary, error) {
	defer conn.Close()
	leave, err := r.enter(from)
	if err != nil {
		return Summary{}, err
	}
	defer leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	t := tally{watch: watch}
	moved := Event{Kind: Moved, Simple: true}
	limits := transfer.Limits{MaxSize: r.cfg.MaxBytes, Wanted: func(name string, size int64) error {
		moved.Path, moved.Size = name, size
		return r.consent(ctx, &t, from, offer{names: []string{name}, entries: 1, bytes: uint64(size)})
	}}
	f, err := transfer.Receive(conn, r.cfg.Folder.Root(), limits, func(n int) {
		moved.At += int64(n)
		t.event(moved)
	})
	switch {
	case err != nil && ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, transfer.ErrRefused):
		err = fmt.Errorf("%w: %w", ErrRefused, err)
	}
	e := Event{Kind: Kept, Path: f.Sent, Name: f.Name, Size: f.Size, Sum: f.Sum, Simple: true, Err: err}
	if clean, cleanErr := inbox.Clean([]string{f.Sent}); cleanErr == nil {
		e.Path = clean
	} else {
		e.Path = fmt.Sprintf("%.80q", f.Sent)
	}
	if err != nil {
		e.Kind, e.At = Failed, moved.At
	}
	t.event(e)
	if err == nil {
		_ = conn.SetReadDeadline(time.Now().Add(lastWord))
		_, _ = conn.Read(make([]byte, 1))
	}
	return t.summary(), err
}
