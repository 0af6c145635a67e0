package parcel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/cmd/peerchat/internal/files/digest"
	"peerlink/cmd/peerchat/internal/files/inbox"
	"peerlink/internal/escape"
)

const (
	// finishers is how many files are synced to the disk at once: a disk does
	// many syncs in little more time than one.
	finishers = 16
	// resumed is how many incomplete files are open while they wait for content.
	resumed = 8
	// buffers is how many pieces are held between the channel and the disk.
	buffers = 4
)

// receiving is a receiver on one channel. run reads frames; prepare, in its own
// goroutine, looks at the disk for each entry in turn; store writes pieces, and
// finish gives names.
type receiving struct {
	r      *Receiver
	from   Peer
	ctx    context.Context //nolint:containedctx // its life is one call of Serve
	cancel context.CancelCauseFunc
	w      *wire
	tally  tally
	wg     sync.WaitGroup

	// run's own.
	asked    bool
	over     bool // the sender has said end
	next     uint64
	bytes    uint64 // announced so far
	current  *incoming
	left     int64 // of current, to be read
	offer    offer
	accepted atomic.Bool
	listing  atomic.Pointer[approval] // what the sender is asked to tell
	approval *approval                // nil: all may come that was offered
	refused  atomic.Pointer[error]    // why the offer was

	preparec chan *incoming
	storec   chan stored
	freec    chan []byte
	finishc  chan struct{} // a place for each finisher
	resumec  chan struct{} // a place for each resumed file

	mu   sync.Mutex
	open map[uint64]*incoming
	idle chan struct{} // made by await; closed when none is open, or one is in vain
	vain bool          // an entry waits for a sender that has ended
}

// stage is how far an entry is.
type stage int

const (
	announced stage = iota
	comparing
	wanted
	started
)

// waits tells whether it is the sender's turn.
func (st stage) waits() bool { return st == comparing || st == wanted }

// incoming is an entry without an outcome. receiving.mu guards stage and offset.
type incoming struct {
	entry
	name    string // Clean's
	stage   stage
	offset  int64
	digestc chan digest.Sum

	part  *inbox.Part // of the goroutine whose turn it is
	place bool        // it has one of resumec
	dead  bool        // store's own: it has failed
}

// stored is a piece for the disk, or, without a buffer, an order.
type stored struct {
	*incoming
	buf    []byte
	broken error // the content ends here, for this reason
	anew   bool  // what is there is forgotten
}

func newReceiving(ctx context.Context, cancel context.CancelCauseFunc, r *Receiver, conn net.Conn, from Peer) *receiving {
	s := &receiving{
		r: r, from: from, ctx: ctx, cancel: cancel, w: newWire(conn), open: map[uint64]*incoming{},
		preparec: make(chan *incoming, window), storec: make(chan stored, buffers), freec: make(chan []byte, buffers),
		finishc: make(chan struct{}, finishers), resumec: make(chan struct{}, resumed),
	}
	for range buffers {
		s.freec <- nil
	}
	return s
}

// run receives until the sender has ended and all has an outcome.
func (s *receiving) run() error {
	stop := make(chan struct{})
	s.wg.Go(func() { s.w.breathe(stop) })
	s.wg.Go(s.prepareAll)
	s.wg.Go(s.storeAll)
	freed := context.AfterFunc(s.ctx, func() { _ = s.w.conn.Close() })
	err := s.read()
	if cause := context.Cause(s.ctx); cause != nil {
		err = cause
	}
	if refusal := s.refused.Load(); refusal != nil {
		err = *refusal
	}
	if err != nil {
		s.cancel(err) // entries that wait for the disk's turn need not have it
	}
	close(stop)
	close(s.preparec)
	close(s.storec)
	freed()
	_ = s.w.conn.Close()
	s.wg.Wait()
	for _, e := range s.open {
		s.abandon(e, Cut, err)
	}
	return err
}

// read handles frames until the end, which is nil.
func (s *receiving) read() error {
	for {
		k, n, err := s.w.next()
		if err != nil {
			return fmt.Errorf("the sender's channel: %w", unexpected(err))
		}
		if err := s.handle(k, n); err != nil {
			return err
		}
		if s.over {
			return s.await()
		}
	}
}

