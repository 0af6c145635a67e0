package parcel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"peerlink/cmd/peerchat/internal/files/inbox"
	"peerlink/internal/quota"
)

const (
	// memberSessions and strangerSessions bound the transfers at once of all
	// members and of all strangers, perPeer those of one device: a page in a browser
	// opens one for each file.
	memberSessions   = 64
	strangerSessions = 32
	perPeer          = 8
	// DefaultEntries is Config.MaxEntries if that is 0: twice an ordinary large tree.
	DefaultEntries = 200_000
	// entryCost is what each entry after the first counts against Config.MaxBytes
	// beside its content, in bytes: a name in a folder takes about that.
	entryCost = 64
	// remembered is how many senders' budgets are remembered, of each kind.
	remembered = 1024
)

// ErrTooMany is matched when a device has too many transfers under way.
var ErrTooMany = errors.New("too many transfers at once")

// errSuperseded ends a session whose sender has come back on another channel.
var errSuperseded = errors.New("the sender has come back on another channel")

// Config says what a Receiver takes.
type Config struct {
	// Folder is where the files go.
	Folder *inbox.Folder
	// Consent decides on an offer before anything is received; an error refuses,
	// and its text reaches the sender. It may take its time, until ctx ends
	// because the sender is gone. A person who is asked is shown what Offer.Look
	// tells, and has consented to that alone. nil: all offers are taken.
	Consent func(ctx context.Context, o Offer) error
	// MaxBytes is the most that one offer may announce. Each entry after the first
	// counts 64 bytes beside its content. 0: 16 TiB; what has room on the disk is
	// asked in any case.
	MaxBytes int64
	// MaxEntries is how many files and folders a member may offer at once, and five
	// times as many it may add in a day. A stranger may offer a quarter of it, one
	// stranger may add half of it in a day, and all of them together as many. A file
	// counts twice where its incomplete form has a state. 0: DefaultEntries.
	MaxEntries int
	// Replace has files take the place of those of the same name. Otherwise they
	// get a number.
	Replace bool
}

// Receiver takes files over channels that it is given. It may be used
// concurrently.
type Receiver struct {
	cfg                Config
	sessions           *quota.Quota[string] // by peer
	approvals          *lru.Cache[approved, *approval]
	members, strangers budget
}

// NewReceiver returns a Receiver.
func NewReceiver(cfg Config) *Receiver {
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, 1<<44)
	cfg.MaxEntries = cmp.Or(cfg.MaxEntries, DefaultEntries)
	n := cfg.MaxEntries
	return &Receiver{
		cfg:       cfg,
		sessions:  quota.NewPools[string](quota.Limits{Each: perPeer, All: memberSessions}, quota.Limits{Each: perPeer, All: strangerSessions}),
		approvals: quota.NewLRU[approved, *approval](maxApprovals),
		members:   newBudget(n, 5*n, math.MaxInt/2),
		strangers: newBudget(max(1, n/4), max(1, n/2), n),
	}
}

// budget is how many entries may be offered at once, and made in a day.
type budget struct {
	offer, each int
	all         *rate.Limiter
	senders     *quota.Rates[string]
}

func newBudget(offer, each, all int) budget {
	return budget{offer, each, rate.NewLimiter(daily(all), all), quota.NewRates[string](remembered, daily(each), each)}
}

func daily(n int) rate.Limit { return rate.Limit(float64(n) / (24 * time.Hour).Seconds()) }

// budget is that of a sender's kind.
func (r *Receiver) budget(from Peer) budget {
	if from.Member {
		return r.members
	}
	return r.strangers
}

// charge counts n files and folders that a sender is about to make.
func (r *Receiver) charge(from Peer, n int) error {
	b, now := r.budget(from), time.Now()
	switch {
	case n == 0:
	case !b.senders.AllowN(from.ID, now, n):
		return fmt.Errorf("%w: of one sender %d a day are taken", errEntries, b.each)
	case !b.all.AllowN(now, n):
		return fmt.Errorf("%w: of all strangers %d a day are taken", errEntries, b.all.Burst())
	}
	return nil
}

