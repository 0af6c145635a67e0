package parcel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"peerlink/cmd/peerchat/internal/files/inbox"
	"peerlink/internal/quota"
)

const (
	// maxSessions bounds the transfers at once, perPeer those of one device.
	maxSessions = 64
	perPeer     = 8
	// agreements are how many offers that were agreed to are remembered, and
	// agreedFor how long a sender may come back without being asked about again.
	agreements = 1024
	agreedFor  = time.Hour
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
	// because the sender is gone. nil: all offers are taken.
	Consent func(ctx context.Context, o Offer) error
	// MaxBytes is the most that one offer may announce. 0: 16 TiB; what has room
	// on the disk is asked in any case.
	MaxBytes int64
	// Replace has files take the place of those of the same name. Otherwise they
	// get a number.
	Replace bool
}

// Receiver takes files over channels that it is given. It may be used
// concurrently.
type Receiver struct {
	cfg      Config
	sessions *quota.Quota[string] // by peer
	agreed   *lru.Cache[agreement, time.Time]
}

// agreement is an offer that was agreed to.
type agreement struct {
	peer           string
	id             [16]byte
	entries, bytes uint64
}

// NewReceiver returns a Receiver.
func NewReceiver(cfg Config) *Receiver {
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, 1<<44)
	agreed, err := lru.New[agreement, time.Time](agreements)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &Receiver{cfg: cfg, sessions: quota.New[string](perPeer, maxSessions), agreed: agreed}
}

// Serve receives what is sent over a channel named Scheme… until that ends or
// ctx does, and closes it. What is incomplete then is kept for the next time.
// watch, if not nil, is told of each step; it must not block, and may be called
// concurrently. The error is the transfer's: it matches ErrRefused if there was
// no consent, and is Summary.Err if some entries failed.
func (r *Receiver) Serve(ctx context.Context, conn net.Conn, from Peer, watch func(Event)) (Summary, error) {
	defer conn.Close()
	if err := r.sessions.Take(from.ID); err != nil {
		w := newWire(conn)
		if _, n, readErr := w.next(); readErr == nil {
			_, _ = w.message(n, 0)
			_ = w.send(kindAnswer, false, ErrTooMany.Error())
		}
		return Summary{}, ErrTooMany
	}
	defer r.sessions.Release(from.ID)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := newReceiving(ctx, cancel, r, conn, from)
	s.tally.watch = watch
	err := s.run()
	sum := s.tally.summary()
	if err != nil {
		s.tally.event(Event{Kind: Cut, Err: err})
		return sum, err
	}
	return sum, sum.Err()
}

// consent decides on an offer: by its size, by the room on the disk, and by the
// one who is asked, unless that one has agreed to the same offer before.
func (r *Receiver) consent(ctx context.Context, t *tally, from Peer, o offer) error {
	shown := Offer{From: from, Entries: int64(o.entries), Bytes: int64(o.bytes)}
	there := false
	for _, n := range o.names {
		clean, err := inbox.Clean([]string{n})
		if err != nil {
			return err
		}
		shown.Names = append(shown.Names, clean)
		there = there || r.cfg.Folder.Has(from.ID, clean)
	}
	switch {
	case len(o.names) == 0 && o.entries > 0:
		return errors.New("nothing is named")
	case o.bytes > uint64(r.cfg.MaxBytes):
		return fmt.Errorf("%d bytes, at most %d are taken", o.bytes, r.cfg.MaxBytes)
	case !there: // else each file is asked for: much of it may be here
		if err := r.cfg.Folder.Fits(shown.Bytes); err != nil {
			return err
		}
	}
	a := agreement{from.ID, o.id, o.entries, o.bytes}
	at, known := r.agreed.Get(a)
	if r.cfg.Consent != nil && (!known || time.Since(at) > agreedFor) {
		if err := r.cfg.Consent(ctx, shown); err != nil {
			return err
		}
	}
	r.agreed.Add(a, time.Now())
	t.event(Event{Kind: Offered, Offer: shown})
	return nil
}
