package tlssock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"peerlink/identity"
)

const (
	// acceptTimeout is how long a proven connection waits for Accept, in its
	// handshake's place, before it is closed.
	acceptTimeout = 10 * time.Second
	// logsPerSecond bounds what strangers can make a listener write.
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
	// Shed is the number of connections that were turned away before their
	// handshake, lost their place to a newer one, or were proven but not
	// accepted within 10 s.
	Shed uint64
	// AcceptErrors is how often the system refused to hand out a connection,
	// usually for want of file descriptors.
	AcceptErrors uint64
}

// Listener takes TCP connections and proves who calls. Handshakes run
// concurrently, at most 128 at a time and 32 from one IPv4 /24 or IPv6 /64;
// above that, handshakes older than 5 s lose their place to newer ones, and
// sources that begin more than 20 a second are turned away. Make one with Listen. Its methods may be called
// concurrently.
type Listener struct {
	cfg    Config
	socks  []net.Listener
	gate   gate
	starts *rate.Limiter
	logs   *rate.Limiter
	readyc chan *Conn

	ctx    context.Context // ends with Close; the handshakes' life, not a call's
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once

	proven, failed, shed, acceptErrors atomic.Uint64
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
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.HandshakeTimeout < 0 {
		cfg.HandshakeTimeout = defaultHandshakeTimeout
	}
	l := &Listener{
		cfg:    cfg,
		socks:  socks,
		starts: rate.NewLimiter(rate.Limit(handshakeRate()), maxPending),
		logs:   rate.NewLimiter(logsPerSecond, logsPerSecond),
		readyc: make(chan *Conn),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	for _, s := range socks {
		l.wg.Go(func() { l.acceptFrom(s) })
	}
	return l
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

// Stats returns the counters.
func (l *Listener) Stats() Stats {
	return Stats{
		Proven:       l.proven.Load(),
		Failed:       l.failed.Load(),
		Shed:         l.shed.Load(),
		AcceptErrors: l.acceptErrors.Load(),
	}
}

// Accept returns the next proven connection, a *Conn. It blocks until there is
// one, ctx ends, or the listener is closed; then the error matches
// net.ErrClosed.
func (l *Listener) Accept(ctx context.Context) (net.Conn, identity.Peer, error) {
	if l.ctx.Err() != nil {
		return nil, identity.Peer{}, errListenerClosed
	}
	select {
	case conn := <-l.readyc:
		return conn, conn.Peer(), nil
	case <-ctx.Done():
		return nil, identity.Peer{}, fmt.Errorf("tlssock: accept: %w", ctx.Err())
	case <-l.ctx.Done():
		return nil, identity.Peer{}, errListenerClosed
	}
}

var errListenerClosed = fmt.Errorf("tlssock: accept: %w", net.ErrClosed)

// Close stops listening, ends the handshakes under way, closes the connections
// that nobody has accepted, and returns when all of that is done. It may be
// called from anywhere and more than once.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.cancel()
		for _, s := range l.socks {
			// What could fail here is an earlier Close, and there is none.
			_ = s.Close()
		}
		l.wg.Wait()
	})
	return nil
}

// acceptFrom serves one socket. Running out of descriptors or memory is met by
// waiting: connections that end give theirs back.
func (l *Listener) acceptFrom(sock net.Listener) {
	wait := minBackoff
	for l.ctx.Err() == nil {
		conn, err := sock.Accept()
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

// admit begins a handshake if the gate lets conn in. The slot that makes room
// is waited for, so the bounds hold at every moment; closing its connection
// ends it at once.
func (l *Listener) admit(conn net.Conn) {
	v := l.gate.enter(conn, time.Now())
	for v.wait > 0 && l.ctx.Err() == nil {
		l.sleep(v.wait, v.freed)
		v = l.gate.enter(conn, time.Now())
	}
	if v.in == nil {
		l.shed.Add(1)
		conn.Close()
		return
	}
	if v.out != nil {
		l.shed.Add(1)
		close(v.out.quitc)
		v.out.conn.Close()
		<-v.out.donec
	}
	// The wait is short, bounded by the burst, and done with Close.
	_ = l.starts.Wait(l.ctx)
	l.wg.Go(func() { l.serve(v.in) })
}

func (l *Listener) serve(s *slot) {
	defer close(s.donec)
	defer l.gate.leave(s)
	conn, err := l.cfg.Server(l.ctx, s.conn)
	if err != nil {
		l.failed.Add(1)
		l.log("handshake failed", "error", err)
		return
	}
	l.proven.Add(1)
	late := time.NewTimer(acceptTimeout)
	defer late.Stop()
	select {
	case l.readyc <- conn:
		return
	case <-late.C:
		l.log("nobody accepts: connection closed", "peer", conn.Peer().Device, "after", acceptTimeout)
		l.shed.Add(1)
	case <-s.quitc: // counted by whoever took the place
	case <-l.ctx.Done():
	}
	_ = conn.Close()
}

func (l *Listener) log(msg string, args ...any) {
	if l.logs.Allow() {
		l.cfg.Logger.Debug("tcp listener: "+msg, args...)
	}
}