// errEntries names what allows more.
var errEntries = errors.New("too many files and folders (peerchat receive --max-files allows more there)")

// Serve receives what is sent over a channel named Scheme… until that ends or
// ctx does, and closes it. What is incomplete then is kept for the next time.
// watch, if not nil, is told of each step; it must not block, and may be called
// concurrently. The error is the transfer's: it matches ErrRefused if there was
// no consent, and is Summary.Err if some entries failed.
func (r *Receiver) Serve(ctx context.Context, conn net.Conn, from Peer, watch func(Event)) (Summary, error) {
	defer conn.Close()
	take := r.sessions.TakeStranger
	if from.Member {
		take = r.sessions.Take
	}
	if err := take(from.ID); err != nil {
		// Its offer is not waited for: there is no place to wait in.
		if b, err := encode(kindAnswer, []any{false, ErrTooMany.Error()}); err == nil {
			_ = conn.SetWriteDeadline(time.Now().Add(lastWord))
			_, _ = conn.Write(b)
		}
		return Summary{}, ErrTooMany
	}
	defer r.sessions.Release(from.ID)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := newReceiving(ctx, cancel, r, conn, from)
	s.tally.watch = watch
	err := s.run()
	if err == nil { // an approval ends with what it was for
		r.approvals.Remove(s.offer.key(from.ID))
	}
	sum := s.tally.summary()
	if err != nil {
		s.tally.event(Event{Kind: Cut, Err: err})
		return sum, err
	}
	return sum, sum.Err()
}

// consent decides on an offer: by its size, by the one who is asked, unless that
// one has approved the same offer before, and then by the room on the disk, which
// is nothing to tell strangers of.
func (s *receiving) consent() error {
	r, o, from := s.r, s.offer, s.from
	shown := Offer{From: from, Entries: int64(o.entries), Bytes: int64(o.bytes), look: s.look}
	there := false
	for _, n := range o.names {
		clean, err := inbox.Clean([]string{n})
		if err != nil {
			return err
		}
		shown.Names = append(shown.Names, clean)
		there = there || r.cfg.Folder.Has(from.ID, clean)
	}
	if err := r.bounds(from, o); err != nil {
		return err
	}
	key := o.key(from.ID)
	if a, known := r.approvals.Get(key); known && time.Now().Before(a.until) {
		s.approval = a
	} else if r.cfg.Consent != nil {
		if err := r.cfg.Consent(s.ctx, shown); err != nil {
			return err
		}
		if a := s.approval; a != nil {
			if !a.whole() {
				return errors.New("the answer came before all was told")
			}
			shown.Names, a.until = a.listing.Names, time.Now().Add(approvedFor)
			r.approvals.Add(key, a)
		}
	}
	if !there { // else each file is asked for: much of it may be here
		if err := r.cfg.Folder.Fits(shown.Bytes, !from.Member); err != nil {
			return err
		}
	}
	s.tally.event(Event{Kind: Offered, Offer: shown})
	return nil
}

// bounds refuses an offer that is too large in any case.
func (r *Receiver) bounds(from Peer, o offer) error {
	most := r.budget(from).offer
	switch {
	case len(o.names) == 0 && o.entries > 0:
		return errors.New("nothing is named")
	case o.entries > uint64(most):
		return fmt.Errorf("%w: %d at once, at most %d are taken", errEntries, o.entries, most)
	case o.bytes+entryCost*(max(1, o.entries)-1) > uint64(r.cfg.MaxBytes):
		return fmt.Errorf("%d bytes in %d files and folders, at most %d are taken; each of those after the first counts %d", o.bytes, o.entries, r.cfg.MaxBytes, entryCost)
	}
	return nil
}
