package ice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"peerlink/identity"
	"peerlink/internal/calls"
	"peerlink/internal/netwatch"
	"peerlink/internal/pause"
	"peerlink/tlssock"
)

// The engines' names, for Config.Engines.
const (
	engineTCP = "tcp"
	engineUDP = "udp"
)

const (
	// defaultTimeout is Config.Timeout's.
	defaultTimeout = 10 * time.Second
	// patience is how long a path of a less preferred engine waits for one of the
	// preferred engine: it covers a round trip more within a continent.
	patience = 50 * time.Millisecond
	// maxNegotiations bounds the negotiations that run at once, counted apart for
	// the ones begun here and the ones begun elsewhere; streams that wait for Accept count
	// with the latter. maxPerPeer bounds the ones begun by one device. Both are for
	// members of Config.Trust; strangers have half of the one, and 8, apart.
	maxNegotiations = 128
	maxPerPeer      = 64
)

// Signaller carries short messages between devices. It vouches for the sender of a
// message and keeps others from reading it; it may lose, delay and repeat. Both
// methods block until ctx ends at the latest and are called concurrently. A Receive error that matches net.ErrClosed is final.
type Signaller interface {
	// Send hands msg, at most 8 KiB, to the device.
	Send(ctx context.Context, to identity.DeviceID, msg []byte) error
	// Receive returns the next message for this device and its sender.
	Receive(ctx context.Context) (from identity.Peer, msg []byte, err error)
}

// Config says who this device is and how it may be reached. It is copied by
// New.
type Config struct {
	// Identity is this device. Required.
	Identity *identity.Identity
	// Trust is asked about each caller before its offer is answered, and again
	// inside each handshake on both sides. Nil lets all devices in.
	Trust *identity.Trust
	// Signaller carries offers and answers. Required. The Transport is its only
	// reader and does not close it.
	Signaller Signaller
	// Engines are "tcp", "udp" or both, the preferred one first. Empty means
	// "tcp", "udp": on loopback TLS over TCP moves about three times the bytes
	// of QUIC (BenchmarkThroughput).
	Engines []string
	// Loopback offers this machine's loopback addresses and dials other
	// devices' ones. It is off by default, as between two machines they only waste
	// time, and a stranger could have us dial services of our own. Both ends
	// need it to meet on one machine without another network.
	Loopback bool
	// Addresses lists the addresses to offer as host candidates. Nil means
	// the addresses of the machine's interfaces at that time, except link-local ones.
	Addresses func() ([]netip.Addr, error)
	// Direct lists where this device takes plain TLS connections (package tlssock),
	// by a listener of the program's: callers are told, and try there too, so that
	// one open port is enough. An unspecified address stands for all of Addresses.
	// At most 4 are told. Nil: there are none.
	Direct func() []netip.AddrPort
	// Servers are STUN and TURN servers: through them a device behind NATs is
	// found (STUN), or reached where nothing direct leads to it (TURN). None: it
	// is reached on its interfaces' addresses only. At most 8.
	Servers []Server
	// MapPorts has the local network's router asked for ports that lead to this
	// device, by NAT-PMP and UPnP; they are given back by Close.
	MapPorts bool
	// Timeout bounds one negotiation on either side, from the offer to the
	// proven stream; the context of Dial may be shorter. 0 means 10 s: two
	// round trips of signalling and five of connecting over the worst link we
	// care for (600 ms) with a lost packet in each phase.
	Timeout time.Duration
	// Logger hears of refusals and failures that no caller is told, at level
	// Debug, as strangers can cause them. Nil is silent.
	Logger *slog.Logger

	lost func(to netip.AddrPort) bool // tests: which packets of the UDP socket are
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Identity == nil:
		return c, errors.New("ice: Config.Identity is missing")
	case c.Signaller == nil:
		return c, errors.New("ice: Config.Signaller is missing")
	}
	if len(c.Engines) == 0 {
		c.Engines = []string{engineTCP, engineUDP}
	}
	c.Engines = slices.Clone(c.Engines)
	for i, e := range c.Engines {
		if e != engineTCP && e != engineUDP {
			return c, fmt.Errorf("ice: Config.Engines: %q is no engine, want %q or %q", e, engineTCP, engineUDP)
		}
		if slices.Contains(c.Engines[:i], e) {
			return c, fmt.Errorf("ice: Config.Engines: %q is given twice", e)
		}
	}
	if len(c.Servers) > maxServers {
		return c, fmt.Errorf("ice: Config.Servers: %d servers, at most %d are used", len(c.Servers), maxServers)
	}
	c.Servers = slices.Clone(c.Servers)
	if c.Addresses == nil {
		c.Addresses = hostAddresses
	}
	c.Timeout = cmp.Or(max(c.Timeout, 0), defaultTimeout)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c, nil
}

