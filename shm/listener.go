package shm

import (
	"context"
	"math"
	"net"

	"peerlink/identity"
	"peerlink/internal/proving"
)

// maxPending is how many set-ups run, and how many streams wait for Accept, at
// once; each may hold a region.
const maxPending = 16

// Listener yields streams that other processes of this machine ask for. Make
// one with Listen. Its methods may be called concurrently.
type Listener struct{ in *proving.Listener[*Conn] }

// called is a stream that the local listener has proven.
type called struct {
	*net.UnixConn
	peer identity.Peer
}

// Listen begins to take streams from local, which it does not close. On
// systems without this carrier the error matches errors.ErrUnsupported.
func Listen(cfg Config, local LocalListener) (*Listener, error) {
	if err := supported(); err != nil {
		return nil, err
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.HandshakeTimeout < 0 {
		cfg.HandshakeTimeout = defaultTimeout
	}
	return &Listener{proving.Listen(proving.Config[*Conn]{
		Room: "shm", Carrier: "shm", Logger: cfg.Logger,
		Gate: &proving.Gate{Places: maxPending, Grace: math.MaxInt64}, // the caller is known: a set-up is not disturbed
		Prove: func(ctx context.Context, conn net.Conn) (*Conn, error) {
			c := conn.(called)
			return cfg.offer(ctx, c.UnixConn, c.peer)
		},
	}, func(ctx context.Context) (net.Conn, error) {
		raw, peer, err := local.AcceptUnix(ctx, Service)
		return called{raw, peer}, err
	})}, nil
}

// Name returns "shm".
func (l *Listener) Name() string { return "shm" }

// Accept returns the next stream, a *Conn. It blocks until there is one, ctx
// ends, or this listener or the local one is closed; then the error matches
// net.ErrClosed.
func (l *Listener) Accept(ctx context.Context) (net.Conn, identity.Peer, error) {
	conn, err := l.in.Accept(ctx, "")
	if err != nil {
		return nil, identity.Peer{}, err
	}
	return conn, conn.peer, nil
}

// StopAccepting is Close: streams need nothing of their listener.
func (l *Listener) StopAccepting() { _ = l.in.Close() }

// Close ends the set-ups under way, closes the streams that were not accepted,
// and returns when that is done. It may be called from anywhere and more than
// once.
func (l *Listener) Close() error { return l.in.Close() }
