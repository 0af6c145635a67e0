package multiplex

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/channel"
	"peerlink/internal/packed"
)

// earlyCredit is what an opener may send before the answer, in bytes; so no
// window is smaller (docs/protocol.md, "Channel requests").
const earlyCredit = 64 << 10

// Config are the bounds and times of a Socket. The zero value of each field is
// its default.
type Config struct {
	// Window is how many bytes of a channel wait unread at most, at first: 256
	// KiB. Values below 64 KiB are raised to it. It is less for a new channel
	// while others hold much, and grows where a channel needs more to fill its
	// path (the bandwidth-delay product), within MaxBuffered.
	Window int
	// MaxBuffered is how many unread bytes all channels hold together: 16 MiB,
	// and never less than Window; less than 128 KiB counts as that. So much is
	// shared out as windows. A peer of an older build needs 64 KiB for each channel:
	// where more comes than can be held, the channel of such a peer that has held
	// most for longest is reset with CodeResource.
	MaxBuffered int
	// Budget bounds the unread bytes of several links together: none.
	Budget *Budget
	// MaxChannels is how many channels there may be, of both sides: 65 534,
	// which is all that ids allow. Negative: none.
	MaxChannels int
	// MaxPending is how many requests of the peer wait for a decision: 256,
	// what an opener of this package asks at once. Further ones are declined.
	// Negative: all are.
	MaxPending int
	// BeaconInterval is the time between beacons: 10 s. Negative: none but
	// those of Ping.
	BeaconInterval time.Duration
	// BeaconTimeout is how long an answer may take until the peer counts as
	// dead: 5 s. As long as data or credit comes, which the answer may have to
	// wait behind on a slow path, it may take three BeaconIntervals (30 s where
	// there are none).
	BeaconTimeout time.Duration
	// CloseTimeout bounds Close: 1 s. What the peer has not confirmed by then may be
	// lost, and Close says so.
	CloseTimeout time.Duration
	// LocalAddr and RemoteAddr are what channels report as their addresses:
	// those of the conn.
	LocalAddr, RemoteAddr net.Addr
	// Version is the highest protocol version to speak: 2.
	Version int
	// MinVersion is the lowest version that a peer may speak: 1.
	MinVersion int

	linger time.Duration // tests; 0: lingerTimeout
	plain  bool          // tests: this side lacks featurePromises
}

// lingerTimeout is how long the peer may take to answer for a channel that was
// given up here, until the channel is forgotten. It is looked at once per beacon
// interval.
const lingerTimeout = 5 * time.Minute

func (c Config) withDefaults() Config {
	c.Window = min(max(cmp.Or(c.Window, 256<<10), earlyCredit), maxWindow)
	c.MaxBuffered = max(cmp.Or(c.MaxBuffered, 16<<20), c.Window)
	c.MaxChannels = cmp.Or(c.MaxChannels, 65534)
	c.MaxPending = max(cmp.Or(c.MaxPending, maxAsked), 0)
	c.BeaconInterval = cmp.Or(c.BeaconInterval, 10*time.Second)
	c.BeaconTimeout = cmp.Or(c.BeaconTimeout, 5*time.Second)
	c.CloseTimeout = cmp.Or(c.CloseTimeout, time.Second)
	c.linger = cmp.Or(c.linger, lingerTimeout)
	c.Version = cmp.Or(c.Version, version2)
	c.MinVersion = cmp.Or(c.MinVersion, version1)
	return c
}

// patience is how long an answer may take at all.
func (c Config) patience() time.Duration {
	return max(3*cmp.Or(max(c.BeaconInterval, 0), 10*time.Second), c.BeaconTimeout)
}

