package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"peerlink/identity"
)

const (
	// maxConns is how many connections a server holds: each open channel of a
	// command is one, and each costs two file descriptors at most.
	maxConns = 256
	// takeTimeout is how long an announced channel waits to be taken.
	takeTimeout = 10 * time.Second
	// acceptPause is how long a server waits when the system has no more file
	// descriptors.
	acceptPause = 50 * time.Millisecond
)

// A Handler answers one request. ctx ends when the command has gone or the
// server closes. An error before Answer is the answer; after it the connection
// just ends.
type Handler func(ctx context.Context, c *Call) error

// Config is what a Server is made of.
type Config struct {
	// Handlers are what can be asked for, by its name.
	Handlers map[string]Handler
	// Logger gets what no command is told. nil: nothing is logged.
	Logger *slog.Logger
}

// Server answers commands. Its methods may be called concurrently.
type Server struct {
	cfg    Config
	l      net.Listener
	ctx    context.Context
	cancel context.CancelFunc
	places chan struct{}
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	over  bool
}

// Serve answers on a listener, which it owns: that of Bind, one that systemd
// has opened, or any other. It returns at once; Close ends it.
func Serve(l net.Listener, cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, l: l, places: make(chan struct{}, maxConns), conns: map[net.Conn]struct{}{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.accept)
	return s
}

// Close ends all connections and waits for the handlers.
func (s *Server) Close() error {
	s.cancel()
	err := s.l.Close()
	s.mu.Lock()
	s.over = true
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

func (s *Server) accept() {
	for {
		select {
		case s.places <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		conn, err := s.l.Accept()
		if err != nil {
			<-s.places
			if errors.Is(err, net.ErrClosed) || s.ctx.Err() != nil {
				return
			}
			s.cfg.Logger.Warn("control: accept", "err", err)
			select {
			case <-time.After(acceptPause):
				continue
			case <-s.ctx.Done():
				return
			}
		}
		s.wg.Go(func() {
			defer func() { <-s.places }()
			s.serve(conn)
		})
	}
}

// serve answers one connection.
func (s *Server) serve(conn net.Conn) {
	defer conn.Close()
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	s.conns[conn] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, conn)
	}()
	if uid, pid, err := peerOf(conn); err != nil || uid != selfUser() {
		s.cfg.Logger.Warn("control: refused a process of another user", "uid", uid, "pid", pid, "err", err)
		return
	}
	w := newWire(conn)
	c, err := greet(w)
	if err != nil {
		s.cfg.Logger.Debug("control: no request", "err", err)
		return
	}
	h := s.cfg.Handlers[c.op]
	if h == nil {
		_ = w.writeMessage(answer{Error: &Error{Text: fmt.Sprintf("the daemon cannot do %.40q: restart it, with the same release of peerchat", c.op)}})
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	c.watch(cancel)
	if err := h(ctx, c); err != nil && !c.answered {
		_ = conn.SetWriteDeadline(time.Now().Add(greetTimeout))
		_ = w.writeMessage(answer{Error: asError(err)})
	}
	_ = conn.Close() // and so the watch ends
	c.unwatch()
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
	w        *wire
	op       string
	body     json.RawMessage
	answered bool
	watching chan struct{} // closed when the watch has ended
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
	c.answered = true
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.w.writeMessage(answer{Body: b})
}

// Conn answers that a channel is there and makes the connection carry it. The
// handler's ctx says nothing from then on; a command that goes away is an error
// of Read.
func (c *Call) Conn(uri string, self, peer identity.Peer) (*Conn, error) {
	_ = c.w.conn.SetReadDeadline(time.Unix(1, 0)) // ends the watch
	<-c.watching
	_ = c.w.conn.SetReadDeadline(time.Time{})
	if err := c.Answer(Channel{uri, DeviceOf(self), DeviceOf(peer)}); err != nil {
		return nil, err
	}
	return newConn(c.w, uri, self, peer), nil
}
