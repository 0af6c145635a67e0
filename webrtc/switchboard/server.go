package switchboard

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
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
	joinTimeout  = 10 * time.Second
	writeTimeout = 10 * time.Second
	pingEvery    = 30 * time.Second
	pingTimeout  = 15 * time.Second
)

// ServerConfig bounds a Server. Its zero value is usable.
type ServerConfig struct {
	// Trust is asked about each device that joins. nil allows all. The devices of
	// which it says that they are members have lines, and room for what waits for
	// them, apart from all others. nil: there are no members.
	Trust *identity.Trust
	// Origins are the hosts from which web pages may connect, as patterns
	// ("app.example", "*.example"), besides the server's own.
	Origins []string
	// MaxDevices bounds the lines of devices that are not members, and those of
	// members: 4 096 each, and never more than a tenth of the files that the process
	// may open. A quarter as many more can be there that have not proven themselves.
	MaxDevices int
	// MaxPerAddress bounds the lines of one IPv4 address or IPv6 /64 that are not a
	// member's: 64, and as many that have not proven themselves.
	MaxPerAddress int
	// Rate is how many messages one device may send in a second: 50, and twice
	// as many at once. What is more is read later.
	Rate float64
	// Logger gets what no caller is told. nil: nothing is logged.
	Logger *slog.Logger
}

// Server is the switchboard: an http.Handler that takes WebSockets. Make one
// with NewServer. All methods may be called concurrently. Whoever serves it without
// Serve or ServeSite bounds the connections that ask for nothing.
type Server struct {
	cfg ServerConfig
	log *slog.Logger

	joining *quota.Quota[netip.Prefix] // by address: nothing is proven yet
	lines   *quota.Quota[netip.Prefix] // of devices that are not members: keys are free
	own     *quota.Quota[identity.DeviceID]

	mu      sync.Mutex
	members map[identity.DeviceID]*member
	seated  uint64     // lines since the start
	waiting [kinds]int // bytes of letters, by the kind of the line that they wait for
}

// NewServer returns a Server that has no lines yet.
func NewServer(cfg ServerConfig) *Server {
	cfg.MaxDevices = cmp.Or(max(cfg.MaxDevices, 0), defaultDevices)
	cfg.MaxPerAddress = cmp.Or(max(cfg.MaxPerAddress, 0), defaultPerAddress)
	cfg.Rate = cmp.Or(max(cfg.Rate, 0), defaultRate)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if files, known := openFiles(); known && files/10 < cfg.MaxDevices {
		cfg.MaxDevices = max(1, files/10)
		cfg.Logger.Warn("switchboard: few files may be open at once, so there are fewer places for lines", "files", files, "lines", cfg.MaxDevices)
	}
	return &Server{
		cfg: cfg, log: cfg.Logger, members: make(map[identity.DeviceID]*member),
		joining: quota.New[netip.Prefix](cfg.MaxPerAddress, max(cfg.MaxDevices/4, cfg.MaxPerAddress)),
		lines:   quota.New[netip.Prefix](cfg.MaxPerAddress, cfg.MaxDevices),
		own:     quota.New[identity.DeviceID](1, cfg.MaxDevices),
	}
}

// member is a device that has proven itself.
type member struct {
	peer identity.Peer
	kind kind
	at   netip.Prefix
	card []byte
	sum  cardSum
	outc chan queued
	end  context.CancelCauseFunc

	number  uint64         // guarded by Server.mu: the oldest line has the lowest
	letters [kinds]waiting // guarded by Server.mu: what waits in outc, by the kind of its sender
	cut     bool           // guarded by Server.mu: it is no line any more
	leaving bool           // guarded by Server.mu: it is told so, in a place of joining
}

var errFull = errors.New("the switchboard is full")

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

// ServeHTTP takes one line and returns when it ends.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := quota.Host(r.RemoteAddr)
	if s.joining.Take(at) != nil {
		http.Error(w, errFull.Error(), http.StatusServiceUnavailable)
		return
	}
	joined := sync.OnceFunc(func() { s.joining.Release(at) })
	defer joined()
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
	m.at, m.end = at, end
	if err := s.seat(m); err != nil {
		s.log.Debug("switchboard: no place", "from", r.RemoteAddr, "device", m.peer.Device, "err", err)
		ws.Close(websocket.StatusTryAgainLater, errFull.Error())
		return
	}
	defer s.unseat(m)
	joined()
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
	m := &member{peer: c.peer, card: f.body, sum: c.sum, outc: make(chan queued, queueLen)}
	if s.cfg.Trust.Member(c.peer) {
		m.kind = members
	}
	return m, nil
}

