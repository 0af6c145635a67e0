package shm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"peerlink/identity"
)

const (
	// maxPending is how many set-ups run, and how many streams wait for Accept,
	// at once; each may hold a region.
	maxPending = 16
	// acceptTimeout is how long a stream waits for Accept before it is closed.
	acceptTimeout = 10 * time.Second
	// logsPerSecond bounds what peers can make a listener write.
	logsPerSecond = 10
	// retryPause is how long a listener rests when the local one has failed.
	retryPause = 100 * time.Millisecond
)

// ListenerStats counts what a Listener has done since it was opened.
type ListenerStats struct {
	// Accepted is the number of streams that were handed out.
	Accepted uint64
	// Failed is the number of set-ups that failed, for whatever reason.
	Failed uint64
	// Shed is the number of streams that nobody accepted within 10 s.
	Shed uint64
}

// Listener yields streams that other processes of this machine ask for. Make
// one with Listen. Its methods may be called concurrently.
type Listener struct {
	cfg    Config
	local  LocalListener
	logs   *rate.Limiter
	places chan struct{}
	readyc chan *Conn

	ctx    context.Context // ends with Close; the set-ups' life, not a call's
	cancel context.CancelFunc
	wg     sync.WaitGroup

	accepted, failed, shed atomic.Uint64
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
	l := &Listener{
		cfg:    cfg,
		local:  local,
		logs:   rate.NewLimiter(logsPerSecond, logsPerSecond),
		places: make(chan struct{}, maxPending),
		readyc: make(chan *Conn),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(l.acceptLoop)
	return l, nil
}

// Name returns "shm".
func (l *Listener) Name() string { return "shm" }

// Stats returns the counters.
func (l *Listener) Stats() ListenerStats {
	return ListenerStats{Accepted: l.accepted.Load(), Failed: l.failed.Load(), Shed: l.shed.Load()}
}

var errListenerClosed = fmt.Errorf("shm: accept: %w", net.ErrClosed)

// Accept returns the next stream, a *Conn. It blocks until there is one, ctx
// ends, or this listener or the local one is closed; then the error matches
// net.ErrClosed.
func (l *Listener) Accept(ctx context.Context) (net.Conn, identity.Peer, error) {
	if l.ctx.Err() != nil {
		return nil, identity.Peer{}, errListenerClosed
	}
	select {
	case conn := <-l.readyc:
		l.accepted.Add(1)
		return conn, conn.peer, nil
	case <-ctx.Done():
		return nil, identity.Peer{}, fmt.Errorf("shm: accept: %w", ctx.Err())
	case <-l.ctx.Done():
		return nil, identity.Peer{}, errListenerClosed
	}
}

// Close ends the set-ups under way, closes the streams that nobody has
// accepted, and returns when that is done. It may be called from anywhere and
// more than once.
func (l *Listener) Close() error {
	l.cancel()
	l.wg.Wait()
	return nil
}

func (l *Listener) acceptLoop() {
	defer l.cancel() // a local listener that is closed ends this one
	for {
		select {
		case l.places <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		raw, peer, err := l.local.AcceptUnix(l.ctx, Service)
		switch {
		case err == nil:
			l.wg.Go(func() { l.serve(raw, peer) })
			continue
		case l.ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		}
		<-l.places
		l.log("accept failed", "error", err, "retry", retryPause)
		if !l.rest() {
			return
		}
	}
}

// rest waits for a moment; false means that the listener is closed.
func (l *Listener) rest() bool {
	t := time.NewTimer(retryPause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}

func (l *Listener) serve(raw *net.UnixConn, peer identity.Peer) {
	defer func() { <-l.places }()
	conn, err := l.cfg.offer(l.ctx, raw, peer)
	if err != nil {
		l.failed.Add(1)
		l.log("set-up failed", "peer", peer.Device, "error", err)
		return
	}
	late := time.NewTimer(acceptTimeout)
	defer late.Stop()
	select {
	case l.readyc <- conn:
		return
	case <-late.C:
		l.shed.Add(1)
		l.log("nobody accepts: stream closed", "peer", peer.Device, "after", acceptTimeout)
	case <-l.ctx.Done():
	}
	_ = conn.Close()
}

func (l *Listener) log(msg string, args ...any) {
	if l.logs.Allow() {
		l.cfg.Logger.Debug("shm listener: "+msg, args...)
	}
}
