package peerlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
	"unicode"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/internal/pause"
	"peerlink/multiplex"
)

const (
	// maxArrivals is how many accepted streams may be on the way to become
	// links; further ones wait in their carriers, which bound them, too.
	maxArrivals = 256
	// maxArrivalsPerDevice is how many of them may be of one device, so that
	// one cannot keep all others waiting.
	maxArrivalsPerDevice = 16
	// helloWait is how long a peer's hello may take: three round trips of the
	// worst link we care for (600 ms).
	helloWait = 2 * time.Second
)

// acceptLoop takes streams from a carrier until it is closed.
func (m *ConnectionManager) acceptLoop(ctx context.Context, l Listener, asked bool) {
	pauses := pause.Backoff(5*time.Millisecond, time.Second) // as net/http waits
	for {
		select {
		case m.arrivals <- struct{}{}:
		case <-ctx.Done():
			return
		}
		conn, peer, err := l.Accept(ctx)
		if err != nil {
			<-m.arrivals
			if ctx.Err() != nil || !m.acceptAgain(ctx, l, pauses.NextBackOff(), err) {
				return
			}
			continue
		}
		pauses.Reset()
		if !m.life.Go(func(ctx context.Context) {
			defer func() { <-m.arrivals }()
			m.welcome(ctx, l.Name(), conn, peer, asked)
		}) {
			<-m.arrivals
			_ = conn.Close()
		}
	}
}

// acceptAgain waits before a carrier is asked again that has failed for the
// moment (for want of descriptors, perhaps); false if it has failed for good.
func (m *ConnectionManager) acceptAgain(ctx context.Context, l Listener, wait time.Duration, err error) bool {
	if errors.Is(err, net.ErrClosed) {
		m.cfg.Logger.Error("carrier stopped accepting", "carrier", l.Name(), "err", err)
		return false
	}
	m.cfg.Logger.Warn("carrier could not accept, trying again", "carrier", l.Name(), "err", err, "in", wait)
	return pause.For(ctx, wait) == nil
}

// welcome makes a link of an accepted stream, or says why not.
func (m *ConnectionManager) welcome(ctx context.Context, carrier string, conn net.Conn, peer identity.Peer, asked bool) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.DecisionTimeout)
	defer cancel()
	if m.arriving.Take(peer.Device) != nil {
		_ = conn.Close()
		m.about(peer.Device, "too many streams of one device at once", "carrier", carrier)
		return
	}
	defer m.arriving.Release(peer.Device)
	if !asked {
		if err := m.decide(ctx, peer); err != nil {
			m.about(peer.Device, "refused a device", "carrier", carrier, "reason", err)
			m.refuse(conn, err)
			return
		}
	}
	if _, err := m.raise(ctx, &link{peer: peer, carrier: carrier, direction: Inbound}, conn); err != nil {
		m.about(peer.Device, "inbound link did not come up", "carrier", carrier, "err", err)
	}
}

// refuse tells the caller no, so that it need not guess.
func (m *ConnectionManager) refuse(conn net.Conn, why error) {
	cfg := m.cfg.Link
	deaf := &lateReader{Conn: conn, from: time.Now().Add(lastWord), closed: make(chan struct{})}
	_ = multiplex.Server(deaf, cfg).CloseWith(channel.CodeRefused, reasonFor(why))
}

// lastWord is how long a caller that is refused is not listened to, so that
// the refusal is the first thing it hears, and no answer to its first request.
const lastWord = 100 * time.Millisecond

// lateReader is a stream that is read from a certain time on.
type lateReader struct {
	net.Conn
	from   time.Time
	once   sync.Once
	closed chan struct{}
}

func (r *lateReader) Read(p []byte) (int, error) {
	select {
	case <-after(time.Until(r.from)):
	case <-r.closed:
	}
	return r.Conn.Read(p)
}

func (r *lateReader) Close() error {
	r.once.Do(func() { close(r.closed) })
	return r.Conn.Close()
}

// raise puts a multiplexed socket on a stream and, once the peer has said
// hello, makes the link known. It owns conn. Of l, peer, carrier, direction
// and deliberate are set.
func (m *ConnectionManager) raise(ctx context.Context, l *link, conn net.Conn) (*link, error) {
	l.path, l.local, l.remote = pathOf(l.carrier, conn), conn.LocalAddr(), conn.RemoteAddr()
	l.asking = make(chan struct{}, maxAsked)
	cfg := m.cfg.Link
	cfg.LocalAddr, cfg.RemoteAddr = &Addr{m.cfg.Identity.Peer()}, &Addr{l.peer}
	if l.direction == Outbound {
		l.mux = multiplex.Client(conn, cfg)
	} else {
		l.mux = multiplex.Server(conn, cfg)
	}
	first, crossed, err := m.introduce(ctx, l)
	if err != nil {
		_ = l.mux.CloseWith(codeFor(err), reasonFor(err))
		return nil, err
	}
	m.retire(crossed, errCrossed)
	if l.direction == Inbound {
		m.doubt(l)
	}
	if !m.life.Go(func(ctx context.Context) { m.serve(ctx, l, first) }) {
		m.unregister(l)
		_ = l.mux.Close()
		return nil, errClosed
	}
	return l, nil
}

