package calls

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/quota"
	"peerlink/internal/signalling"
)

const (
	// maxRefusals bounds the refusals being sent, to members and to strangers: to
	// refuse costs as much as to call, and further callers run into their time-out.
	maxRefusals = 16
	// strangersEach bounds the incoming calls of one stranger: two for each of the
	// four links that it may have. All strangers have half of Config.Most.
	strangersEach = 8
)

// Config is what a Board is made of. All fields but Trust are required.
type Config struct {
	// Name is the carrier's, for errors and the log.
	Name string
	// Self is this device.
	Self identity.DeviceID
	// Trust is asked about each device before a call to it and before its offer is
	// answered. Nil lets all in.
	Trust *identity.Trust
	// Timeout bounds one call on either side, from the offer to the proven stream.
	Timeout time.Duration
	// Most bounds the calls at once, in each direction; streams that wait for
	// Accept count. Each bounds how many of the incoming ones are one device's.
	// Both are for members of Trust: strangers have room apart, for half of Most,
	// and at most 8 of one device.
	Most, Each int
	// OneOfTwo drops the call of the larger id where two devices call each other at
	// once. The Dial that made it waits until the other call is through, then calls
	// again. False lets both calls go on.
	OneOfTwo bool
	// Closed is the error of what is used after Close. It matches net.ErrClosed.
	Closed error
	// Log hears of refusals and failures that no caller is told, at level Debug,
	// as strangers can cause them.
	Log *slog.Logger
}

// accepted is a stream that waits for Accept.
type accepted struct {
	conn net.Conn
	peer identity.Peer
}

// decision is the program's about callers.
type decision func(ctx context.Context, peer identity.Peer) error

// Board has the calls of one carrier. It owns the goroutines of the carrier: they
// begin by Go or Enter, and Close waits for them. All methods may be called
// concurrently. Make one with New.
type Board[S Signal] struct {
	life.Group
	taking  life.Group // calls of other devices: its end is StopAccepting
	cfg     Config
	carrier Carrier[S]
	places  *quota.Quota[identity.DeviceID] // of incoming calls

	arrived *quota.Queue[accepted] // has room for all: each holds one of places
	open    context.Context        // ends, with the reason, when Accept has nothing to wait for
	deafen  context.CancelCauseFunc
	decide  atomic.Pointer[decision]
	ignored atomic.Uint64

	mu       sync.Mutex
	outgoing map[ID]*Call[S]
	incoming map[ID]*Visit[S]
	rooms    [2]*room[S]   // of strangers and of members
	purse    *rate.Limiter // of what is sent on strangers' word
}

// room is what members or strangers share among themselves alone.
type room[S Signal] struct {
	take    func(identity.DeviceID) error // a place of an incoming call
	arrive  func(accepted) bool           // to wait for Accept
	refusec chan struct{}                 // places of refusals being sent

	// Under Board.mu:
	seen  *lru.Cache[ID, struct{}] // the last offers, also of calls that have ended
	aside aside[S]
}

func newRoom[S Signal](take func(identity.DeviceID) error, arrive func(accepted) bool) *room[S] {
	return &room[S]{take: take, arrive: arrive, refusec: make(chan struct{}, maxRefusals), seen: quota.NewLRU[ID, struct{}](seenKept)}
}

// room returns a peer's. A peer that is not proven is a stranger. b.mu must not be
// held, as the trust store is asked.
func (b *Board[S]) room(of identity.Peer) *room[S] {
	if !Unproven(of) && b.cfg.Trust.Member(of) {
		return b.rooms[1]
	}
	return b.rooms[0]
}

