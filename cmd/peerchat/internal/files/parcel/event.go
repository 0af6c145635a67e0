package parcel

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"peerlink/cmd/peerchat/internal/files/digest"
)

// ErrRefused is matched when the receiver did not want what was offered.
var ErrRefused = errors.New("the receiver refused the files")

// Peer is the other side, as the caller knows it.
type Peer struct {
	ID   string // proven: what is continued, and consent, are tied to it
	Name string // for the person who is asked; not trusted
	// Member says that the caller knows the peer: room is kept for it, apart from
	// that of strangers.
	Member bool
}

// EventKind says what an Event is about.
type EventKind int

// The kinds of events. Offered, with Offer, comes first; then for each entry any
// number of Moved and one of the others. If a channel ends before all has an
// outcome, Cut tells of each file that has begun, then, without a Path, of the
// transfer.
const (
	Offered EventKind = iota
	Moved             // content was sent, or received and verified
	Kept              // the receiver has it, verified and on its disk
	Same              // the receiver had it already
	Failed            // with Err
	Skipped           // the sender left it out, with Err
	Cut               // with Err; the sender may come back
)

// Event is a step of a transfer. Which fields are set depends on the kind.
type Event struct {
	Kind  EventKind
	Offer Offer
	// Path is the entry's path with slashes, the sender's for the sender, the
	// escaped one for the receiver.
	Path string
	// Name is, for Kept and Same, the path it got in the receiver's folder; the
	// sender is told none of the numbers that tell of other files there.
	Name   string
	Folder bool
	Size   int64
	At     int64 // Moved, Failed, Cut: how many bytes of it are verified or sent
	Sum    digest.Sum
	Part   string // Failed, Cut at the receiver: the incomplete file, if it can be continued
	Err    error
}

// Offer is what a sender wants to send.
type Offer struct {
	From    Peer
	Names   []string // the first 16, escaped
	Entries int64    // files and folders, at most
	Bytes   int64    // at most

	look func(context.Context) (Listing, error)
}

// Summary is what became of a transfer's entries.
type Summary struct {
	Kept, Same, Failed, Skipped int
	Bytes                       int64 // of those kept or the same
	// Errs are the first errors of entries, at most 8.
	Errs []error
}

// Err returns nil if all is there, else what is not.
func (s Summary) Err() error {
	bad := s.Failed + s.Skipped
	if bad == 0 {
		return nil
	}
	err := errors.Join(s.Errs...)
	if more := bad - len(s.Errs); more > 0 {
		return fmt.Errorf("%w\nand %d more", err, more)
	}
	return err
}

// tally counts events and hands them on.
type tally struct {
	watch func(Event)
	mu    sync.Mutex
	sum   Summary
}

func (t *tally) event(e Event) {
	t.mu.Lock()
	switch e.Kind {
	case Kept:
		t.sum.Kept++
		t.sum.Bytes += e.Size
	case Same:
		t.sum.Same++
		t.sum.Bytes += e.Size
	case Failed:
		t.sum.Failed++
	case Skipped:
		t.sum.Skipped++
	}
	if e.Kind == Failed || e.Kind == Skipped {
		if len(t.sum.Errs) < 8 {
			t.sum.Errs = append(t.sum.Errs, fmt.Errorf("%q: %w", e.Path, e.Err))
		}
	}
	t.mu.Unlock()
	if t.watch != nil {
		t.watch(e)
	}
}

func (t *tally) summary() Summary {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sum
}
