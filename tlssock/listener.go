package tlssock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/time/rate"

	"peerlink/identity"
	"peerlink/internal/proving"
	"peerlink/internal/quota"
)

// Bounds on callers that have not proven anything yet. An honest handshake takes
// two round trips, so few are ever under way at once.
const (
	// maxPending is how many handshakes run at once; one holds two goroutines
	// and at most about 60 KiB. All of them together need 0.1 s of a core.
	maxPending = 128
	// maxPendingPerSource is how many of them one source may have.
	maxPendingPerSource = 32
	// grace is how long a handshake keeps its place in any case: two round
	// trips over the worst link that we care for, on a busy machine. Taking
	// places earlier would let a rush of honest callers push out each other.
	grace = 5 * time.Second
	// sourceBurst and sourceEvery are what one source may begin: 64 at once and
	// then 20 a second.
	sourceBurst = 64
	sourceEvery = 50 * time.Millisecond
	// maxSources is how many sources' rates are remembered, about 200 bytes each.
	// Beyond it the one that has been silent for longest is forgotten.
	maxSources = 4096
)

// handshakeRate is how many handshakes a second a listener begins, of all
// callers together: a server's share of one costs about 0.6 ms of a core, so this takes a
// quarter of the machine at most.
func handshakeRate() int { return 400 * runtime.GOMAXPROCS(0) }

// Listener takes TCP connections and proves which device calls. Handshakes run
// concurrently, at most 128 at a time and 32 from one IPv4 /24 or IPv6 /64;
// above that, handshakes older than 5 s lose their place to newer ones, and
// sources that begin more than 20 a second are turned away. Make one with
// Listen. Its methods may be called concurrently.
type Listener struct {
	socks []net.Listener
	in    *proving.Listener[*Conn]
}

// Listen opens the addresses ("host:port"; port 0 picks one, an empty host is
// every interface) and begins to accept. It fails when one of them cannot be
// opened; ctx bounds only the looking up of host names.
func Listen(ctx context.Context, cfg Config, addrs ...string) (*Listener, error) {
	switch {
	case cfg.Identity == nil:
		return nil, errors.New("tlssock: listen: Config.Identity is missing")
	case len(addrs) == 0:
		return nil, errors.New("tlssock: listen: no address given")
	}
	var socks []net.Listener
	for _, a := range addrs {
		var lc net.ListenConfig
		s, err := lc.Listen(ctx, "tcp", a)
		if err != nil {
			for _, s := range socks {
				_ = s.Close()
			}
			return nil, fmt.Errorf("tlssock: listen on %q: %w", a, err)
		}
		socks = append(socks, s)
	}
	return newListener(cfg, socks), nil
}

func newListener(cfg Config, socks []net.Listener) *Listener {
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.HandshakeTimeout < 0 {
		cfg.HandshakeTimeout = defaultHandshakeTimeout
	}
	l := &Listener{socks: socks}
	sources := make([]proving.Source, len(socks))
	for i, s := range socks {
		sources[i] = proving.From(s)
	}
	l.in = proving.Listen(proving.Config[*Conn]{
		Room: "tlssock", Carrier: "tcp", Logger: cfg.Logger, Gate: newGate(),
		Starts: rate.NewLimiter(rate.Limit(handshakeRate()), maxPending),
		Prove:  cfg.Server,
		Stop: func() {
			for _, s := range socks {
				// What could fail here is an earlier Close, and there is none.
				_ = s.Close()
			}
		},
	}, sources...)
	return l
}

func newGate() *proving.Gate {
	return &proving.Gate{
		Places: maxPending, PerSource: maxPendingPerSource, Grace: grace,
		Rate: sourceRates().Within(sourceRates(), func(p netip.Prefix) netip.Prefix {
			return quota.NetworkOf(p.Addr(), 16, 32) // of a provider, or a large customer
		}),
		Source: func(c net.Conn) (netip.Prefix, bool) {
			from := prefixOf(c.RemoteAddr())
			return from, !from.Addr().IsLoopback() // which does not tell the machine's users apart
		},
	}
}

func sourceRates() *quota.Rates[netip.Prefix] {
	return quota.NewRates[netip.Prefix](maxSources, rate.Every(sourceEvery), sourceBurst)
}

// prefixOf returns the source that addr belongs to, an IPv4 /24 or an IPv6 /64,
// the least that one customer usually holds. All addresses that are not TCP ones
// are one source.
func prefixOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	return quota.NetworkOf(tcp.AddrPort().Addr(), 24, 64)
}

// Name returns "tcp".
func (l *Listener) Name() string { return "tcp" }

// Addrs returns the addresses that are listened on, in Listen's order.
func (l *Listener) Addrs() []net.Addr {
	out := make([]net.Addr, len(l.socks))
	for i, s := range l.socks {
		out[i] = s.Addr()
	}
	return out
}

// Accept returns the next proven connection, a *Conn. It blocks until there is
// one, ctx ends, or the listener is closed; then the error matches
// net.ErrClosed.
func (l *Listener) Accept(ctx context.Context) (net.Conn, identity.Peer, error) {
	conn, err := l.in.Accept(ctx, "")
	if err != nil {
		return nil, identity.Peer{}, err
	}
	return conn, conn.Peer(), nil
}

// StopAccepting is Close: connections need nothing of their listener.
func (l *Listener) StopAccepting() { _ = l.in.Close() }

// Close stops listening, ends the handshakes under way, closes the connections
// that were not accepted, and returns when all of that is done. It may be called
// from anywhere and more than once.
func (l *Listener) Close() error { return l.in.Close() }