// Socket is a multiplexed socket: many channels on one net.Conn, which it
// owns. All methods may be called concurrently.
type Socket struct {
	conn     net.Conn
	eager    eagerConn // conn, if it can do that
	cfg      Config
	isClient bool
	line     line
	later    *time.Timer // for what is lazy
	baton    baton
	intake   intake
	buffered atomic.Int64
	quickest atomic.Int64  // lowest round-trip time of late, in ns
	progress atomic.Int64  // grows with each piece of data that comes, and each grant
	follows  atomic.Uint32 // the channel of the frame behind the last requests: its opener does not wait
	version  atomic.Int32  // the peer's; 0 until its first frame
	features atomic.Uint64 // the peer's
	plain    atomic.Bool   // the peer, as far as is known, or this side lacks featurePromises
	lifted   atomic.Bool   // Lift was called
	stats    counters

	requests   chan *Request
	asking     chan struct{} // holds a place for each unanswered request of this side
	ready      chan struct{} // closed at the peer's first frame
	leaving    chan struct{} // closed when the link has ended or is about to
	done       chan struct{} // closed when the link has ended
	over       chan struct{} // closed when Close is over
	writerDone chan struct{}
	readerDone chan struct{}
	untaken    error // Close's, once it is over

	datagrams     datagramConn // conn, if it has them
	stopDatagrams context.CancelFunc
	datagramsDone chan struct{} // closed when no more are received

	mu        sync.Mutex
	table     map[channel.ID]*entry
	peak      int // how many channels there were at most, since the table was made
	ids       ids
	pending   int                 // requests of the peer without a decision
	ended     int                 // channels forgotten so far
	strays    int                 // messages about channels that do not exist
	cancels   rate                // requests of the peer that it took back
	closing   bool                // Close was called
	draining  bool                // Drain was called
	drained   chan struct{}       // closed when no channel is left; nil unless somebody waits for it
	promised  int                 // bytes that windows promise; to a plain peer those beyond earlyCredit
	loose     int                 // bytes of datagrams that wait unread
	early     int                 // bytes of the peer's that no credit covers, as it knew of none
	lent      int                 // such bytes of ours
	dry       atomic.Bool         // there are some thirsty
	thirsty   map[*entry]struct{} // channels that would send early, but for lent
	active    active
	asks      asks
	needs     map[*entry]int // windows that messages of the peer need, and for which there was no room
	serving   bool           // a timer will try them again
	left      idSet          // ids that wait for the peer's end alone, without a channel in the table
	declined  idSet          // the same, of requests that were declined
	cuts      cuts
	cause     error  // why the link ended; set once, before done is closed
	goingAway error  // the peer said that it closes the link
	writeErr  error  // why the writer stopped
	readErr   error  // why the reader stopped
	lost      error  // why the link ended, where Close had begun before
	confirmed uint64 // how many of line.promises have reached the peer
	verdict   error  // the cause to be, where the end takes a while
	clock     *time.Timer
	beacons   beacons
}

// Client runs the calling side on conn: the TLS client, the ICE controlling
// side. It returns at once; the peer's hello may still be under way (Ready).
func Client(conn net.Conn, cfg Config) *Socket { return start(conn, cfg, true) }

// Server runs the called side on conn.
func Server(conn net.Conn, cfg Config) *Socket { return start(conn, cfg, false) }

