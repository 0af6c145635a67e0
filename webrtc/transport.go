package webrtc

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	pion "github.com/pion/webrtc/v4"

	"peerlink/identity"
	"peerlink/internal/calls"
	"peerlink/internal/route"
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

// Transport reaches devices and is reached by them. All methods may be called
// concurrently. Make one with New.
type Transport struct {
	cfg Config
	log *slog.Logger
	api *pion.API // of members

	settings pion.SettingEngine
	sockets  sockets

	board  *calls.Board[*message]
	linger time.Duration  // lingerTimeout, but for tests
	label  string         // streamLabel, but for tests
	late   sync.WaitGroup // what Close does not wait for, as it takes too long

	mu       sync.Mutex
	sessions map[*session]struct{}
	conns    map[*Conn]struct{}
}

// New starts to listen to the signaller. It fails when a setting is wrong.
// Close the Transport when done.
func New(cfg Config) (*Transport, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	t := &Transport{
		cfg: cfg, log: cfg.Logger, linger: lingerTimeout, label: streamLabel,
		sessions: make(map[*session]struct{}),
		conns:    make(map[*Conn]struct{}),
	}
	if t.settings, t.sockets, err = cfg.engine(); err != nil {
		return nil, err
	}
	t.api = pion.NewAPI(pion.WithSettingEngine(t.settings))
	t.board = calls.New(calls.Config{
		Name: "webrtc", Self: cfg.Identity.DeviceID(), Trust: cfg.Trust, Timeout: cfg.Timeout,
		Most: maxCalls, Each: maxPerPeer, OneOfTwo: true, Closed: errClosed, Log: cfg.Logger,
	}, carrier{t})
	if cfg.Signaller != nil {
		t.board.Listen(cfg.Signaller)
	}
	return t, nil
}

// apiFor returns the API of a session for which a peer's word has a price.
func (t *Transport) apiFor(price *calls.Price) *pion.API {
	if price == nil {
		return t.api
	}
	settings, priced := t.settings, t.sockets
	priced.price = price
	settings.SetNet(priced)
	return pion.NewAPI(pion.WithSettingEngine(settings))
}

// Name returns "webrtc".
func (t *Transport) Name() string { return "webrtc" }

// Decide sets the program's decision about callers. f is asked, after the trust store and
// possibly several times at once, before an offer is answered; an error refuses,
// and its text, cut to 200 bytes, is what the caller is told, as does a panic, which
// is logged. f must return when its context ends; until it does, it takes up one of
// the caller's calls. A nil f takes every caller, as does a new Transport.
func (t *Transport) Decide(f func(ctx context.Context, peer identity.Peer) error) { t.board.Decide(f) }

// Accept returns the next stream that another device has made. It blocks until
// there is one, ctx ends, or the Transport or its signaller is closed
// (net.ErrClosed).
func (t *Transport) Accept(ctx context.Context) (net.Conn, identity.Peer, error) {
	return t.board.Accept(ctx)
}

// StopAccepting has Accept return net.ErrClosed from now on, and callers told that
// there is no room. Streams and calls of this device live on until Close. It does
// not block.
func (t *Transport) StopAccepting() { t.board.StopAccepting() }

// Close ends all calls and streams and waits for what the Transport has started;
// not longer than a second for a TURN server that does not answer. What was
// written to a stream before still reaches the peer, within two seconds.
func (t *Transport) Close() error {
	t.board.End() // before what follows, so that calls see why they end
	t.mu.Lock()
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
	t.board.Close()
	return nil
}

// adopt makes a stream of a session with a proven peer.
func (t *Transport) adopt(s *session, raw messages) (*Conn, error) {
	local, far, path := s.addresses()
	s.mu.Lock()
	largest := s.largest
	s.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.board.Enter() {
		return nil, errClosed
	}
	c := &Conn{owner: s, path: path}
	c.datagrams.inc, c.datagrams.endc = make(chan []byte, datagramsKept), make(chan struct{})
	var helpers sync.WaitGroup
	c.stream = newStream(raw, largest, local, far, s.hangUp, func() {
		t.mu.Lock()
		delete(t.conns, c)
		t.mu.Unlock()
		helpers.Wait()
		t.board.Leave()
	})
	c.patience = t.linger
	t.conns[c] = struct{}{}
	helpers.Go(func() {
		<-s.lostc
		c.lose(errLost)
	})
	helpers.Go(func() { c.datagrams.receive(s) })
	return c, nil
}
