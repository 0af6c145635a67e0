package switchboard

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/time/rate"

	"peerlink/identity"
	"peerlink/internal/quota"
)

// Bounds of one line, and defaults of ServerConfig.
const (
	defaultDevices    = 4096
	defaultPerAddress = 64
	defaultRate       = 50
	// joinTimeout is what a stranger has to prove itself.
	joinTimeout = 10 * time.Second
	// queueLen is how many messages may wait for a slow device.
	queueLen     = 64
	writeTimeout = 10 * time.Second
	// idleTimeout ends a connection that asks for nothing more.
	idleTimeout = time.Minute
	pingEvery   = 30 * time.Second
	pingTimeout = 15 * time.Second
)

// ServerConfig bounds a Server. Its zero value is usable.
type ServerConfig struct {
	// Trust is asked about each device that joins. nil allows all.
	Trust *identity.Trust
	// Origins are the hosts from which web pages may connect, as patterns
	// ("app.example", "*.example"), besides the server's own.
	Origins []string
	// MaxDevices bounds the lines, those that are not proven included: 4 096.
	MaxDevices int
	// MaxPerAddress bounds those of one IPv4 address or IPv6 /64: 64.
	MaxPerAddress int
	// Rate is how many messages one device may send in a second: 50, and twice
	// as many at once. What is more is read later.
	Rate float64
	// Logger gets what no caller is told. nil: nothing is logged.
	Logger *slog.Logger
}

// Server is the switchboard: an http.Handler that takes WebSockets. Make one
// with NewServer. All methods may be called concurrently.
type Server struct {
	cfg ServerConfig
	log *slog.Logger

	lines *quota.Quota[netip.Prefix]

	mu      sync.Mutex
	members map[identity.DeviceID]*member
}

// NewServer returns a Server that has no lines yet.
func NewServer(cfg ServerConfig) *Server {
	cfg.MaxDevices = cmp.Or(max(cfg.MaxDevices, 0), defaultDevices)
	cfg.MaxPerAddress = cmp.Or(max(cfg.MaxPerAddress, 0), defaultPerAddress)
	cfg.Rate = cmp.Or(max(cfg.Rate, 0), defaultRate)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	return &Server{cfg: cfg, log: cfg.Logger, lines: quota.New[netip.Prefix](cfg.MaxPerAddress, cfg.MaxDevices), members: make(map[identity.DeviceID]*member)}
}

// member is a device that has proven itself.
type member struct {
	peer identity.Peer
	card []byte
	sum  cardSum
	outc chan frame
	end  context.CancelCauseFunc
}

var errReplaced = errors.New("a newer line of this device has taken its place")

// statusReplaced tells a client that it must not come back by itself
// (RFC 6455, section 7.4.2: 4000 and up are an application's own).
const statusReplaced websocket.StatusCode = 4001

// ListenAndServe is Listen and Serve.
func (s *Server) ListenAndServe(ctx context.Context, addr, certFile, keyFile string) error {
	l, err := Listen(ctx, addr, certFile, keyFile)
	if err != nil {
		return err
	}
	return s.Serve(ctx, l)
}

// Serve takes lines of l, which it closes, until ctx ends. It returns nil then,
// once all lines have ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if err := ServeSite(ctx, l, s, s.log); err != nil {
		return fmt.Errorf("switchboard: %w", err)
	}
	return nil
}

// ServeSite answers the requests of l, which it closes, until ctx ends. It returns
// nil then, once all requests have ended: also the lines of a Server that is part
// of h. log gets what no caller is told.
func ServeSite(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	var running sync.WaitGroup
	lines, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running.Add(1)
			defer running.Done()
			h.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: joinTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return lines },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	err := srv.Serve(l)
	stop()
	cancel()
	running.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// ServeHTTP takes one line and returns when it ends.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := quota.Host(r.RemoteAddr)
	if s.lines.Take(at) != nil {
		http.Error(w, "the switchboard is full", http.StatusServiceUnavailable)
		return
	}
	defer s.lines.Release(at)
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{Protocol}, OriginPatterns: s.cfg.Origins})
	if err != nil {
		s.log.Debug("switchboard: no websocket", "from", r.RemoteAddr, "err", err)
		return
	}
	defer func() { _ = ws.CloseNow() }()
	if ws.Subprotocol() != Protocol {
		ws.Close(websocket.StatusPolicyViolation, "want subprotocol "+Protocol)
		return
	}
	ws.SetReadLimit(maxFrame)
	ctx, end := context.WithCancelCause(r.Context())
	defer end(nil)
	m, err := s.join(ctx, ws, r.Host)
	if err != nil {
		s.log.Debug("switchboard: join refused", "from", r.RemoteAddr, "err", err)
		ws.Close(websocket.StatusPolicyViolation, joinRefusal(err))
		return
	}
	m.end = end
	s.seat(m)
	defer s.unseat(m)
	err = s.serve(ctx, ws, m)
	s.log.Debug("switchboard: line ended", "device", m.peer.Device, "err", err)
}