// introduce waits for the peer's hello and makes the link known.
func (m *ConnectionManager) introduce(ctx context.Context, l *link) (first bool, crossed []*link, err error) {
	if err := m.hello(ctx, l); err != nil {
		return false, nil, err
	}
	if err := m.farewell(l); err != nil {
		return false, nil, err
	}
	if l.direction == Inbound && !l.deliberate {
		if err := m.holdBack(ctx, l); err != nil {
			return false, nil, err
		}
	}
	return m.register(l)
}

// hello waits for the peer's hello. A peer of version 1 has none, and may be
// silent until it is asked for something: where such peers are let in, a link
// that has not ended after a while counts as one of theirs.
func (m *ConnectionManager) hello(ctx context.Context, l *link) error {
	if m.cfg.Link.MinVersion >= 2 {
		return l.mux.Ready(ctx)
	}
	wait, cancel := context.WithTimeout(ctx, helloWait)
	defer cancel()
	err := l.mux.Ready(wait)
	if err != nil && wait.Err() != nil && ctx.Err() == nil && !l.mux.Ending() {
		return nil
	}
	return err
}

// farewell returns why the peer ended the link, if it did; a refusal as such.
func (m *ConnectionManager) farewell(l *link) error {
	if !l.mux.Ending() {
		return nil
	}
	_ = pause.Until(context.Background(), closeTimeout, l.mux.Done())
	err := l.mux.Err()
	if err == nil {
		return errors.New("the device is about to close the link")
	}
	if no := asRefusal(l, err); no != nil {
		return no
	}
	return err
}

// asRefusal returns the refusal that the end of a link stands for, or nil.
func asRefusal(l *link, err error) error {
	var bye *multiplex.GoingAwayError
	if errors.As(err, &bye) && bye.Code == channel.CodeRefused {
		return refusal{fmt.Errorf("%s: %w: %.255q", l.path, ErrRefused, bye.Reason)}
	}
	return nil
}

