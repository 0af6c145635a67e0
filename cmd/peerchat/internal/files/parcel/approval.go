package parcel

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"peerlink/cmd/peerchat/internal/files/inbox"
	"peerlink/internal/packed"
)

const (
	// approvedFor is how long a sender may come back to what was approved, until
	// all of it is there: a cut may come at the end of a long transfer, and the
	// approval is good for nothing else.
	approvedFor = 24 * time.Hour
	// maxApprovals bounds the approvals that are remembered.
	maxApprovals = 64
	// maxListed is how many entries a question may be about: more have no meaning
	// to a person. An approval of so many takes some 0.7 MB.
	maxListed = 1 << 14
	// maxMarked is how many paths of a kind are named.
	maxMarked = 3
)

var (
	errNotApproved = errors.New("it is not what was agreed to there: send it again")
	errUsed        = errors.New("it was taken already: send it again")
)

// Listing is what is approved by an answer to an offer.
type Listing struct {
	// Names are what is at the top, the first 16, escaped.
	Names   []string
	Entries int64 // files and folders; without Whole at most
	Bytes   int64 // without Whole at most
	// Whole says that the sender has told all that it will send. Otherwise it is
	// of a version that only tells the names at the top: then nothing but what
	// they stand for is taken, and neither hidden entries below nor programs are.
	Whole bool
	// Hidden are entries below a name that begins with a dot, Programs files that
	// their owner may run. Without Whole they are not known.
	Hidden, Programs Marked
}

// Marked are entries of a kind.
type Marked struct {
	N     int64
	Paths []string // the first three, escaped
}

func (m *Marked) add(path string) {
	if m.N++; m.N <= maxMarked {
		m.Paths = append(m.Paths, path)
	}
}

// Look returns what the offer is about, told by the sender to the last path, and
// binds the consent to it: an entry that is not in the listing is refused, none is
// taken twice, and the sender may come back without a new question for a day, until
// all is there. Without Look a consent is to whatever comes within the offer's
// bounds, and each channel asks again. Look blocks until the sender has told, or
// ctx ends. It may be called once, by Config.Consent, before that returns.
func (o Offer) Look(ctx context.Context) (Listing, error) {
	if o.look == nil {
		return Listing{}, errors.New("only a receiver that is asked can look at an offer")
	}
	return o.look(ctx)
}

// approved names an offer that was approved.
type approved struct {
	peer           string
	id             [16]byte
	entries, bytes uint64
	names          string
}

func (o offer) key(peer string) approved {
	return approved{peer, o.id, o.entries, o.bytes, strings.Join(o.names, "/")} // names have no slash
}

// entryKey is a hash of an entry as it was approved.
type entryKey [sha256.Size]byte

// approval is what may come of an offer.
type approval struct {
	until  time.Time
	offer  offer
	listed map[entryKey]struct{} // nil: the sender does not tell
	told   chan struct{}         // closed when all are listed

	listing Listing // so far

	mu    sync.Mutex
	used  map[entryKey]struct{} // entries that are here
	bytes uint64                // of those
}

func newApproval(o offer) *approval {
	a := &approval{offer: o, told: make(chan struct{}), used: map[entryKey]struct{}{}}
	if a.listing.Whole = o.lists; o.lists {
		a.listed = map[entryKey]struct{}{}
		return a
	}
	a.listing.Entries, a.listing.Bytes = int64(o.entries), int64(o.bytes)
	for _, n := range o.names {
		a.name([]string{n})
	}
	close(a.told)
	return a
}

// whole reports whether all is listed that the sender tells.
func (a *approval) whole() bool {
	select {
	case <-a.told:
		return true
	default:
		return false
	}
}

// name notes what is at the top.
func (a *approval) name(path []string) {
	n, err := inbox.Clean(path[:1])
	if err == nil && len(a.listing.Names) < maxNames && !slices.Contains(a.listing.Names, n) {
		a.listing.Names = append(a.listing.Names, n)
	}
}

// list adds an entry that the sender tells.
func (a *approval) list(e entry) error {
	a.listing.Bytes += int64(e.size) // both are below 2^62, and their sum is checked each time
	if e.index != uint64(a.listing.Entries) || e.outOf(a.offer, uint64(a.listing.Bytes)) {
		return violation("entry %d of %d bytes is listed, beyond what was offered or out of turn", e.index, e.size)
	}
	a.listing.Entries++
	path, err := inbox.Clean(e.path)
	if err != nil {
		return nil //nolint:nilerr // it will be refused for its name
	}
	a.listed[a.key(e)] = struct{}{}
	a.name(e.path)
	if hidden(path) {
		a.listing.Hidden.add(path)
	}
	if e.executable {
		a.listing.Programs.add(path)
	}
	return nil
}

// key is of all that was shown of an entry: without a listing that is its path.
func (a *approval) key(e entry) entryKey {
	shown := []any{e.path}
	if a.listed != nil {
		shown = append(shown, e.folder, e.size, e.executable)
	}
	b, err := packed.Pack(shown...)
	if err != nil {
		panic(err) // only for types that cannot be written
	}
	return sha256.Sum256(b)
}

// allows returns why an entry, of that path here, may not come; nil if it may.
func (a *approval) allows(e entry, name string) error {
	if a.listed != nil {
		if _, listed := a.listed[a.key(e)]; !listed {
			return errNotApproved
		}
		return nil
	}
	alone := a.offer.entries == uint64(len(a.offer.names)) // nothing can be below them
	switch {
	case !slices.Contains(a.offer.names, e.path[0]) || alone && len(e.path) > 1:
		return fmt.Errorf("%w, with a newer version or one by one", errNotApproved)
	case e.executable:
		return errors.New("it is a program, which the question there could not say: send it with a newer version")
	case strings.Contains(name, "/."):
		return errors.New("it is hidden, which the question there could not say: send it with a newer version")
	}
	return nil
}

// use claims the place of an entry: a sender may not fill it twice, nor, on one
// channel after another, more places than were agreed to. unuse gives it back.
func (a *approval) use(e entry) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.roomLocked(e)
	if err == nil {
		a.used[a.key(e)] = struct{}{}
		a.bytes += e.size
	}
	return err
}

func (a *approval) unuse(e entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.used, a.key(e))
	a.bytes -= e.size
}

// room returns why use would fail.
func (a *approval) room(e entry) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.roomLocked(e)
}

func (a *approval) roomLocked(e entry) error {
	if _, used := a.used[a.key(e)]; used {
		return errUsed
	}
	if uint64(len(a.used)) >= a.offer.entries || a.bytes+e.size > a.offer.bytes {
		return errNotApproved
	}
	return nil
}

// hidden reports whether an element of a path begins with a dot.
func hidden(name string) bool { return strings.HasPrefix(name, ".") || strings.Contains(name, "/.") }

// outOf reports whether an entry, the last of so many bytes, goes beyond an offer.
func (e entry) outOf(o offer, bytes uint64) bool {
	return e.index >= o.entries || bytes > o.bytes || len(e.path) == 0 || e.folder && e.size > 0
}