func start(conn net.Conn, cfg Config, isClient bool) *Socket {
	cfg = cfg.withDefaults()
	cfg.LocalAddr, cfg.RemoteAddr = cmp.Or(cfg.LocalAddr, conn.LocalAddr()), cmp.Or(cfg.RemoteAddr, conn.RemoteAddr())
	s := &Socket{
		conn: conn, cfg: cfg, isClient: isClient,
		requests:   make(chan *Request, cfg.MaxPending),
		asking:     make(chan struct{}, maxAsked),
		ready:      make(chan struct{}),
		leaving:    make(chan struct{}),
		done:       make(chan struct{}),
		over:       make(chan struct{}),
		writerDone: make(chan struct{}),
		readerDone: make(chan struct{}),

		datagramsDone: make(chan struct{}),

		needs: make(map[*entry]int),
		table: make(map[channel.ID]*entry),
		ids:   ids{next: firstServerID, last: lastServerID},
	}
	if isClient {
		s.ids = ids{next: firstClientID, last: lastClientID}
	}
	s.line.wake.L, s.line.round = &s.line.mu, 1
	s.eager, s.line.eager = conn.(eagerConn)
	s.line.stager, _ = conn.(stager)
	s.line.size, s.line.pacer.limit = cutFor(conn), lineCap
	s.stats.created = time.Now()
	s.plain.Store(cfg.plain || cfg.Version < version2)
	features := s.startDatagrams()
	if !cfg.plain {
		features |= featurePromises
	}
	if cfg.Version >= version2 {
		s.line.control(protocolID, encodeHello(cfg.Version, features), prompt)
	}
	s.intake.msgs, s.intake.quiet = packed.NewReader(nil), maxQuiet
	s.later = time.AfterFunc(time.Hour, func() {
		s.line.hurry()
		s.flush()
	})
	s.later.Stop()
	s.baton.fixed = conn.SetReadDeadline(time.Time{}) != nil
	s.baton.patrol = time.AfterFunc(time.Hour, s.look)
	s.baton.patrol.Stop()
	s.startClock()
	go s.writeLoop()
	s.callWatch()
	return s
}

// Ready waits for the peer's hello. A TLS client may call a link up only after
// it: the server may refuse a certificate after the client's handshake is done.
func (s *Socket) Ready(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-s.done:
		select {
		case <-s.ready: // both: it was up once
		default:
			return s.Err()
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("multiplex: no hello from the peer: %w", context.Cause(ctx))
	}
}

// Version returns the protocol version in use: the lower of both sides'. 0
// means that the peer has not said hello yet.
func (s *Socket) Version() int { return int(s.version.Load()) }

// Done is closed when the link has ended and its conn is closed; Err then tells
// why.
func (s *Socket) Done() <-chan struct{} { return s.done }

// Err returns why the link ended: net.ErrClosed after Close here, a
// *GoingAwayError after Close there, what matches ErrDead or ErrProtocol, or
// the transport's error, which is never io.EOF. nil while the link lives.
func (s *Socket) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// Close ends the link and all its channels. What their Writes have returned is
// still sent, the peer is told, and Close waits until it has heard, at most
// Config.CloseTimeout. It always closes the conn and waits for the Socket's
// goroutines. The error says that the peer has not confirmed all that was sent: it
// matches os.ErrDeadlineExceeded after CloseTimeout, and else is why the link broke
// before that. It is nil if the peer has all, or has closed the link itself; if the
// link had ended before (see Err); and where nothing can be known: a peer of version 1
// has only the end of the conn to say so, if the conn has CloseWrite. Further calls
// wait for the first and return the same.
func (s *Socket) Close() error { return s.CloseWith(channel.CodeClosed, "") }

// CloseWith is Close with a code and a reason for the peer, at most 255 bytes.
func (s *Socket) CloseWith(code channel.Code, reason string) error {
	_, err := s.end(code, reason)
	return err
}

// end is CloseWith. It reports whether this call has ended the link.
func (s *Socket) end(code channel.Code, reason string) (ended bool, err error) {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		<-s.over
		return false, s.untaken
	}
	s.closing = true
	ended = s.verdict == nil && s.cause == nil
	if ended {
		s.verdict = net.ErrClosed
		s.leaveLocked()
	}
	s.mu.Unlock()
	defer close(s.over)
	if ended {
		s.expect(1) // the peer's last words, for ever
		s.untaken = s.goAway(code, reason)
	}
	<-s.done
	<-s.writerDone
	<-s.readerDone
	<-s.datagramsDone
	return ended, s.untaken
}