// handlers take the bodies of n bytes that follow the offer, by their kinds.
var handlers = map[kind]func(s *receiving, n int) error{
	kindEntry:  (*receiving).onEntry,
	kindDigest: (*receiving).onDigest,
	kindStart:  (*receiving).onStart,
	kindPiece:  (*receiving).onPiece,
	kindBroken: (*receiving).onBroken,
	kindEnd:    (*receiving).onEnd,
}

func (s *receiving) handle(k kind, n int) error {
	on, known := handlers[k]
	switch {
	case k == kindOffer && !s.asked:
		return s.onOffer(n)
	case !s.accepted.Load() && s.listing.Load() != nil && (k == kindEntry || k == kindEnd):
		return s.onListed(k, n, s.listing.Load())
	case !s.accepted.Load():
		return violation("a frame of kind %d before an answer to the offer", k)
	case !known:
		return violation("a frame of kind %d from a sender", k)
	}
	return on(s, n)
}

// onOffer asks, beside the reading: a sender that goes away ends the question.
func (s *receiving) onOffer(n int) (err error) {
	if s.offer, err = s.w.readOffer(n); err != nil {
		return err
	}
	s.asked = true
	s.wg.Go(func() {
		err := fmt.Errorf("version %d, this receiver knows %d", s.offer.version, version)
		if s.offer.version == version {
			err = s.consent()
		}
		if err != nil {
			refusal := fmt.Errorf("%w: %w", ErrRefused, err)
			s.refused.Store(&refusal)
			_ = s.w.send(kindAnswer, false, escape.Cap(err.Error(), maxReason))
			s.cancel(refusal)
			return
		}
		s.accepted.Store(true)
		_ = s.w.send(kindAnswer, true, "")
	})
	return nil
}

// look asks the sender for all that it will send, and waits for that.
func (s *receiving) look(ctx context.Context) (Listing, error) {
	a := newApproval(s.offer)
	if s.approval != nil {
		return Listing{}, errors.New("the offer was looked at already")
	}
	s.approval = a
	if s.offer.lists {
		if s.offer.entries > maxListed {
			return Listing{}, fmt.Errorf("%d files and folders, at most %d can be asked about", s.offer.entries, maxListed)
		}
		s.listing.Store(a)
		if err := s.w.send(kindList); err != nil {
			return Listing{}, err
		}
	}
	select {
	case <-a.told:
		return a.listing, nil
	case <-ctx.Done():
		return Listing{}, context.Cause(ctx)
	}
}

// onListed takes an entry that is told before an answer, or the end of all.
func (s *receiving) onListed(k kind, n int, a *approval) error {
	if a.whole() {
		return violation("a frame of kind %d after the listing", k)
	}
	if k == kindEntry {
		e, err := s.w.readEntry(n)
		if err == nil {
			err = a.list(e)
		}
		return err
	}
	if err := s.w.fields(n, 0).done(); err != nil {
		return err
	}
	if a.listing.Entries == 0 && s.offer.entries > 0 {
		return violation("nothing is listed of %d entries", s.offer.entries)
	}
	close(a.told)
	return nil
}

func (s *receiving) onEntry(n int) error {
	e, err := s.w.readEntry(n)
	if err != nil {
		return err
	}
	s.bytes += e.size // both are below 2^62, and their sum is checked each time
	if e.index != s.next || e.outOf(s.offer, s.bytes) {
		return violation("entry %d of %d bytes, beyond what was offered or out of turn", e.index, e.size)
	}
	s.next++
	in := &incoming{entry: e, digestc: make(chan digest.Sum, 1)}
	s.mu.Lock()
	full := len(s.open) >= window
	s.open[e.index] = in
	s.mu.Unlock()
	if full {
		return violation("more than %d entries under way", window)
	}
	s.preparec <- in // has room for as many as are open
	return nil
}

// at returns an open entry at a stage. One that has an outcome already is nil.
func (s *receiving) at(index uint64, want stage) (*incoming, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.open[index]
	if e == nil && index < s.next {
		return nil, nil
	}
	if e == nil || e.stage != want {
		return nil, violation("a word on entry %d out of turn", index)
	}
	return e, nil
}

