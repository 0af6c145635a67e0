// Package proving is the listening side of a carrier: it takes connections from
// strangers, has each prove which device is at its far end, and hands out the
// proven ones.
//
//	l := proving.Listen(proving.Config[*Conn]{
//		Room: "tlssock", Carrier: "tcp", Gate: gate, Prove: server,
//	}, proving.From(sock))
//	conn, err := l.Accept(ctx, "")
//
// Proofs run concurrently, as many as the Gate has places. A proven connection
// keeps its place until it is accepted, for 10 s at most.
package proving

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/pause"
)

const (
	// AcceptTimeout is how long a proven connection waits for Accept before it is
	// closed.
	AcceptTimeout = 10 * time.Second
	// LogsPerSecond bounds what strangers can make a listener write.
	LogsPerSecond = 10
	// FirstPause follows an accept that failed: connections that end meet it by
	// giving descriptors and memory back. Each failure doubles it.
	FirstPause = 5 * time.Millisecond
	// LongestPause is where the doubling ends.
	LongestPause = time.Second
)

// Stats counts what a Listener has done since it was opened.
type Stats struct {
	// Proven is the number of connections that have proven their device.
	Proven uint64
	// Failed is the number of connections that have not.
	Failed uint64
	// Shed is the number of connections that were turned away before, lost their
	// place to a newer one, or were proven but not accepted within 10 s.
	Shed uint64
	// AcceptErrors is how often the system refused to hand out a connection,
	// usually for want of file descriptors.
	AcceptErrors uint64
}

// Proven is a connection to a device that has proven itself.
type Proven interface {
	io.Closer
	// Peer returns the device.
	Peer() identity.Peer
}

// Config is what a Listener is made of.
type Config[C Proven] struct {
	// Room is the package that errors name, Carrier what the log names.
	Room, Carrier string
	// Logger gets what went wrong, at the level debug.
	Logger *slog.Logger
	// Gate has the places.
	Gate *Gate
	// Starts bounds how many proofs begin in a second, of all sources together.
	// nil: no bound.
	Starts *rate.Limiter
	// Prove finds out which device is at the far end. It blocks until then or until ctx
	// ends, and closes the connection when it fails.
	Prove func(ctx context.Context, conn net.Conn) (C, error)
	// Keep makes the place of a proven connection safe from newcomers.
	Keep bool
	// Queues are the names that Accept may ask for, and Queue returns the
	// one that a proven connection belongs to. nil: there is one, "".
	Queues []string
	Queue  func(C) string
	// Stop ends the sources when the listener closes. nil: their context does.
	Stop func()
}

// Source waits for the next connection. An error that matches net.ErrClosed is
// its last; after another one it is called again, a little later.
type Source func(ctx context.Context) (net.Conn, error)

// From is a Source of what l accepts. Config.Stop must close l.
func From(l net.Listener) Source {
	return func(context.Context) (net.Conn, error) { return l.Accept() }
}

// Listener proves what its sources accept. Make one with Listen. Its methods may
// be called concurrently.
type Listener[C Proven] struct {
	cfg    Config[C]
	logs   *rate.Limiter
	readyc map[string]chan C // by queue; the map does not change
	life   life.Group        // of the proofs, not of a call
	closed error

	proven, failed, shed, acceptErrors atomic.Uint64
}

// Listen begins to take connections. The listener ends with Close, and when all
// sources have ended.
func Listen[C Proven](cfg Config[C], sources ...Source) *Listener[C] {
	if cfg.Queue == nil {
		cfg.Queues, cfg.Queue = []string{""}, func(C) string { return "" }
	}
	l := &Listener[C]{
		cfg:    cfg,
		logs:   rate.NewLimiter(LogsPerSecond, LogsPerSecond),
		readyc: make(map[string]chan C),
		closed: fmt.Errorf("%s: accept: %w", cfg.Room, net.ErrClosed),
	}
	for _, name := range cfg.Queues {
		l.readyc[name] = make(chan C)
	}
	var open atomic.Int64
	open.Store(int64(len(sources)))
	for _, next := range sources {
		l.life.Go(func(ctx context.Context) {
			l.take(ctx, next)
			if open.Add(-1) == 0 {
				l.end()
			}
		})
	}
	return l
}

// Stats returns the counters.
func (l *Listener[C]) Stats() Stats {
	return Stats{
		Proven:       l.proven.Load(),
		Failed:       l.failed.Load(),
		Shed:         l.shed.Load(),
		AcceptErrors: l.acceptErrors.Load(),
	}
}

// Held returns how many connections have a place.
func (l *Listener[C]) Held() int { return l.cfg.Gate.Held() }

