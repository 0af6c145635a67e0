package parcel

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"net"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"peerlink/cmd/peerchat/internal/files/digest"
	"peerlink/internal/pause"
)

// ErrNotServed is what SendConfig.Open returns, wrapped, when the peer declines
// channels of that name.
var ErrNotServed = errors.New("the device does not take such channels")

// maxRemembered is how many entries that are done are not offered again after a
// cut; beyond, both sides compare them.
const maxRemembered = 1 << 20

// SendConfig says how to send.
type SendConfig struct {
	// Open opens a channel to the receiver, again after a cut.
	Open func(ctx context.Context, name string) (net.Conn, error)
	// Watch, if not nil, is told of each step. It must not block; it may be
	// called concurrently.
	Watch func(Event)
	// Patience is how long, once the receiver has agreed, no byte may get through
	// before the sender gives up. 0: a minute; negative: it gives up at the first
	// cut.
	Patience time.Duration
}

// sender is one Send, over any number of channels.
type sender struct {
	cfg    SendConfig
	source func() iter.Seq[item] // what is sent, from its beginning
	offer  offer
	tally  tally

	agreed   bool                  // the receiver has agreed once
	progress atomic.Int64          // grows when something got through
	done     map[[16]byte]struct{} // entries with an outcome, by their path's hash
}

// Send sends files and folders until the receiver has verified and kept them, or
// ctx ends. It opens new channels after cuts. The error is that of the transfer:
// it matches ErrRefused if the receiver did not want it, and is Summary.Err if
// some entries failed.
func Send(ctx context.Context, cfg SendConfig, paths ...string) (Summary, error) {
	t, err := newTree(paths)
	if err != nil {
		return Summary{}, err
	}
	s := &sender{cfg: cfg, source: t.items, done: map[[16]byte]struct{}{}}
	s.tally.watch = cfg.Watch
	s.cfg.Patience = cmp.Or(s.cfg.Patience, time.Minute)
	s.offer.names, s.offer.lists = t.names(), true
	if err := s.survey(ctx); err != nil {
		return Summary{}, err
	}
	err = s.persist(ctx)
	sum := s.tally.summary()
	if err == nil {
		err = sum.Err()
	}
	return sum, err
}

// survey counts what is there, and tells it.
func (s *sender) survey(ctx context.Context) error {
	_, _ = rand.Read(s.offer.id[:])
	for it := range s.source() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if it.skip != nil {
			continue // reported when it is its turn
		}
		s.offer.entries++
		s.offer.bytes += uint64(it.size)
	}
	s.tally.event(Event{Kind: Offered, Offer: Offer{Names: s.offer.names, Entries: int64(s.offer.entries), Bytes: int64(s.offer.bytes)}})
	return nil
}

// final is an error that another channel would not help against.
type final struct{ error }

// Unwrap returns the error.
func (f final) Unwrap() error { return f.error }

// persist sends, over one channel after another.
func (s *sender) persist(ctx context.Context) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 100*time.Millisecond, 3*time.Second
	good := time.Now() // when a channel that got something through ended
	for {
		before := s.progress.Load()
		err := s.attempt(ctx)
		if s.progress.Load() > before {
			good = time.Now()
			pauses.Reset()
		}
		var f final
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case errors.As(err, &f):
			err = f.error
		case errors.Is(err, ErrNotServed) && !s.agreed:
			return err
		case s.agreed && time.Since(good) < s.cfg.Patience:
			s.tally.event(Event{Kind: Cut, Err: fmt.Errorf("%w; it is tried again", err)})
			if pause.For(ctx, pauses.NextBackOff()) == nil {
				continue
			}
			err = context.Cause(ctx)
		}
		s.tally.event(Event{Kind: Cut, Err: err})
		return err
	}
}

// attempt sends what is left over one channel.
func (s *sender) attempt(ctx context.Context) error {
	conn, err := s.cfg.Open(ctx, Scheme+hex.EncodeToString(s.offer.id[:]))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o := newSending(ctx, cancel, s, conn)
	defer o.close()
	return o.run()
}

// remember notes an entry's outcome, so that it is not offered again.
func (s *sender) remember(it item) {
	if len(s.done) < maxRemembered {
		s.done[pathKey(it)] = struct{}{}
	}
}

func pathKey(it item) (k [16]byte) {
	var d digest.Digest
	_, _ = d.Write([]byte(it.name()))
	sum := d.Sum()
	copy(k[:], sum[:])
	return k
}