func (s *receiving) onDigest(n int) error {
	f := s.w.fields(n, 2)
	index := f.Uint(maxSize)
	sum, there := f.sum()
	if err := f.done(); err != nil {
		return err
	}
	e, err := s.at(index, comparing)
	if err == nil && !there {
		err = violation("a digest of no bytes")
	}
	if err != nil || e == nil {
		return err
	}
	s.now(e, announced)
	e.digestc <- sum
	return nil
}

// now notes how far an entry is.
func (s *receiving) now(e *incoming, is stage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.stage = is
	if is.waits() && s.idle != nil {
		s.vain = true
		close(s.idle)
		s.idle = nil
	}
}

func (s *receiving) onStart(n int) error {
	f := s.w.fields(n, 2)
	index, from := f.Uint(maxSize), f.Uint(maxSize)
	if err := f.done(); err != nil {
		return err
	}
	e, err := s.at(index, wanted)
	if err != nil {
		return err
	}
	if s.current != nil || e == nil || from != 0 && from != uint64(e.offset) {
		return violation("entry %d starts at %d", index, from)
	}
	s.now(e, started)
	s.current, s.left = e, int64(e.size-from)
	s.storec <- stored{incoming: e, anew: from == 0 && e.offset > 0}
	return nil
}

// onPiece reads a piece; the disk's side takes it from there.
func (s *receiving) onPiece(n int) error {
	size := int64(n - digest.Size)
	if s.current == nil || size > s.left || size < min(minPiece, s.left) {
		return violation("a piece of %d bytes out of turn", size)
	}
	var buf []byte
	select {
	case buf = <-s.freec:
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
	if cap(buf) < n {
		buf = make([]byte, n, max(n, min(2*n, bestPiece+digest.Size)))
	}
	buf = buf[:n]
	if _, err := io.ReadFull(s.w.br, buf); err != nil {
		return fmt.Errorf("the sender's channel: %w", unexpected(err))
	}
	e := s.current
	if s.left -= size; s.left == 0 {
		s.current = nil
	}
	s.storec <- stored{incoming: e, buf: buf}
	return nil
}

// onBroken ends an entry, in the middle of its content or before.
func (s *receiving) onBroken(n int) error {
	index, why, err := s.w.readReason(n)
	if err != nil {
		return err
	}
	reason := fmt.Errorf("the sender: %q", why)
	if s.current != nil {
		if s.current.index != index {
			return violation("entry %d is broken while %d is sent", index, s.current.index)
		}
		s.storec <- stored{incoming: s.current, broken: reason}
		s.current = nil
		return nil
	}
	s.mu.Lock()
	e := s.open[index]
	st := announced
	if e != nil {
		st = e.stage
	}
	s.mu.Unlock()
	switch {
	case e == nil && index < s.next:
		return nil
	case e != nil && st == comparing:
		s.now(e, announced)
		close(e.digestc) // prepare ends it
		return nil
	case e != nil && st == wanted:
		s.now(e, started)
		s.storec <- stored{incoming: e, broken: reason}
		return nil
	}
	return violation("entry %d is broken out of turn", index)
}

func (s *receiving) onEnd(n int) error {
	if err := s.w.fields(n, 0).done(); err != nil {
		return err
	}
	if s.current != nil {
		return violation("the end in the middle of entry %d", s.current.index)
	}
	s.over = true
	return nil
}

// await returns when all entries have an outcome. A sender that ends before is one
// that does not care; what waits for that sender then waits in vain.
func (s *receiving) await() error {
	s.mu.Lock()
	left, idle := len(s.open), make(chan struct{})
	for _, e := range s.open {
		s.vain = s.vain || e.stage.waits()
	}
	if s.idle = idle; left == 0 || s.vain {
		close(idle)
		s.idle = nil
	}
	s.mu.Unlock()
	t := time.NewTimer(silence)
	defer t.Stop()
	select {
	case <-idle:
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.vain {
			return nil
		}
	case <-t.C:
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
	return violation("the end before %d entries had theirs", left)
}