// engine is one way to connect. Its methods are called from any goroutine.
type engine interface {
	name() string
	// describe puts the engine's part into an offer or an answer for n.
	describe(n *negotiation, m *message, addrs []netip.Addr) error
	// start works towards a path to the peer that sent remote, on goroutines
	// of n. It does not block.
	start(n *negotiation, remote *message)
	// more adds candidates that the peer has found since.
	more(n *negotiation, found []candidate)
	// reflectsOver lists the networks over which a STUN server can say how the
	// engine's port looks from outside, and reflect asks one, and tells each
	// answer, until it fails or ctx ends.
	reflectsOver() []string
	reflect(ctx context.Context, s server, network string, tell func(netip.AddrPort)) error
	localPort() uint16
	// stop ends the taking of connections.
	stop()
	// close ends the engine, and the streams that need it. It is called once
	// nothing that the Transport has started is left.
	close()
}

// Transport reaches devices and is reached by them. All methods may be called
// concurrently. Make one with New.
type Transport struct {
	cfg     Config
	tls     tlssock.Config
	log     *slog.Logger
	engines []engine // the preferred one first

	board   *calls.Board[*message]
	servers []server
	outside outside

	changed pause.Bell // the network

	mu     sync.Mutex
	silent map[string]string // why servers told nothing, by engine and server
}

// New opens the engines' sockets and starts to listen to the signaller. It
// fails when a setting is wrong or the system gives no socket. Close the Transport
// when done.
func New(cfg Config) (*Transport, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	t := &Transport{
		cfg:    cfg,
		tls:    tlssock.Config{Identity: cfg.Identity, Trust: cfg.Trust, HandshakeTimeout: cfg.Timeout},
		log:    cfg.Logger,
		silent: make(map[string]string),
	}
	t.board = calls.New(calls.Config{
		Name: "ice", Self: cfg.Identity.DeviceID(), Trust: cfg.Trust, Timeout: cfg.Timeout,
		Most: maxNegotiations, Each: maxPerPeer, Closed: errClosed, Log: cfg.Logger,
	}, carrier{t})
	for _, s := range cfg.Servers {
		p, err := parseServer(s)
		if err != nil {
			return nil, err
		}
		t.servers = append(t.servers, p)
	}
	for _, name := range cfg.Engines {
		e, err := t.open(name)
		if err != nil {
			t.Close()
			return nil, err
		}
		t.engines = append(t.engines, e)
	}
	t.board.Listen(cfg.Signaller)
	t.board.Go(t.watchNetwork)
	t.reflect()
	t.mapPorts()
	return t, nil
}

func (t *Transport) open(name string) (engine, error) {
	if name == engineUDP {
		return newUDPEngine(t)
	}
	return newTCPEngine(t)
}

// Name returns "ice".
func (t *Transport) Name() string { return "ice" }

// Decide sets the program's decision about offers. f is asked, after the trust store and
// possibly several times at once, before an offer is answered; an error
// refuses, and its text, cut to 200 bytes, is what the caller is told. f must
// return when its context ends; until it does, it takes up one of the caller's
// negotiations. A nil f accepts every offer, as does a new Transport.
func (t *Transport) Decide(f func(ctx context.Context, peer identity.Peer) error) {
	t.board.Decide(f)
}

// Accept returns the next stream that another device has made. It blocks until
// there is one, ctx ends, or the Transport or its signaller is closed
// (net.ErrClosed).
func (t *Transport) Accept(ctx context.Context) (net.Conn, identity.Peer, error) {
	return t.board.Accept(ctx)
}

// StopAccepting has Accept return net.ErrClosed from now on, and callers told that
// there is no room. Streams and calls of this device live on: its ports stay open
// until Close. It does not block.
func (t *Transport) StopAccepting() { t.board.StopAccepting() }

// Close ends all negotiations, closes the sockets and waits for everything the
// Transport has started, about two seconds at most. Streams over TCP live on;
// streams over UDP end with it, as they share its socket.
func (t *Transport) Close() error {
	t.board.End()
	for _, e := range t.engines {
		e.stop()
	}
	t.board.Close()
	for _, e := range t.engines {
		e.close()
	}
	return nil
}

// watchNetwork asks servers again at once when this machine's interfaces have
// changed, and gets another relay.
func (t *Transport) watchNetwork(ctx context.Context) {
	if len(t.servers) == 0 && !t.cfg.MapPorts {
		return
	}
	for range netwatch.Changes(ctx) {
		t.renew()
	}
}

// renew forgets how this device looked from outside.
func (t *Transport) renew() {
	t.changed.Ring()
	for _, e := range t.engines {
		if u, ok := e.(*udpEngine); ok && u.relays != nil {
			u.relays.renew()
		}
	}
}

// find returns the running negotiation that a check from outside names.
func (t *Transport) find(h hello) *negotiation {
	n, _ := t.board.Side(h.id, h.role == controlling).(*negotiation) // nil where there is none
	return n
}