// joinStatement is what a client signs. The host keeps a server from joining
// another one in its clients' names.
func joinStatement(nonce []byte, sum cardSum, host string) []byte {
	b := append([]byte(nil), nonce...)
	b = append(b, sum[:]...)
	return append(b, host...)
}

// seat makes a member known, in its own kind's room; an older line of the device
// ends. Where strangers have all their lines, one of the address with most ends for
// an address with fewer.
func (s *Server) seat(m *member) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.members[m.peer.Device]; old != nil {
		s.cutOff(old, errReplaced)
	}
	err := s.take(m)
	if errors.Is(err, quota.ErrAll) && m.kind == strangers && s.makePlace(m.at) {
		err = s.take(m)
	}
	if err != nil {
		return err
	}
	s.seated++
	m.number = s.seated
	m.outc <- queued{answer: frame{op: opJoined}} // the first in a queue that is empty
	s.members[m.peer.Device] = m
	return nil
}

func (s *Server) take(m *member) error {
	if m.kind == members {
		return s.own.Take(m.peer.Device)
	}
	return s.lines.Take(m.at)
}

// makePlace ends the oldest line of the address with most, unless a newcomer's has
// as many. The caller holds mu.
func (s *Server) makePlace(newcomer netip.Prefix) bool {
	lines := make(map[netip.Prefix]int)
	for _, m := range s.members {
		if m.kind == strangers {
			lines[m.at]++
		}
	}
	var worst *member
	for _, m := range s.members {
		if m.kind == strangers && lines[m.at] > lines[newcomer]+1 &&
			(worst == nil || cmp.Or(cmp.Compare(lines[m.at], lines[worst.at]), cmp.Compare(worst.number, m.number)) > 0) {
			worst = m
		}
	}
	if worst != nil {
		s.cutOff(worst, errFull)
	}
	return worst != nil
}

func (s *Server) unseat(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutOff(m, nil)
	if m.leaving {
		s.joining.Release(m.at)
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
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		abrupt := m.cut && !m.leaving
		s.mu.Unlock()
		if abrupt {
			_ = ws.CloseNow() // or the write that waits would hold its letter still
		}
	})()
	go func() {
		err := s.pump(ctx, ws, m)
		if why := context.Cause(ctx); goodbye(why) != 0 {
			ws.Close(goodbye(why), why.Error())
		}
		cut()
		wrote <- err
	}()
	err := s.listen(rctx, ws, m)
	m.end(err)
	return errors.Join(err, <-wrote)
}

// pump writes what waits for a line, and pings.
func (s *Server) pump(ctx context.Context, ws *websocket.Conn, m *member) error {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		select {
		case q := <-m.outc:
			// Not ctx itself: a line that is replaced is still told so.
			wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
			err := s.write(wctx, ws, q)
			cancel()
			s.written(m, q)
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
			answer.op, answer.device = opAsk, f.device
		case opSend:
			answer.op = s.pass(m.kind, f)
		default:
			return fmt.Errorf("message %d is not for a server", f.op)
		}
		select {
		case m.outc <- queued{answer: answer}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// write sends what waited for a line. A card is looked up when its turn comes: a
// queue would keep it after its device has gone.
func (s *Server) write(ctx context.Context, ws *websocket.Conn, q queued) error {
	if q.letter != nil {
		return ws.Write(ctx, websocket.MessageBinary, q.letter)
	}
	f := q.answer
	if f.op == opAsk {
		f = frame{op: opAbsent, number: f.number}
		if of := s.member(q.answer.device); of != nil {
			f.op, f.body = opCard, of.card
		}
	}
	return write(ctx, ws, f)
}

func write(ctx context.Context, ws *websocket.Conn, f frame) error {
	b, err := f.encode()
	if err != nil {
		return err
	}
	return ws.Write(ctx, websocket.MessageBinary, b)
}

// read returns the next message. It waits for the first byte as long as ctx allows,
// for the rest so long as a write may take: what has come of it is kept meanwhile.
func read(ctx context.Context, ws *websocket.Conn) (frame, error) {
	kind, r, err := ws.Reader(ctx)
	if err != nil {
		return frame{}, err
	}
	if kind != websocket.MessageBinary {
		return frame{}, errors.New("a text message, want binary")
	}
	late := time.AfterFunc(writeTimeout, func() { _ = ws.CloseNow() })
	b, err := io.ReadAll(r)
	late.Stop()
	if err != nil {
		return frame{}, err
	}
	return decodeFrame(b)
}
