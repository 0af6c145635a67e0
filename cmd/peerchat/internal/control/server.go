package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/pause"
)

const (
	// maxPlaces is how many requests are answered at once. Each open channel of a
	// command is one: 384 may be other devices', which the daemon counts, so at least
	// 256 are commands' own. Each costs two file descriptors at most.
	maxPlaces = 640
	// maxWaiting is how many requests wait for a place, for takeTimeout at most.
	maxWaiting = 64
	// maxAsking is how many connections have not asked yet. One more waits until the
	// oldest has asked, or has been silent for patience and is ended: commands have
	// their request ready.
	maxAsking = 256
	patience  = 200 * time.Millisecond
	// maxUrgent is how many requests are answered that have places of their own.
	maxUrgent = 64
	// takeTimeout is how long an announced channel waits to be taken.
	takeTimeout = 10 * time.Second
	// acceptPause is how long a server waits when the system has no more file
	// descriptors.
	acceptPause = 50 * time.Millisecond
)

// A Handler answers one request. ctx ends when the command has gone or the
// server closes, which the command is told once the handler has returned. Its
// error is the last answer.
type Handler func(ctx context.Context, c *Call) error

// Handlers are what can be asked for, by its name.
type Handlers map[string]Handler

// Config is what a Server is made of.
type Config struct {
	// Handlers are what can be asked for.
	Handlers Handlers
	// Logger gets what no command is told. nil: nothing is logged.
	Logger *slog.Logger
}

// Server answers commands. Its methods may be called concurrently.
type Server struct {
	cfg  Config
	l    net.Listener
	life life.Group

	ordinary, urgent room // for requests

	mu     sync.Mutex
	asking []asker            // connections that have not asked yet, the oldest first
	conns  map[net.Conn]*Call // those that have
	over   bool
	left   pause.Bell // a connection has ended, or asked
}

// room is for requests that are answered, and for some that wait. Each channel has one
// for each that is there.
type room struct{ places, waits chan struct{} }

func newRoom(places int) room {
	return room{make(chan struct{}, places), make(chan struct{}, maxWaiting)}
}

// Serve answers on a listener, which it owns: that of Bind, one that systemd
// has opened, or any other. It returns at once; Close ends it.
func Serve(l net.Listener, cfg Config) *Server {
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	s := &Server{
		cfg: cfg, l: l, conns: map[net.Conn]*Call{},
		ordinary: newRoom(maxPlaces), urgent: newRoom(maxUrgent),
	}
	s.life.Go(s.accept)
	return s
}

// Close tells all commands that the daemon ends, for 2 s at most where one does
// not listen, ends their connections, and waits for the handlers.
func (s *Server) Close() error {
	var last sync.WaitGroup
	s.mu.Lock()
	s.over = true
	s.life.End()
	err := s.l.Close()
	for _, a := range s.asking {
		_ = a.conn.Close()
	}
	for conn, c := range s.conns {
		switch {
		case c.channel != nil:
			last.Go(func() { c.channel.Fail(&EndedError{Told: true}) })
		default: // its handler ends with its ctx
			_ = conn.SetDeadline(time.Now().Add(lastWords))
		}
	}
	s.mu.Unlock()
	last.Wait()
	s.life.Wait()
	return err
}

// Settle blocks until no connection carries a channel, or until ctx ends. Call it
// before Close where the commands are through: what they wrote before they closed
// their ends has then been passed on.
func (s *Server) Settle(ctx context.Context) {
	for {
		left := s.left.Next()
		if !s.carrying() {
			return
		}
		select {
		case <-left:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) carrying() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		if c.channel != nil {
			return true
		}
	}
	return false
}

// asker is a connection that has not asked yet.
type asker struct {
	conn  net.Conn
	since time.Time
}

// admit waits until one more connection may ask.
func (s *Server) admit(ctx context.Context) error {
	for {
		left := s.left.Next()
		s.mu.Lock()
		wait := time.Duration(0)
		if len(s.asking) >= maxAsking {
			if wait = patience - time.Since(s.asking[0].since); wait <= 0 {
				_ = s.asking[0].conn.Close()
				s.asking = slices.Delete(s.asking, 0, 1)
			}
		}
		s.mu.Unlock()
		if wait <= 0 {
			return ctx.Err()
		}
		if err := pause.Until(ctx, wait, left); err != nil {
			return err
		}
	}
}

// asks notes a connection that has not asked yet; false if the server has closed.
func (s *Server) asks(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking = append(s.asking, asker{conn, time.Now()})
	return !s.over
}

// asked notes that a connection has a request; false if it has waited for too long, or
// the server has closed.
func (s *Server) asked(c *Call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.unask(c.w.conn) || s.over {
		return false
	}
	s.conns[c.w.conn] = c
	return true
}

// unask takes a connection from those that have not asked, if it is there. s.mu is held.
func (s *Server) unask(conn net.Conn) bool {
	i := slices.IndexFunc(s.asking, func(a asker) bool { return a.conn == conn })
	if i < 0 {
		return false
	}
	s.asking = slices.Delete(s.asking, i, i+1)
	s.left.Ring()
	return true
}

// forget notes that a connection has ended.
func (s *Server) forget(conn net.Conn) {
	s.mu.Lock()
	s.unask(conn)
	delete(s.conns, conn)
	s.mu.Unlock()
	s.left.Ring()
}

// carries notes that a connection carries a channel; false if the server has
// closed.
func (s *Server) carries(c *Call, ch *Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		c.channel = ch
	}
	return !s.over
}