// Accept returns the next proven connection of a queue. It blocks until there is
// one, ctx ends, or the listener does; then the error matches net.ErrClosed.
func (l *Listener[C]) Accept(ctx context.Context, queue string) (conn C, err error) {
	readyc, ok := l.readyc[queue]
	if !ok {
		return conn, fmt.Errorf("%s: accept %.40q: not in Config.Services", l.cfg.Room, queue)
	}
	if l.life.Ended() {
		return conn, l.closed
	}
	select {
	case conn = <-readyc:
		return conn, nil
	case <-ctx.Done():
		return conn, fmt.Errorf("%s: accept: %w", l.cfg.Room, ctx.Err())
	case <-l.life.Done():
		return conn, l.closed
	}
}

// Close stops the sources, ends the proofs under way, closes the connections
// that were not accepted, and returns when all of that is done. It may be called
// from anywhere and more than once.
func (l *Listener[C]) Close() error {
	l.end()
	l.life.Close()
	return nil
}

func (l *Listener[C]) end() {
	if l.life.End() && l.cfg.Stop != nil {
		l.cfg.Stop()
	}
}

func (l *Listener[C]) take(ctx context.Context, next Source) {
	pauses := pause.Backoff(FirstPause, LongestPause)
	for ctx.Err() == nil {
		conn, err := next(ctx)
		switch {
		case err == nil:
			pauses.Reset()
			l.admit(ctx, conn)
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return
		default:
			retry := pauses.NextBackOff()
			l.acceptErrors.Add(1)
			l.log("accept failed", "error", err, "retry", retry)
			_ = pause.For(ctx, retry)
		}
	}
}

// admit begins a proof if the gate lets conn in. The connection that makes room
// is waited for, so the bounds hold at every moment; closing it ends its proof at
// once.
func (l *Listener[C]) admit(ctx context.Context, conn net.Conn) {
	v := l.cfg.Gate.Admit(conn, time.Now())
	for v.Wait > 0 && pause.Until(ctx, v.Wait, v.Freed) == nil {
		v = l.cfg.Gate.Admit(conn, time.Now())
	}
	if v.In == nil {
		l.shed.Add(1)
		_ = conn.Close()
		return
	}
	if v.Out != nil {
		l.shed.Add(1)
		_ = v.Out.Conn.Close()
		<-v.Out.donec
	}
	if l.cfg.Starts != nil {
		// The wait is short, bounded by the burst, and done with Close.
		_ = l.cfg.Starts.Wait(ctx)
	}
	if !l.life.Go(func(ctx context.Context) { l.serve(ctx, v.In) }) {
		l.failed.Add(1)
		v.In.Leave()
		_ = conn.Close()
	}
}

func (l *Listener[C]) serve(ctx context.Context, p *Place) {
	defer p.Leave()
	conn, err := l.cfg.Prove(ctx, p.Conn)
	if l.cfg.Keep && !p.Keep() {
		_ = p.Conn.Close() // counted when its place was lost
		return
	}
	if err != nil {
		select {
		case <-p.Lost(): // which is why; it is counted
		default:
			l.failed.Add(1)
			l.log("handshake failed", "error", err)
		}
		return
	}
	l.proven.Add(1)
	late := time.NewTimer(AcceptTimeout)
	defer late.Stop()
	select {
	case l.readyc[l.cfg.Queue(conn)] <- conn:
		return
	case <-late.C:
		l.shed.Add(1)
		l.log("not accepted: connection closed", "peer", conn.Peer().Device, "queue", l.cfg.Queue(conn), "after", AcceptTimeout)
	case <-p.Lost(): // counted when its place was lost
	case <-ctx.Done():
	}
	_ = conn.Close()
}

func (l *Listener[C]) log(msg string, args ...any) {
	if l.logs.Allow() {
		l.cfg.Logger.Debug(l.cfg.Carrier+" listener: "+msg, args...)
	}
}

// Within runs a proof over conn that ctx bounds in time, and limit if it is above
// zero. Without success it closes conn. missing is what its error says that the
// far end has not done within limit; that error matches os.ErrDeadlineExceeded.
func Within[C io.Closer](ctx context.Context, conn net.Conn, limit time.Duration, missing string, proof func() (C, error)) (C, error) {
	limited, cancel := ctx, func() {}
	if limit > 0 {
		limited, cancel = context.WithTimeout(ctx, limit)
	}
	defer cancel()
	// A deadline in the past wakes a goroutine that waits for the far end.
	stop := context.AfterFunc(limited, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	out, err := proof()
	if !stop() && err == nil {
		_ = out.Close()
		err = limited.Err()
	}
	switch {
	case err == nil:
		return out, nil
	case ctx.Err() != nil:
		err = ctx.Err()
	case limited.Err() != nil:
		err = fmt.Errorf("the far end has not %s after %s: %w", missing, limit, os.ErrDeadlineExceeded)
	}
	_ = conn.Close()
	var none C
	return none, err
}