// Drain ends the link when its channels have ended: it refuses new ones on both
// sides, tells the peer why, waits until the last channel is gone and the peer has
// all bytes, or ctx ends, and closes the link as CloseWith does. The error says how
// many channels were cut off, or why the link ended by itself.
func (s *Socket) Drain(ctx context.Context, code channel.Code, reason string) error {
	left, err := s.drain(code, reason)
	if err != nil {
		return err
	}
	s.flush()
	cut := 0
	select {
	case <-left:
	case <-s.done:
		select {
		case <-left: // before
		default:
			return s.Err()
		}
	case <-ctx.Done():
		s.mu.Lock()
		cut = s.openLocked()
		s.mu.Unlock()
	}
	if cut > 0 {
		err = fmt.Errorf("multiplex: channels cut off (%d): %w", cut, context.Cause(ctx))
	} else if s.version.Load() >= version2 {
		err = s.confirm(ctx)
		switch bye := (*GoingAwayError)(nil); {
		case errors.As(err, &bye): // its channels have ended, too
			err = nil
		case err != nil && ctx.Err() != nil:
			err = fmt.Errorf("multiplex: the peer has not read all bytes: %w", context.Cause(ctx))
		}
	}
	ended, untaken := s.end(code, reason)
	if ended && untaken == nil && cut == 0 {
		return nil
	}
	return cmp.Or(err, untaken)
}

// confirm asks the peer until it has all that was sent, where nothing more is. The
// answer to a beacon says that for what was being written when it was asked: the first
// one may overtake data that still waits.
func (s *Socket) confirm(ctx context.Context) error {
	for {
		if _, err := s.Ping(ctx); err != nil {
			return err
		}
		s.mu.Lock()
		all := s.confirmed >= s.line.promised()
		s.mu.Unlock()
		if all {
			return nil
		}
	}
}

// drain tells the peer and returns what is closed when no channel is left.
func (s *Socket) drain(code channel.Code, reason string) (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return nil, s.cause
	}
	if !s.draining && s.version.Load() >= version2 {
		s.line.inOrder(protocolID, encodeDraining(code, reason), prompt)
	}
	s.draining = true
	left := s.drained
	if left == nil {
		left = make(chan struct{})
		s.drained = left
	}
	if s.openLocked() == 0 {
		close(s.drained)
		s.drained = nil
	}
	return left, nil
}

// goAway tells the peer, drains the line, waits for the peer to close, and
// ends the link. It returns why the peer may lack something that was sent. When the
// time is up, fail closes the conn, which wakes whoever still reads or writes it.
func (s *Socket) goAway(code channel.Code, reason string) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.CloseTimeout)
	defer cancel()
	for _, e := range s.entries() {
		e.stream.Fail(net.ErrClosed) // its writers stop, so that the line runs dry
		s.answer(e, net.ErrClosed)
	}
	s.awaitReceipt(ctx)
	if s.cfg.Version >= version2 {
		s.line.inOrder(protocolID, encodeGoingAway(code, reason), prompt)
	}
	s.line.end(drained)
	defer s.fail(net.ErrClosed)
	select {
	case <-s.writerDone:
		// Closing before the peer has read all could make a TCP reset overtake
		// what was just sent. It closes when it has read the going away.
		if s.basic() && !s.endStream() {
			return nil // it cannot know
		}
		select {
		case <-s.readerDone:
		case <-ctx.Done():
		}
	case <-s.readerDone: // it has read all just now, or closes too, or is gone
	case <-ctx.Done():
	}
	return s.unconfirmed(ctx)
}

// awaitReceipt asks the peer to confirm what was sent, by a beacon behind it, and
// waits for half of the time at most: the other half is for the going away.
func (s *Socket) awaitReceipt(ctx context.Context) {
	s.mu.Lock()
	if s.cause != nil || s.version.Load() < version2 || s.confirmed >= s.line.promised() {
		s.mu.Unlock()
		return
	}
	b := s.addBeaconLocked(func(body []byte) { s.line.inOrder(protocolID, body, prompt) })
	b.behind = math.MaxUint64 // all: nothing more is sent
	s.mu.Unlock()
	s.flush()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.CloseTimeout/2)
	defer cancel()
	select {
	case <-b.done:
	case <-s.readerDone:
	case <-ctx.Done():
	}
}