func (s *Server) accept(ctx context.Context) {
	for s.admit(ctx) == nil {
		conn, err := s.l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return
			}
			s.cfg.Logger.Warn("control: accept", "err", err)
			_ = pause.For(ctx, acceptPause)
			continue
		}
		if !s.asks(conn) || !s.life.Go(func(ctx context.Context) {
			defer s.forget(conn)
			if !s.answer(ctx, conn) {
				_ = conn.Close()
			}
		}) {
			s.forget(conn)
			_ = conn.Close()
			return
		}
	}
}

// answer answers what a connection asks, and tells whether it was detached.
func (s *Server) answer(ctx context.Context, conn net.Conn) (detached bool) {
	if uid, pid, err := peerOf(conn); err != nil || uid != selfUser() {
		s.cfg.Logger.Warn("control: refused a process of another user", "uid", uid, "pid", pid, "err", err)
		return false
	}
	w := newWire(conn)
	c, err := greet(w)
	if err != nil {
		s.cfg.Logger.Debug("control: no request", "err", err)
		return false
	}
	if c.s = s; !s.asked(c) {
		return false
	}
	h := s.cfg.Handlers[c.op]
	if h == nil {
		_ = w.writeMessage(answer{Error: &Error{Text: fmt.Sprintf("the daemon cannot do %.40q: restart it, with the same release of peerchat", c.op)}})
		return false
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.watch(cancel)
	err = s.handle(ctx, c, h)
	switch {
	case c.carried: // it has its own last words
	case s.life.Ended():
		c.refuse(&EndedError{Told: true})
	case err != nil:
		c.refuse(err)
	}
	if c.detached {
		return true
	}
	_ = conn.Close() // and so the watch ends
	c.unwatch()
	return false
}

// urgent reports whether a request has a place apart from others: how a daemon fares
// is told, and it is ended, however much there is to do.
func urgent(op string) bool { return op == string(OpStop) || op == string(OpStatus) }

// errFull is why a request is not answered that has waited for a place.
var errFull = fmt.Errorf("the daemon carries %d channels and requests, which are the most: end some of them, and try again", maxPlaces)

// handle has a request answered when there is a place for it.
func (s *Server) handle(ctx context.Context, c *Call, h Handler) error {
	in := s.ordinary
	if urgent(c.op) {
		in = s.urgent
	}
	select {
	case in.waits <- struct{}{}:
	default:
		return errFull
	}
	within, cancel := context.WithTimeoutCause(ctx, takeTimeout, errFull)
	defer cancel()
	select {
	case in.places <- struct{}{}:
		<-in.waits
	case <-within.Done():
		<-in.waits
		return context.Cause(within)
	}
	defer func() { <-in.places }()
	return h(ctx, c)
}

// refuse says why there is no answer, or no further one.
func (c *Call) refuse(err error) {
	_ = c.w.conn.SetWriteDeadline(time.Now().Add(lastWords))
	_ = c.w.writeMessage(answer{Error: asError(err)})
}

// greet exchanges versions and reads the request.
func greet(w *wire) (*Call, error) {
	_ = w.conn.SetDeadline(time.Now().Add(greetTimeout))
	theirs, err := readGreeting(w.br)
	if err != nil {
		return nil, err
	}
	if _, err := w.conn.Write(greeting()); err != nil { // the other version is told, too
		return nil, err
	}
	if theirs != Version {
		return nil, fmt.Errorf("a command of version %d", theirs)
	}
	var r request
	if err := w.readMessage(maxRequest, &r); err != nil {
		return nil, err
	}
	_ = w.conn.SetDeadline(time.Time{})
	return &Call{w: w, op: r.Op, body: r.Body}, nil
}

// Call is one request. Only its handler uses it.
type Call struct {
	s        *Server
	w        *wire
	op       string
	body     json.RawMessage
	carried  bool          // the connection is a channel's, or nobody's
	detached bool          // nobody's
	watching chan struct{} // closed when the watch has ended
	channel  *Conn         // guarded by Server.mu
}

// watch ends ctx when the command goes away. It looks without taking: what
// comes stays for Conn.
func (c *Call) watch(cancel func()) {
	c.watching = make(chan struct{})
	go func() {
		defer close(c.watching)
		if _, err := c.w.br.Peek(1); err != nil {
			cancel()
		}
	}()
}

func (c *Call) unwatch() { <-c.watching }

// Decode reads the request's body; without one v is left alone.
func (c *Call) Decode(v any) error {
	if len(c.body) == 0 {
		return nil
	}
	if err := strict(c.body, v); err != nil {
		return fmt.Errorf("a request for %q that is not understood: %w", c.op, err)
	}
	return nil
}

// Answer sends an answer; nil is one too. It blocks while the command does not
// read, until it has gone.
func (c *Call) Answer(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.w.writeMessage(answer{Body: b})
}

// Detach takes the connection from the server, which neither closes it any more
// nor says anything on it. The handler's ctx then lasts as long as the server.
func (c *Call) Detach() net.Conn {
	_ = c.w.conn.SetReadDeadline(time.Unix(1, 0)) // ends the watch
	<-c.watching
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	delete(c.s.conns, c.w.conn)
	c.carried, c.detached = true, true
	return c.w.conn
}

// Conn answers that a channel is there and makes the connection carry it. The
// handler's ctx says nothing from then on; a command that goes away is an error
// of Read.
func (c *Call) Conn(uri string, self, peer identity.Peer) (*Conn, error) {
	_ = c.w.conn.SetReadDeadline(time.Unix(1, 0)) // ends the watch
	<-c.watching
	_ = c.w.conn.SetReadDeadline(time.Time{})
	conn := newConn(c.w, uri, self, peer)
	conn.writing.Lock() // nobody says anything before the answer
	defer conn.writing.Unlock()
	if !c.s.carries(c, conn) {
		return nil, &EndedError{Told: true}
	}
	c.carried = true
	if err := c.Answer(Channel{uri, self, peer}); err != nil {
		return nil, err
	}
	return conn, nil
}