func joinRefusal(err error) string {
	if errors.Is(err, identity.ErrNotTrusted) {
		return "this device is not trusted here"
	}
	return "the device has not proven itself"
}

// join has the stranger prove which device it is.
func (s *Server) join(ctx context.Context, ws *websocket.Conn, host string) (*member, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	var nonce [nonceLen]byte
	rand.Read(nonce[:])
	if err := write(ctx, ws, frame{op: opChallenge, body: nonce[:]}); err != nil {
		return nil, err
	}
	f, err := read(ctx, ws)
	if err != nil {
		return nil, err
	}
	if f.op != opJoin {
		return nil, fmt.Errorf("message %d before the join", f.op)
	}
	c, err := decodeCard(f.body, time.Now())
	if err != nil {
		return nil, err
	}
	if err := c.peer.Verify(joinPurpose, joinStatement(nonce[:], c.sum, host), f.extra); err != nil {
		return nil, err
	}
	if err := s.cfg.Trust.Check(c.peer); err != nil {
		return nil, err
	}
	return &member{peer: c.peer, card: f.body, sum: c.sum, outc: make(chan frame, queueLen)}, nil
}

// joinStatement is what a client signs. The host keeps a server from joining
// another one in its clients' names.
func joinStatement(nonce []byte, sum cardSum, host string) []byte {
	b := append([]byte(nil), nonce...)
	b = append(b, sum[:]...)
	return append(b, host...)
}

// seat makes a member known; an older line of the device ends.
func (s *Server) seat(m *member) {
	m.outc <- frame{op: opJoined} // the first in a queue that is empty
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.members[m.peer.Device]; old != nil {
		old.end(errReplaced)
	}
	s.members[m.peer.Device] = m
}

func (s *Server) unseat(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.members[m.peer.Device] == m {
		delete(s.members, m.peer.Device)
	}
}

func (s *Server) member(id identity.DeviceID) *member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.members[id]
}

// serve runs a member's line until it ends.
func (s *Server) serve(ctx context.Context, ws *websocket.Conn, m *member) error {
	// Ending ctx while a read waits would cut the WebSocket before it could say
	// why; so reads have a context of their own, which the writer's end cuts.
	rctx, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	wrote := make(chan error, 1)
	go func() {
		err := pump(ctx, ws, m.outc)
		if errors.Is(context.Cause(ctx), errReplaced) {
			ws.Close(statusReplaced, errReplaced.Error())
		}
		cut()
		wrote <- err
	}()
	err := s.listen(rctx, ws, m)
	m.end(err)
	return errors.Join(err, <-wrote)
}

// pump writes what waits for a line, and pings.
func pump(ctx context.Context, ws *websocket.Conn, outc <-chan frame) error {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		select {
		case f := <-outc:
			// Not ctx itself: a line that is replaced is still told so.
			wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
			err := write(wctx, ws, f)
			cancel()
			if err != nil {
				return err
			}
		case <-ping.C:
			pctx, cancel := context.WithTimeout(ctx, pingTimeout)
			err := ws.Ping(pctx)
			cancel()
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Server) listen(ctx context.Context, ws *websocket.Conn, m *member) error {
	limit := rate.NewLimiter(rate.Limit(s.cfg.Rate), max(1, int(2*s.cfg.Rate)))
	for {
		if err := limit.Wait(ctx); err != nil {
			return err
		}
		f, err := read(ctx, ws)
		if err != nil {
			return err
		}
		answer := frame{number: f.number}
		switch f.op {
		case opAsk:
			answer.op = opAbsent
			if to := s.member(f.device); to != nil {
				answer.op, answer.body = opCard, to.card
			}
		case opSend:
			answer.op = s.pass(f)
		default:
			return fmt.Errorf("message %d is not for a server", f.op)
		}
		select {
		case m.outc <- answer:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pass hands a letter on and tells how that went. It does not wait.
func (s *Server) pass(f frame) op {
	to := s.member(f.device)
	switch {
	case to == nil:
		return opAbsent
	case string(to.sum[:]) != string(f.extra):
		return opStale
	}
	select {
	case to.outc <- frame{op: opLetter, body: f.body}:
		return opTaken
	default:
		return opBusy
	}
}

func write(ctx context.Context, ws *websocket.Conn, f frame) error {
	b, err := f.encode()
	if err != nil {
		return err
	}
	return ws.Write(ctx, websocket.MessageBinary, b)
}

func read(ctx context.Context, ws *websocket.Conn) (frame, error) {
	kind, b, err := ws.Read(ctx)
	if err != nil {
		return frame{}, err
	}
	if kind != websocket.MessageBinary {
		return frame{}, errors.New("a text message, want binary")
	}
	return decodeFrame(b)
}
