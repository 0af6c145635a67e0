package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/pause"
	"peerlink/internal/quota"
)

const (
	// maxOfDevice is how many connections, listeners and requests one device has that
	// a rule is for, and maxInAll is that of all of these.
	maxOfDevice, maxInAll = 128, 512
	// strangersOfDevice and strangersInAll are those of all others: they are told that
	// they may not, and have no other use for a place.
	strangersOfDevice, strangersInAll = 4, 128
)

// Config is what a Server is made of. All but Contact, AtHome and Logger are required.
type Config struct {
	Rules *Rules
	// Open opens a channel to a device there is a link with.
	Open func(ctx context.Context, device identity.DeviceID, uri string) (net.Conn, error)
	// PeerOf tells with whom a channel is, as proven, and its URI.
	PeerOf func(c net.Conn) (peer identity.Peer, uri string, ok bool)
	// Contact tells by which device rules name the person that somebody belongs
	// to: what those let that device do, all the person's devices may. nil, or
	// false: a rule is for the one device that it names. It may be called at any
	// time and must not call the server.
	Contact func(peer identity.Peer) (device identity.DeviceID, ok bool)
	// AtHome tells whether a rule for a device is for one that has proven itself: it
	// may have come into another account. nil: always. It may be called at any time
	// and must not call the server.
	AtHome func(peer identity.Peer) bool
	// Logger gets what was allowed and refused. nil: nothing is logged.
	Logger *slog.Logger
}

// Server does what the rules let other devices ask for. Its methods may be
// called concurrently.
type Server struct {
	cfg    Config
	life   life.Group
	places *quota.Quota[identity.DeviceID]
	freed  pause.Bell // one of places is free again

	mu   sync.Mutex
	busy map[*ongoing]struct{}
}

// ongoing is a use of a rule.
type ongoing struct {
	peer identity.Peer
	do   string
	addr Address
	end  context.CancelFunc
}

// NewServer makes a server; Close it.
func NewServer(cfg Config) *Server {
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	return &Server{cfg: cfg, places: quota.NewPools[identity.DeviceID](
		quota.Limits{Each: maxOfDevice, All: maxInAll}, quota.Limits{Each: strangersOfDevice, All: strangersInAll}), busy: map[*ongoing]struct{}{}}
}

// Serve answers the channels of a listener, which it closes, until that or the
// server ends. The error of Accept is returned unless the server was closed.
func (s *Server) Serve(l net.Listener) error {
	if !s.life.Enter() {
		return l.Close()
	}
	defer s.life.Leave()
	defer l.Close()
	stop := context.AfterFunc(s.life.Context(), func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if s.life.Ended() {
			if err == nil {
				cut(c)
			}
			return nil
		}
		if err != nil {
			return err
		}
		peer, uri, ok := s.cfg.PeerOf(c)
		if !ok {
			cut(c)
			continue
		}
		give := s.places.TakeStranger
		if s.may(peer, func(Rule) bool { return true }) {
			give = s.places.Take
		}
		if give(peer.Device) != nil {
			s.cfg.Logger.Debug("forward: put off, too many at once", "device", peer.Device)
			cutWith(c, codeBusy)
			continue
		}
		if !s.life.Go(func(context.Context) {
			defer s.release(peer.Device)
			s.serve(c, peer, uri)
		}) {
			s.release(peer.Device)
			cut(c)
		}
	}
}