// unconfirmed returns why the peer may lack something that was sent; nil if it has
// all. Without a beacon's answer its clean end is the receipt, as long as all was
// written: it closes the conn when it has read our going away, behind all else. (A
// peer that gives the link up in that very moment looks the same.) A peer that closes
// the link itself wants no more.
func (s *Socket) unconfirmed(ctx context.Context) error {
	s.mu.Lock()
	receipt := errors.Is(s.readErr, io.EOF)
	s.mu.Unlock()
	if receipt {
		select {
		case <-s.writerDone:
		case <-ctx.Done():
			receipt = false
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, left := errors.AsType[*GoingAwayError](s.readErr)
	why := cmp.Or(s.lost, s.writeErr, s.readErr)
	switch {
	case left, s.confirmed >= s.line.promised():
		return nil
	case why != nil && s.basic(): // the only goodbye that version 1 has
		return nil
	case why == nil:
		why = os.ErrDeadlineExceeded
	case errors.Is(why, io.EOF) && receipt: // the reader's: the others are never that
		return nil
	case errors.Is(why, io.EOF), errors.Is(why, net.ErrClosed): // not by us
		why = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("multiplex: the peer has not confirmed all bytes: %w", why)
}

// endStream tells a peer of version 1 that nothing more comes, where the
// carrier can.
func (s *Socket) endStream() bool {
	cw, ok := s.conn.(interface{ CloseWrite() error })
	return ok && cw.CloseWrite() == nil
}

// fail ends the link at once. Only the first cause counts, and a verdict
// reached before, or the peer's own word, more than what it led to. The
// channels learn of it before the conn is closed, which may take a while.
func (s *Socket) fail(cause error) {
	s.mu.Lock()
	if s.cause != nil {
		s.mu.Unlock()
		return
	}
	switch {
	case s.verdict != nil:
		if cause != s.verdict {
			s.lost = cause
		}
		cause = s.verdict
	case s.goingAway != nil:
		cause = s.goingAway
	}
	s.cause = cause
	s.leaveLocked()
	s.clock.Stop()
	es := slices.Collect(maps.Values(s.table))
	s.cfg.Budget.enter(-len(es))
	clear(s.table)
	s.left, s.declined = idSet{}, idSet{}
	s.mu.Unlock()
	s.line.end(cutOff)
	for _, e := range es {
		if e.orphaned() {
			e.discard(cause)
		} else {
			e.stream.Fail(cause)
		}
		s.answer(e, cause)
	}
	if s.stopDatagrams != nil {
		s.stopDatagrams()
	}
	_ = s.conn.Close()
	close(s.done)
	s.callWatch() // sees that the conn is closed
}

// lastWords is how long a peer that broke the protocol may take to read so.
const lastWords = 100 * time.Millisecond

// violate ends the link because the peer broke the protocol, and says so to it
// if that can be done in no time. What it still sends is read: closing a TCP
// connection on unread bytes could take the last words back.
func (s *Socket) violate(err error) {
	s.mu.Lock()
	if s.verdict == nil {
		s.verdict = err
		s.leaveLocked()
	}
	s.mu.Unlock()
	defer time.AfterFunc(lastWords, func() { s.fail(err) }).Stop()
	if !s.basic() {
		s.line.inOrder(protocolID, encodeGoingAway(channel.CodeProtocol, err.Error()), prompt)
		s.line.end(drained)
		<-s.writerDone
		_, _ = io.Copy(io.Discard, s.conn)
	}
	s.fail(err)
}

// entries returns a snapshot of the table.
func (s *Socket) entries() []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.table))
}

// basic reports whether the link is limited to version 1, as far as is known.
func (s *Socket) basic() bool {
	return s.cfg.Version < version2 || s.version.Load() == version1
}

// transportError makes an error that is never io.EOF.
func transportError(op string, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("link %s: %w", op, err)
}

// nonce is unpredictable enough to tell an answer from a guess.
func nonce() uint64 { return rand.Uint64() }