// holdBack keeps an inbound link unknown, and so its channel requests waiting,
// while this side makes or has just made one that both sides prefer. If the
// two were made at once the peer closes this one and asks for its channels on
// the other; if it wanted a second link, this one becomes known a moment later.
func (m *ConnectionManager) holdBack(ctx context.Context, l *link) error {
	for {
		m.mu.Lock()
		other, wait := m.crossingLocked(l)
		m.mu.Unlock()
		if other == nil {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-other:
		case <-timer.C:
		case <-l.mux.Done():
		case <-ctx.Done():
		}
		timer.Stop()
		if err := m.farewell(l); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// crossingLocked returns what a link waits for, and how long: until a link of
// this side has come up or failed, or is older than the peer's could be. m.mu
// is held.
func (m *ConnectionManager) crossingLocked(l *link) (<-chan struct{}, time.Duration) {
	if !smaller(m.links.self, l.peer.Device) {
		return nil, 0
	}
	if g := m.talks.greeting[l.peer.Device]; g != nil {
		return g.quiet, m.cfg.ConnectTimeout
	}
	if o, wait := m.links.young(l.peer.Device); o != nil {
		return o.mux.Done(), wait
	}
	return nil, 0
}

// pathOf asks the stream how it runs, for people to read.
func pathOf(carrier string, conn net.Conn) string {
	if p, ok := conn.(interface{ Path() string }); ok && p.Path() != "" {
		return p.Path()
	}
	return fmt.Sprintf("%s %v→%v", carrier, conn.LocalAddr(), conn.RemoteAddr())
}

// AddConn adopts a stream that somebody else made and proved: it becomes a link
// like any other. This side is its calling side if dir is Outbound; the two
// ends must not agree on that. It waits for the peer's hello, and owns conn.
func (m *ConnectionManager) AddConn(ctx context.Context, conn net.Conn, peer identity.Peer, dir Direction) (LinkID, error) {
	l, err := m.raise(ctx, &link{peer: peer, carrier: "adopted", direction: dir, deliberate: true}, conn)
	if err != nil {
		return LinkID{}, fmt.Errorf("peerlink: adopt connection to %s: %w", peer.Device.Short(), err)
	}
	return l.id, nil
}

// serve is a link's life: its peer's channel requests, until it ends.
func (m *ConnectionManager) serve(ctx context.Context, l *link, first bool) {
	defer m.unregister(l)
	defer func() { _ = l.mux.Close() }() // waits for its goroutines
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if first && m.cfg.OnNewDevice != nil {
		m.life.Go(func(ctx context.Context) {
			m.notify(ctx, "OnNewDevice", l.peer, func() { m.cfg.OnNewDevice(l.peer) })
		})
	}
	for {
		r, err := l.mux.Accept(ctx)
		if err != nil {
			if ctx.Err() == nil {
				m.about(l.peer.Device, "link ended", "carrier", l.carrier, "err", err)
			}
			return
		}
		// As many at once as the link lets wait undecided, and no more.
		if !m.life.Go(func(context.Context) { m.route(ctx, l, r) }) {
			_ = r.DeclineWith(codeFor(errClosed), reasonFor(errClosed))
		}
	}
}

// route gives a channel request to whoever it is for.
func (m *ConnectionManager) route(ctx context.Context, l *link, r *multiplex.Request) {
	m.mu.Lock()
	leaving := m.leaving
	m.mu.Unlock()
	if leaving {
		m.decline(r, errShuttingDown)
		return
	}
	key := uniqueKey{l.peer.Device, r.Name()}
	ping := func() { _, _ = l.mux.Ping(ctx) } // on an error the link is done for, and so is r
	if m.uniques.request(ctx, key, ping, func() (*channel.Socket, error) { return m.accept(l, r) }) {
		return
	}
	sock, err := m.answer(ctx, l, r)
	m.uniques.decided(key)
	if err != nil || sock == nil {
		return
	}
	if m.cfg.OnConnectionReady == nil {
		_ = sock.Close()
		return
	}
	if !m.notify(ctx, "OnConnectionReady", l.peer, func() { m.cfg.OnConnectionReady(l.peer, sock) }) {
		_ = sock.Reset(channel.CodeInternal)
	}
}

// errShuttingDown is what peers are told while this side waits for its channels.
var errShuttingDown = errors.New("shutting down")

// answer decides on a request. It returns the channel if that is for
// OnConnectionReady; an error is one that the peer knows, or has caused.
func (m *ConnectionManager) answer(ctx context.Context, l *link, r *multiplex.Request) (*channel.Socket, error) {
	if c := m.router.claimant(r.Name()); c != nil {
		ctx, cancel := context.WithTimeout(ctx, m.cfg.DecisionTimeout)
		defer cancel()
		err := c.offer(ctx, func() (*channel.Socket, error) { return m.accept(l, r) })
		if errors.Is(err, errBacklog) || errors.Is(err, errGone) {
			m.decline(r, err)
		}
		return nil, err
	}
	err := fmt.Errorf("%w on %s", errNoListener, r.Name())
	if m.cfg.OnChannelRequest != nil {
		err = m.ask(ctx, "OnChannelRequest", l.peer, func(ctx context.Context) error {
			return m.cfg.OnChannelRequest(ctx, l.peer, r.Name())
		})
	}
	if err != nil {
		m.decline(r, err)
		return nil, err
	}
	return m.accept(l, r)
}

// accept opens a channel that the peer has asked for.
func (m *ConnectionManager) accept(l *link, r *multiplex.Request) (*channel.Socket, error) {
	if !m.admitChannel(l) {
		return nil, errRetired
	}
	sock, err := r.Accept()
	if err == nil {
		m.mu.Lock()
		m.totals.Accepted++
		l.accepted.add(sock)
		m.mu.Unlock()
	}
	return sock, err
}

func (m *ConnectionManager) decline(r *multiplex.Request, why error) {
	if r.DeclineWith(codeFor(why), reasonFor(why)) == nil {
		m.count(func(t *totals) { t.Declined++ })
	}
}

// errNoListener is why a request is declined that no program has asked for.
var errNoListener = errors.New("nobody listens")

// codeFor is what a peer's program is told of an error (docs/protocol.md,
// "Codes"); 0 says no more than the text of reasonFor.
func codeFor(err error) channel.Code {
	switch {
	case errors.Is(err, errClosed), errors.Is(err, errShuttingDown):
		return channel.CodeClosing
	case errors.Is(err, identity.ErrNotTrusted):
		return channel.CodeRefused
	case errors.Is(err, errLost), errors.Is(err, errAbandoned):
		return channel.CodeNotNeeded
	case errors.Is(err, errCrossed):
		return channel.CodeCrossed
	case errors.Is(err, errIdle):
		return channel.CodeIdle
	case errors.Is(err, errNoListener), errors.Is(err, errGone):
		return channel.CodeNoListener
	case errors.Is(err, errBacklog), errors.Is(err, ErrCapacity):
		return channel.CodeResource
	case errors.Is(err, errInternal):
		return channel.CodeInternal
	}
	return 0
}

// reasonFor is what a peer's user is told of an error: its text, but for what is
// none of the peer's business.
func reasonFor(err error) string {
	switch {
	case errors.Is(err, errClosed):
		return "closing"
	case errors.Is(err, identity.ErrNotTrusted):
		return "not trusted"
	case errors.Is(err, errLost), errors.Is(err, errAbandoned):
		return "not needed any more"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "no decision in time"
	}
	for _, r := range err.Error() {
		if !unicode.IsPrint(r) {
			return fmt.Sprintf("%q", err.Error())
		}
	}
	return err.Error()
}