// New returns a Board without calls. Close it when done.
func New[S Signal](cfg Config, c Carrier[S]) *Board[S] {
	member, stranger := quota.Limits{Each: cfg.Each, All: cfg.Most}, quota.Limits{Each: min(cfg.Each, strangersEach), All: cfg.Most / 2}
	places := quota.NewPools[identity.DeviceID](member, stranger)
	all := member.All + stranger.All // in either lane, as a stranger may become a member meanwhile
	b := &Board[S]{
		cfg: cfg, carrier: c, places: places,
		arrived:  quota.NewQueue[accepted](all, all),
		outgoing: make(map[ID]*Call[S]),
		incoming: make(map[ID]*Visit[S]),
		purse:    rate.NewLimiter(addressRate, addressBurst),
	}
	b.rooms[0] = newRoom[S](places.TakeStranger, b.arrived.PutStranger)
	b.rooms[1] = newRoom[S](places.Take, b.arrived.Put)
	b.open, b.deafen = context.WithCancelCause(b.taking.Context())
	return b
}

// Listen begins to read a signaller, as its only reader, until
// the Board or the signaller is closed. Call it once, or not at all where signals
// come by Handle. It does not block.
func (b *Board[S]) Listen(from signalling.Line) {
	b.Go(func(ctx context.Context) {
		defer b.deafen(fmt.Errorf("%s: the signaller has ended: %w", b.cfg.Name, net.ErrClosed))
		err := signalling.Read(ctx, from, b.cfg.Log, func(from identity.Peer, msg []byte) { _ = b.Handle(from, msg) })
		if ctx.Err() == nil {
			b.cfg.Log.Warn(b.cfg.Name+": the signaller has ended, this device cannot be called", "err", err)
		}
	})
}

// Decide sets the program's decision about callers. f is asked, after the trust
// store and possibly several times at once, before an offer is answered; an error
// refuses, and its text is what the caller is told. f must return when its context ends;
// until it does, it takes up one of the caller's places. A nil f takes every
// caller, as does a new Board.
func (b *Board[S]) Decide(f func(ctx context.Context, peer identity.Peer) error) {
	if f == nil {
		b.decide.Store(nil)
		return
	}
	b.decide.Store((*decision)(&f))
}

// Accept returns the next stream that another device has made, a member's before a
// stranger's. It blocks until there is one, ctx ends, or the Board or its signaller is closed (net.ErrClosed).
func (b *Board[S]) Accept(ctx context.Context) (net.Conn, identity.Peer, error) {
	if b.taking.Ended() {
		return nil, identity.Peer{}, b.cfg.Closed
	}
	a, ok := b.arrived.Take(ctx, b.open.Done())
	switch {
	case ok:
		b.places.Release(a.peer.Device)
		return a.conn, a.peer, nil
	case b.open.Err() != nil:
		return nil, identity.Peer{}, context.Cause(b.open)
	}
	return nil, identity.Peer{}, fmt.Errorf("%s: accept: %w", b.cfg.Name, context.Cause(ctx))
}

// StopAccepting ends the calls of other devices and closes the streams that were
// not accepted; further callers are told that there is no room. Calls that this
// device makes, and streams that Accept has returned, go on. It does not block.
func (b *Board[S]) StopAccepting() {
	b.taking.EndWith(b.cfg.Closed)
	b.drain()
}

// End begins the end: calls end, and no more begin. It does not block.
func (b *Board[S]) End() {
	b.taking.EndWith(b.cfg.Closed)
	b.EndWith(b.cfg.Closed)
}

// Close ends all calls, closes the streams that were not accepted, and waits for
// all goroutines of the Board.
func (b *Board[S]) Close() {
	b.End()
	b.drain()
	b.Wait()
	b.drain()
}

// drain closes what waits for Accept, which has ended.
func (b *Board[S]) drain() {
	for a, ok := b.arrived.Take(b.open, nil); ok; a, ok = b.arrived.Take(b.open, nil) {
		b.places.Release(a.peer.Device)
		a.conn.Close()
	}
}

// Running counts the calls that run now, made here and made elsewhere.
func (b *Board[S]) Running() (outgoing, incoming int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.outgoing), len(b.incoming)
}

