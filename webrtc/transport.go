package webrtc

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/ice/v4"
	pion "github.com/pion/webrtc/v4"

	"peerlink/identity"
	"peerlink/internal/route"
	"peerlink/internal/signalling"
)

// Conn is a stream to a device over a data channel: a complete net.Conn.
type Conn struct {
	*stream
	owner     *session
	path      route.Path
	datagrams datagrams
}

// Path is the way that the bytes take: engine "webrtc", the pair that ICE selected,
// and the protocol over which it runs.
func (c *Conn) Path() route.Path { return c.path }

// accepted is a stream that waits for Accept.
type accepted struct {
	conn *Conn
	peer identity.Peer
}

// Transport reaches devices and is reached by them. All methods may be called
// concurrently. Make one with New.
type Transport struct {
	cfg Config
	log *slog.Logger
	api *pion.API
	tcp ice.TCPMux // nil without ListenTCP

	acceptc chan accepted // never blocks: each sender holds one of MaxCalls slots
	deafc   chan struct{} // closed when the signaller has ended
	closing context.Context
	cancel  context.CancelCauseFunc
	refusec chan struct{} // slots for refusals being sent
	decide  atomic.Pointer[func(context.Context, identity.Peer) error]
	ignored atomic.Uint64
	linger  time.Duration // lingerTimeout, but for tests

	mu       sync.Mutex
	closed   bool
	outgoing map[callID]*call
	incoming map[callID]*visit
	slots    map[identity.DeviceID]int // per caller; total in taken
	taken    int
	seen     seenCalls
	aside    signalling.Aside[callID, []string] // candidates that came before their offer
	sessions map[*session]struct{}
	conns    map[*Conn]struct{}
	late     sync.WaitGroup // what Close does not wait for, as it takes too long
	running  sync.WaitGroup // Add only under mu and before closed, or while it is held
}

// New starts to listen to the signaller. It fails when a setting is wrong or
// the TCP address is taken. Close the Transport when done.
func New(cfg Config) (*Transport, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	t := &Transport{
		cfg: cfg, log: cfg.Logger, linger: lingerTimeout,
		acceptc:  make(chan accepted, cfg.MaxCalls),
		deafc:    make(chan struct{}),
		refusec:  make(chan struct{}, maxRefusals),
		outgoing: make(map[callID]*call),
		incoming: make(map[callID]*visit),
		slots:    make(map[identity.DeviceID]int),
		sessions: make(map[*session]struct{}),
		conns:    make(map[*Conn]struct{}),
	}
	if cfg.ListenTCP != "" {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", cfg.ListenTCP)
		if err != nil {
			return nil, fmt.Errorf("webrtc: Config.ListenTCP: %w", err)
		}
		t.tcp = pion.NewICETCPMux(nil, l, 64)
	}
	if t.api, err = cfg.engine(t.tcp); err != nil {
		t.stopTCP()
		return nil, err
	}
	t.closing, t.cancel = context.WithCancelCause(context.Background())
	if cfg.Signaller != nil {
		t.spawn(t.listen)
	}
	return t, nil
}

// Name returns "webrtc".
func (t *Transport) Name() string { return "webrtc" }

// Decide sets who decides about callers. f is asked, after the trust store and
// possibly several times at once, before an offer is answered; an error
// refuses, and its text, cut to 200 bytes, is what the caller is told. f must
// return when its context ends. A nil f takes every caller, as does a new
// Transport.
func (t *Transport) Decide(f func(ctx context.Context, peer identity.Peer) error) {
	if f == nil {
		t.decide.Store(nil)
		return
	}
	t.decide.Store(&f)
}

// Accept returns the next stream that another device has made. It blocks until
// there is one, ctx ends, or the Transport or its signaller is closed
// (net.ErrClosed).
func (t *Transport) Accept(ctx context.Context) (net.Conn, identity.Peer, error) {
	if t.closing.Err() != nil {
		return nil, identity.Peer{}, errClosed
	}
	select {
	case a := <-t.acceptc:
		t.release(a.peer.Device)
		return a.conn, a.peer, nil
	case <-ctx.Done():
		return nil, identity.Peer{}, fmt.Errorf("webrtc: accept: %w", context.Cause(ctx))
	case <-t.closing.Done():
		return nil, identity.Peer{}, errClosed
	case <-t.deafc:
		return nil, identity.Peer{}, fmt.Errorf("webrtc: the signaller has ended: %w", net.ErrClosed)
	}
}

// Ignored counts the signals that were malformed, answered no running call,
// came twice or from another device than was called. A stranger can make it grow.
func (t *Transport) Ignored() uint64 { return t.ignored.Load() }

// Close ends all calls and streams and waits for what the Transport has started;
// not longer than a second for a TURN server that does not answer. What was
// written to a stream before still reaches the peer, within two seconds.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.closed = true
	t.cancel(errClosed) // before what follows, so that calls see why they end
	conns := make(map[*session]bool)
	for c := range t.conns {
		conns[c.owner] = true
		c.Close()
	}
	for s := range t.sessions {
		if !conns[s] {
			s.hangUp()
		}
	}
	t.mu.Unlock()
	t.running.Wait()
	t.stopTCP()
	return nil
}

func (t *Transport) stopTCP() {
	if t.tcp != nil {
		t.tcp.Close()
	}
}

// spawn runs f until the Transport is closed, which waits for it. It returns
// false where it has been closed.
func (t *Transport) spawn(f func(ctx context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.running.Go(func() { f(t.closing) })
	return true
}

// adopt makes a stream of a session whose peer is proven.
func (t *Transport) adopt(s *session, raw messages) (*Conn, error) {
	local, far, path := s.addresses()
	s.mu.Lock()
	largest := s.largest
	s.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errClosed
	}
	c := &Conn{owner: s, path: path}
	t.running.Add(1)
	c.stream = newStream(raw, largest, local, far, s.hangUp, func() {
		t.mu.Lock()
		delete(t.conns, c)
		t.mu.Unlock()
		t.running.Done()
	})
	c.patience = t.linger
	t.conns[c] = struct{}{}
	t.running.Go(func() {
		<-s.lostc
		c.lose(errLost)
	})
	c.datagrams.inc, c.datagrams.endc = make(chan []byte, datagramsKept), make(chan struct{})
	t.running.Go(func() { c.datagrams.receive(s) })
	return c, nil
}

// newCallID makes an id that nobody can guess.
func newCallID() (id callID) {
	rand.Read(id[:])
	return id
}