// place waits until a device has a place, or ctx ends.
func (s *Server) place(ctx context.Context, device identity.DeviceID) error {
	for {
		freed := s.freed.Next()
		if s.places.Take(device) == nil {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Server) release(device identity.DeviceID) {
	s.places.Release(device)
	s.freed.Ring()
}

// serve answers one channel.
func (s *Server) serve(c net.Conn, peer identity.Peer, uri string) {
	stop := context.AfterFunc(s.life.Context(), func() { cut(c) })
	defer stop()
	var q request
	_ = c.SetDeadline(time.Now().Add(askTimeout))
	err := readMessage(c, &q)
	if err == nil {
		err = s.use(c, peer, uri, q)
	}
	if err == nil {
		return
	}
	var told *refusal
	if errors.As(err, &told) || q.Addr == "" {
		s.cfg.Logger.Info("forward: refused", "device", peer.Device, "uri", uri, "err", err)
	}
	if told != nil {
		_ = c.SetDeadline(time.Now().Add(askTimeout))
		if writeMessage(c, answer{Error: told.Error()}) == nil {
			_ = c.Close()
			return
		}
	}
	cut(c)
}

// use checks what is asked for and does it.
func (s *Server) use(c net.Conn, peer identity.Peer, uri string, q request) error {
	var a Address
	var err error
	do, run := DoDial, s.dial
	switch uri {
	case URIDial:
		a, err = ParseAddress(q.Addr)
	case URIListen:
		do, run = DoListen, s.listen
		if a, err = parse(q.Addr, toListen); err == nil {
			err = checkToken(q.Token)
		}
	default:
		return errors.New("there is no such service")
	}
	if err != nil {
		return &refusal{err}
	}
	ctx, done, err := s.begin(peer, do, a)
	if err != nil {
		return err
	}
	defer done()
	return run(ctx, c, peer.Device, a, q.Token)
}

// refusal is an error that the device is told.
type refusal struct{ error }

// allows tells whether a peer may do something.
func (s *Server) allows(peer identity.Peer, do string, a Address) bool {
	return s.may(peer, func(r Rule) bool { return r.Do == do && r.covers(a) })
}

// may tells whether a rule that fits is for a device, or for the person whose it is.
func (s *Server) may(peer identity.Peer, fits func(Rule) bool) bool {
	has := func(d identity.DeviceID) bool {
		return slices.ContainsFunc(s.cfg.Rules.list.All(), func(r Rule) bool { return r.Device == d && fits(r) })
	}
	if has(peer.Device) && (s.cfg.AtHome == nil || s.cfg.AtHome(peer)) {
		return true
	}
	if s.cfg.Contact == nil {
		return false
	}
	device, ok := s.cfg.Contact(peer)
	return ok && has(device)
}

// begin notes the use of a rule, which ends with ctx: when the server ends, or
// the rule is removed.
func (s *Server) begin(peer identity.Peer, do string, a Address) (ctx context.Context, done func(), err error) {
	ctx, cancel := context.WithCancel(s.life.Context())
	u := &ongoing{peer, do, a, cancel}
	s.mu.Lock()
	s.busy[u] = struct{}{}
	s.mu.Unlock()
	done = func() {
		cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.busy, u)
	}
	if !s.allows(peer, do, a) { // after u was noted, or a removal could miss it
		done()
		return nil, nil, &refusal{fmt.Errorf("you may not %s %s here (its user can allow it: peerchat forward allow)", map[string]string{DoDial: "connect to", DoListen: "listen on"}[do], a)}
	}
	return ctx, done, nil
}

// Recheck ends what the rules no longer allow. Call it after a rule was removed,
// and when Contact may say something else than before.
func (s *Server) Recheck() {
	s.mu.Lock()
	now := slices.Collect(maps.Keys(s.busy))
	s.mu.Unlock()
	for _, u := range now { // what begins meanwhile is checked by begin
		if !s.allows(u.peer, u.do, u.addr) {
			u.end()
		}
	}
}

// dial joins a channel to its target.
func (s *Server) dial(ctx context.Context, c net.Conn, _ identity.DeviceID, a Address, _ string) error {
	within, cancel := context.WithTimeout(ctx, dialTimeout)
	target, err := (&net.Dialer{}).DialContext(within, a.Network, a.Addr)
	cancel()
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) { // whose text has the address once more
			err = op.Err
		}
		return &refusal{fmt.Errorf("connect to %s: %w", a, err)}
	}
	_ = c.SetDeadline(time.Now().Add(askTimeout))
	if err := agree(c, answer{}); err != nil {
		cut(target)
		return err
	}
	return join(ctx, c, target)
}

// agree says yes; from then on the channel has no deadline.
func agree(c net.Conn, yes answer) error {
	if err := writeMessage(c, yes); err != nil {
		return err
	}
	return c.SetDeadline(time.Time{})
}

// listen takes connections for a device until its channel ends.
func (s *Server) listen(ctx context.Context, c net.Conn, device identity.DeviceID, a Address, token string) error {
	l, err := Listen(ctx, a)
	if err != nil {
		return &refusal{err}
	}
	defer l.Close()
	at := a.Addr
	if a.Network == "tcp" {
		at = l.Addr().String()
	}
	if err := agree(c, answer{Addr: at}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.life.Go(func(context.Context) {
		defer cancel()
		_, _ = c.Read(make([]byte, 1)) // it says no more: this is its end
	})
	stop := context.AfterFunc(ctx, func() { cut(c) })
	defer stop()
	s.cfg.Logger.Info("forward: listening", "device", device, "addr", at)
	return Relay(ctx, l, RelayConfig{
		Open: func(ctx context.Context) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			return s.cfg.Open(ctx, device, BackURI(token))
		},
		Take: func(ctx context.Context, _ net.Conn) (func(), bool) {
			return func() { s.release(device) }, s.place(ctx, device) == nil
		},
		Note: func(err error) {
			s.cfg.Logger.Warn("forward: a connection was not joined", "device", device, "addr", at, "err", err)
		},
	})
}

// Close ends all connections and listeners, and waits for them.
func (s *Server) Close() error {
	s.life.Close()
	return nil
}
