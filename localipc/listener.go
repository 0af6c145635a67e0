package localipc

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
	// acceptTimeout is how long a proven stream waits for Accept, in its
	// handshake's place, before it is closed.
	acceptTimeout = 10 * time.Second
	// logsPerSecond bounds what others can make a listener write.
	logsPerSecond = 10

	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
)

// Stats counts what a Listener has done since it was opened.
type Stats struct {
	// Proven is the number of finished handshakes.
	Proven uint64
	// Failed is the number of handshakes that failed, for whatever reason.
	Failed uint64
	// Shed is the number of streams that lost their place to a newer one or were
	// proven but not accepted within 10 s.
	Shed uint64
	// AcceptErrors is how often the system refused to hand out a connection,
	// usually for want of file descriptors.
	AcceptErrors uint64
}

// Listener takes calls from processes of this machine and proves their devices.
// Handshakes run concurrently, at most 64; above that, one older than 1 s loses
// its place to a newer one. Make one with Listen. Its methods may be called
// concurrently.
type Listener struct {
	cfg     Config
	door    *doorway
	pending pending
	logs    *rate.Limiter
	readyc  map[string]chan proven // by service; the map does not change

	ctx    context.Context // ends with Close; the handshakes' life, not a call's
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once

	proven, failed, shed, acceptErrors atomic.Uint64
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
	l := &Listener{
		cfg:    cfg,
		door:   door,
		logs:   rate.NewLimiter(logsPerSecond, logsPerSecond),
		readyc: map[string]chan proven{streamService: make(chan proven)},
	}
	for _, s := range cfg.Services {
		l.readyc[s] = make(chan proven)
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(l.acceptLoop)
	return l, nil
}

// Name returns "unix", on Windows too.
func (l *Listener) Name() string { return "unix" }

// Path returns where the socket or the pipe is.
func (l *Listener) Path() string { return l.door.path() }

// Stats returns the counters.
func (l *Listener) Stats() Stats {
	return Stats{
		Proven:       l.proven.Load(),
		Failed:       l.failed.Load(),
		Shed:         l.shed.Load(),
		AcceptErrors: l.acceptErrors.Load(),
	}
}

// Accept returns the next proven stream, a *Conn. It blocks until there is one,
// ctx ends, or the listener is closed; then the error matches net.ErrClosed.
func (l *Listener) Accept(ctx context.Context) (net.Conn, identity.Peer, error) {
	p, err := l.accept(ctx, streamService)
	if err != nil {
		return nil, identity.Peer{}, err
	}
	return newConn(p, l.Path()), p.peer, nil
}

// AcceptUnix is Accept for one of Config.Services, which then owns the socket.
func (l *Listener) AcceptUnix(ctx context.Context, service string) (*net.UnixConn, identity.Peer, error) {
	p, err := l.accept(ctx, service)
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

var errListenerClosed = fmt.Errorf("localipc: accept: %w", net.ErrClosed)

func (l *Listener) accept(ctx context.Context, service string) (proven, error) {
	readyc, ok := l.readyc[service]
	if !ok {
		return proven{}, fmt.Errorf("localipc: accept %.40q: not in Config.Services", service)
	}
	if l.ctx.Err() != nil {
		return proven{}, errListenerClosed
	}
	select {
	case p := <-readyc:
		return p, nil
	case <-ctx.Done():
		return proven{}, fmt.Errorf("localipc: accept: %w", ctx.Err())
	case <-l.ctx.Done():
		return proven{}, errListenerClosed
	}
}

// Close stops listening, removes the socket and the announcement, ends the
// handshakes under way, closes the streams that nobody has accepted, and
// returns when all of that is done. It may be called from anywhere and more
// than once.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.cancel()
		// What could fail here is an earlier Close, and there is none.
		_ = l.door.Close()
		l.wg.Wait()
	})
	return nil
}

// acceptLoop serves the socket. Running out of descriptors or memory is met by
// waiting: streams that end give theirs back.
func (l *Listener) acceptLoop() {
	wait := minBackoff
	for l.ctx.Err() == nil {
		conn, err := l.door.Accept()
		switch {
		case err == nil:
			wait = minBackoff
			l.admit(conn)
		case l.ctx.Err() != nil:
			return
		default:
			l.acceptErrors.Add(1)
			l.log("accept failed", "error", err, "retry", wait)
			l.sleep(wait, nil)
			wait = min(2*wait, maxBackoff)
		}
	}
}

// sleep waits for d, for wake, or for Close.
func (l *Listener) sleep(d time.Duration, wake <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-l.ctx.Done():
	}
}

func (l *Listener) admit(conn net.Conn) {
	s, wait, freed := l.pending.enter(conn, time.Now())
	for s == nil {
		l.sleep(wait, freed)
		if l.ctx.Err() != nil {
			_ = conn.Close()
			return
		}
		s, wait, freed = l.pending.enter(conn, time.Now())
	}
	l.wg.Go(func() { l.serve(s) })
}

func (l *Listener) serve(s *slot) {
	defer l.pending.leave(s)
	p, err := l.cfg.answer(l.ctx, s.conn)
	switch held := l.pending.keep(s); {
	case !held:
		l.shed.Add(1)
		_ = s.conn.Close()
	case err != nil:
		l.failed.Add(1)
		l.log("handshake failed", "error", err)
	default:
		l.proven.Add(1)
		l.deliver(p)
	}
}

// deliver hands a proven stream to whoever accepts its service.
func (l *Listener) deliver(p proven) {
	late := time.NewTimer(acceptTimeout)
	defer late.Stop()
	select {
	case l.readyc[p.service] <- p:
		return
	case <-late.C:
		l.shed.Add(1)
		l.log("nobody accepts: stream closed", "peer", p.peer.Device, "service", p.service, "after", acceptTimeout)
	case <-l.ctx.Done():
	}
	_ = p.conn.Close()
}

func (l *Listener) log(msg string, args ...any) {
	if l.logs.Allow() {
		l.cfg.Logger.Debug("unix listener: "+msg, args...)
	}
}