// Ignored counts the signals that were malformed, answered no running call, came
// twice or from another device than was called. A stranger can make it grow.
func (b *Board[S]) Ignored() uint64 { return b.ignored.Load() }

// Side returns the Side of a call: of one that another device makes, if incoming,
// or else of one that this device makes. Nil: there is none.
func (b *Board[S]) Side(id ID, incoming bool) Side[S] {
	b.mu.Lock()
	defer b.mu.Unlock()
	if v := b.incoming[id]; incoming && v != nil {
		return v.side
	}
	if c := b.outgoing[id]; !incoming && c != nil {
		return c.side
	}
	return nil
}

// Handle takes a peer's signal. A from without an account is a device that was
// not proven to have sent it. The error says what is wrong with the signal, which
// is then ignored. Handle does not block.
func (b *Board[S]) Handle(from identity.Peer, raw []byte) error {
	s, err := b.carrier.Decode(raw)
	if err == nil {
		switch s.Head().Kind {
		case Offer:
			err = b.offered(from, s)
		case Answer, Refusal:
			err = b.answered(from, s)
		case More:
			err = b.more(from, s)
		default:
			err = errors.New("a signal of a kind that is not known here")
		}
	}
	if err != nil {
		b.ignored.Add(1)
		b.cfg.Log.Debug(b.cfg.Name+": signal ignored", "from", from.Device, "err", err)
	}
	return err
}

// answered takes an answer or a refusal. An answer that came once more may tell
// more.
func (b *Board[S]) answered(from identity.Peer, s S) error {
	again, err := b.settle(from, s)
	if again != nil {
		again.More(s)
	}
	return err
}

// settle has the first answer or refusal of the device that was called count, for
// a call that still runs. A refusal may also be the caller's own. again is the
// side of a call that is answered once more.
func (b *Board[S]) settle(from identity.Peer, s S) (again Side[S], err error) {
	h := s.Head()
	b.mu.Lock()
	defer b.mu.Unlock()
	if v := b.incoming[h.ID]; v != nil && v.From.Device == from.Device && h.Kind == Refusal {
		v.cancel(errWithdrawn)
		return nil, nil
	}
	c := b.outgoing[h.ID]
	switch {
	case c == nil || c.Peer != from.Device:
		return nil, errNoCall
	case c.settled && h.Kind == Answer:
		return c.side, errNoCall
	case c.settled:
		return nil, errNoCall
	}
	c.settled = true
	if h.Kind == Refusal {
		c.refused = true
		c.cancel(verdict{b.refusal(from, h)})
	} else {
		c.from = from
		c.answerc <- s
	}
	return nil, nil
}

// refusal is the error of a Dial that was refused: the device's word only if its
// sender is proven.
func (b *Board[S]) refusal(from identity.Peer, h Head) error {
	if Unproven(from) {
		return fmt.Errorf("%s: dial %s: %w", b.cfg.Name, from.Device.Short(), Said(h.Code, h.Reason))
	}
	return fmt.Errorf("%s: %w", b.cfg.Name, &RefusedError{Peer: from.Device, Code: h.Code, Reason: h.Reason})
}

// Unproven reports whether nothing vouches for the sender of a signal.
func Unproven(from identity.Peer) bool { return from.Account.IsZero() }

// more passes a peer's further candidates on, or keeps them for an offer that
// they have overtaken.
func (b *Board[S]) more(from identity.Peer, s S) error {
	id, room := s.Head().ID, b.room(from)
	b.mu.Lock()
	c, v := b.outgoing[id], b.incoming[id]
	var side Side[S]
	switch {
	case c != nil && c.Peer == from.Device:
		side = c.side
	case v != nil && v.From.Device == from.Device:
		side = v.side
	}
	if keep := side == nil && c == nil && (v == nil || v.From.Device == from.Device); keep {
		room.aside.put(from.Device, s, time.Now())
		b.mu.Unlock()
		return nil
	}
	b.mu.Unlock()
	if side == nil || !side.More(s) {
		return errNoCall
	}
	return nil
}
