package localipc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"peerlink/identity"
	"peerlink/internal/proving"
)

// Bounds on callers that have not proven their device yet.
const (
	// maxPending is how many handshakes run at once; one holds a goroutine, a
	// descriptor and at most 20 KiB.
	maxPending = 64
	// grace is how long a handshake keeps its place in any case: a thousand
	// times what it takes.
	grace = time.Second
)

// Listener takes calls from processes of this machine and proves their devices.
// Handshakes run concurrently, at most 64; above that, one older than 1 s loses
// its place to a newer one. Make one with Listen. Its methods may be called
// concurrently.
type Listener struct {
	cfg  Config
	door *doorway
	in   *proving.Listener[proven]
}

// Listen makes the device reachable on this machine. What a dead process left
// is removed; if a live one serves the device, the error matches ErrInUse. It
// blocks for 0.2 s at most.
func Listen(ctx context.Context, cfg Config) (*Listener, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("localipc: listen: %w", err)
	}
	door, err := openDoorway(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("localipc: listen for device %s: %w", cfg.Identity.DeviceID().Short(), err)
	}
	if cfg.HandshakeTimeout < 0 {
		cfg.HandshakeTimeout = defaultHandshakeTimeout
	}
	return &Listener{cfg: cfg, door: door, in: proving.Listen(proving.Config[proven]{
		Room: "localipc", Carrier: "unix", Logger: cfg.Logger,
		Gate:  &proving.Gate{Places: maxPending, Grace: grace},
		Prove: cfg.answer, Keep: true,
		Queues: append([]string{streamService}, cfg.Services...), Queue: func(p proven) string { return p.service },
		Stop: func() { _ = door.Close() }, // what could fail here is an earlier Close, and there is none
	}, proving.From(door))}, nil
}

// Name returns "unix", on Windows too.
func (l *Listener) Name() string { return "unix" }

// Path returns where the socket or the pipe is.
func (l *Listener) Path() string { return l.door.path() }

// Accept returns the next proven stream, a *Conn. It blocks until there is one,
// ctx ends, or the listener is closed; then the error matches net.ErrClosed.
func (l *Listener) Accept(ctx context.Context) (net.Conn, identity.Peer, error) {
	p, err := l.in.Accept(ctx, streamService)
	if err != nil {
		return nil, identity.Peer{}, err
	}
	return newConn(p, l.Path()), p.peer, nil
}

// AcceptUnix is Accept for one of Config.Services, which then owns the socket.
func (l *Listener) AcceptUnix(ctx context.Context, service string) (*net.UnixConn, identity.Peer, error) {
	p, err := l.in.Accept(ctx, service)
	if err != nil {
		return nil, identity.Peer{}, err
	}
	conn, ok := p.conn.(*net.UnixConn)
	if !ok {
		_ = p.conn.Close()
		return nil, identity.Peer{}, fmt.Errorf("localipc: accept %q: %w", service, errors.ErrUnsupported)
	}
	return conn, p.peer, nil
}

// StopAccepting is Close: streams need nothing of their listener.
func (l *Listener) StopAccepting() { _ = l.in.Close() }

// Close stops listening, removes the socket and the announcement, ends the
// handshakes under way, closes the streams that were not accepted, and returns
// when all of that is done. It may be called from anywhere and more than once.
func (l *Listener) Close() error { return l.in.Close() }
