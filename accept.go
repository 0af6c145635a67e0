package peerlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/internal/pause"
	"peerlink/internal/quota"
	"peerlink/internal/route"
	"peerlink/multiplex"
)

const (
	// maxAskedByStrangers is how many channel requests of strangers are at work at once,
	// each on a goroutine: until they are decided, and OnConnectionReady has returned.
	// Further ones are declined. One stranger may have twice as many as a link lets wait.
	maxAskedByStrangers, maxAskedByStranger = 8192, 2 * maxAsked
	// maxTold is how many callers at once are told that there is no place for their
	// streams. Further streams are closed without a word, which may take seconds, too:
	// maxTurned at once, and the rest before their carrier yields another one.
	maxTold, maxTurned = 64, 1024
	// helloWait is how long a peer's hello may take: three round trips of the
	// worst link we care for (600 ms).
	helloWait = 2 * time.Second
)

var (
	// memberArrivals is how many accepted streams of members may be on the way to
	// become links. Further ones are turned away.
	memberArrivals = quota.Limits{Each: 16, All: 256}
	// strangerArrivals is the same of strangers. One may be told so often at once that
	// it has all its links.
	strangerArrivals = quota.Limits{Each: 2 * strangerLinks, All: 512}
)

// acceptLoop takes streams from a carrier until it is closed.
func (m *ConnectionManager) acceptLoop(ctx context.Context, l Listener, asked bool) {
	pauses := pause.Backoff(5*time.Millisecond, time.Second) // as net/http waits
	for {
		conn, peer, err := l.Accept(ctx)
		if err != nil {
			if ctx.Err() != nil || !m.acceptAgain(ctx, l, pauses.NextBackOff(), err) {
				return
			}
			continue
		}
		pauses.Reset()
		a := m.asker(peer)
		if m.arrive(a) != nil {
			m.about(a, "too many streams at once", "carrier", l.Name())
			m.turnAway(conn)
		} else if !m.life.Go(func(ctx context.Context) {
			defer m.arriving.Release(a.device)
			m.welcome(ctx, l.Name(), conn, peer, asked)
		}) {
			m.arriving.Release(a.device)
			_ = conn.Close()
		}
	}
}

// arrive gives a stream of a device a place on its way to become a link.
func (m *ConnectionManager) arrive(a asker) error {
	if a.member {
		return m.arriving.Take(a.device)
	}
	return m.arriving.TakeStranger(a.device)
}

// turnAway closes a stream that there is no place for, and tells its caller so, unless
// many others are being told.
func (m *ConnectionManager) turnAway(conn net.Conn) {
	select {
	case m.turned <- struct{}{}:
		if m.life.Go(func(context.Context) {
			if len(m.turned) <= maxTold {
				m.refuse(conn, busy{ErrCapacity})
			} else {
				_ = conn.Close()
			}
			<-m.turned
		}) {
			return
		}
		<-m.turned
	default:
	}
	_ = conn.Close()
}

// acceptAgain waits before the next Accept of a carrier that failed, for want of
// descriptors, perhaps; false if it has failed for good.
func (m *ConnectionManager) acceptAgain(ctx context.Context, l Listener, wait time.Duration, err error) bool {
	if errors.Is(err, net.ErrClosed) {
		if m.running() == nil { // else it was told to
			m.cfg.Logger.Error("carrier stopped accepting", "carrier", l.Name(), "err", err)
		}
		return false
	}
	m.cfg.Logger.Warn("carrier could not accept, trying again", "carrier", l.Name(), "err", err, "in", wait)
	return pause.For(ctx, wait) == nil
}

// welcome makes a link of an accepted stream, or logs why not.
func (m *ConnectionManager) welcome(ctx context.Context, carrier string, conn net.Conn, peer identity.Peer, asked bool) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.DecisionTimeout)
	defer cancel()
	if !asked {
		if err := m.decide(ctx, peer); err != nil {
			m.about(m.asker(peer), "refused a device", "carrier", carrier, "reason", err)
			m.refuse(conn, err)
			return
		}
	}
	if err := m.raise(ctx, &link{peer: peer, carrier: carrier, direction: Inbound}, conn); err != nil {
		m.about(m.asker(peer), "inbound link did not come up", "carrier", carrier, "err", err)
	}
}

// lastWord is for how long nothing is read from a caller that is refused, so that
// the refusal is the first thing it reads, and no answer to its first request.
const lastWord = 100 * time.Millisecond

// refuse tells a caller why it is refused.
func (m *ConnectionManager) refuse(conn net.Conn, why error) {
	wait, stop := context.WithTimeout(context.Background(), lastWord)
	deaf := &lateReader{conn, wait.Done(), stop}
	code, reason := told(why)
	if _, passing := errors.AsType[busy](why); !passing {
		code = channel.CodeRefused
	}
	_ = multiplex.Server(deaf, m.cfg.Link).CloseWith(code, reason)
}

// lateReader is a stream that is not read until begin is closed.
type lateReader struct {
	net.Conn
	begin <-chan struct{}
	stop  context.CancelFunc // closes begin
}

func (r *lateReader) Read(p []byte) (int, error) {
	<-r.begin
	return r.Conn.Read(p)
}

func (r *lateReader) Close() error {
	r.stop()
	return r.Conn.Close()
}

// raise puts a multiplexed socket on a stream and, once the peer has said
// hello, makes the link known. It owns conn. The caller has set the link's peer,
// carrier, direction, deliberate and of.
func (m *ConnectionManager) raise(ctx context.Context, l *link, conn net.Conn) error {
	l.path, l.local, l.remote = pathOf(l.carrier, conn), conn.LocalAddr(), conn.RemoteAddr()
	l.asking = make(chan struct{}, maxAsked)
	cfg := m.cfg.Link
	// What this side called, or the program adopted, is no stranger's wish.
	if l.stranger = l.direction == Inbound && !l.deliberate && !m.asker(l.peer).member; l.stranger {
		cfg.Budget = m.strangers
	}
	cfg.LocalAddr, cfg.RemoteAddr = &Addr{m.cfg.Identity.Peer()}, &Addr{l.peer}
	if l.direction == Outbound {
		l.mux = multiplex.Client(conn, cfg)
	} else {
		l.mux = multiplex.Server(conn, cfg)
	}
	if err := m.introduce(ctx, l); err != nil {
		_ = l.mux.CloseWith(told(err))
		return err
	}
	if !m.life.Go(func(ctx context.Context) { m.serve(ctx, l) }) {
		m.unregister(l)
		_ = l.mux.Close()
		return errClosed
	}
	return nil
}

// introduce waits for the peer's hello and makes the link known (see register).
func (m *ConnectionManager) introduce(ctx context.Context, l *link) error {
	err := m.hello(ctx, l)
	if err == nil {
		err = m.farewell(l)
	}
	if err == nil && l.direction == Inbound && !l.deliberate {
		err = m.holdBack(ctx, l)
	}
	if err == nil {
		err = m.register(l)
	}
	return err
}

// hello waits for the peer's hello. A peer of version 1 has none, and may be
// silent until a request reaches it: where such peers are let in, a link that
// has not ended after helloWait is taken for one of version 1.
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

// farewell returns why the peer ended the link, or nil if it did not.
func (m *ConnectionManager) farewell(l *link) error {
	if !l.mux.Ending() {
		return nil
	}
	_ = pause.Until(context.Background(), closeTimeout, l.mux.Done())
	err := l.mux.Err()
	if err == nil {
		return errors.New("the device is about to close the link")
	}
	if no := asRefusal(err); no != nil {
		return no
	}
	return err
}

// asRefusal returns the refusal that the end of a link stands for, or nil.
func asRefusal(err error) error {
	bye, ok := errors.AsType[*multiplex.GoingAwayError](err)
	switch {
	case ok && bye.Code == channel.CodeRefused:
		return fmt.Errorf("%w: %.255q", ErrRefused, bye.Reason)
	case ok && (bye.Code == channel.CodeResource || bye.Code == channel.CodeClosing):
		return fmt.Errorf("%w: %.255q", ErrBusy, bye.Reason)
	}
	return nil
}

// holdBack keeps an inbound link unknown, and its channel requests waiting,
// while this side makes or has just made one that both sides prefer. If the two
// were made at once, the peer closes the inbound one and asks for its channels on
// the other. If the peer wanted a second link, holdBack returns a moment later.
func (m *ConnectionManager) holdBack(ctx context.Context, l *link) error {
	for {
		m.mu.Lock()
		other, wait := m.crossingLocked(l)
		m.mu.Unlock()
		if other == nil {
			return nil
		}
		soon, cancel := context.WithTimeout(ctx, wait)
		select {
		case <-other:
		case <-l.mux.Done():
		case <-soon.Done():
		}
		cancel()
		if err := m.farewell(l); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// crossingLocked returns what an inbound link waits for, and how long: until a
// link of this side has come up or failed, or is so old that the peer knows it.
// m.mu is held.
func (m *ConnectionManager) crossingLocked(l *link) (<-chan struct{}, time.Duration) {
	if !smaller(m.links.self, l.peer.Device) {
		return nil, 0
	}
	if m.talks.greeting[l.peer.Device] > 0 {
		return m.talks.quiet.Next(), m.cfg.ConnectTimeout
	}
	if o, wait := m.links.young(l.peer.Device); o != nil {
		return o.mux.Done(), wait
	}
	return nil, 0
}

// pathOf asks the stream how it runs.
func pathOf(carrier string, conn net.Conn) Path {
	if p, ok := conn.(interface{ Path() Path }); ok && p.Path() != (Path{}) {
		return p.Path()
	}
	return route.Between(carrier, "", conn.LocalAddr(), conn.RemoteAddr())
}

// AddConn adopts a stream that the program made and proved: it becomes a link
// like any other. This side is its calling side if dir is Outbound; the far end
// must be given the other direction. It waits for the peer's hello, and owns conn.
func (m *ConnectionManager) AddConn(ctx context.Context, conn net.Conn, peer identity.Peer, dir Direction) (LinkID, error) {
	if err := m.running(); err != nil {
		_ = conn.Close()
		return LinkID{}, err
	}
	l := &link{peer: peer, carrier: "adopted", direction: dir, deliberate: true}
	if err := m.raise(ctx, l, conn); err != nil {
		return LinkID{}, fmt.Errorf("peerlink: adopt connection to %s: %w", peer.Device.Short(), err)
	}
	return l.id, nil
}

// serve answers a link's channel requests until it ends, and then forgets it.
func (m *ConnectionManager) serve(ctx context.Context, l *link) {
	defer m.unregister(l)
	defer func() { _ = l.mux.Close() }() // waits for its goroutines
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		r, err := l.mux.Accept(ctx)
		if err != nil {
			if ctx.Err() == nil {
				m.about(m.asker(l.peer), "link ended", "carrier", l.carrier, "err", err)
			}
			return
		}
		a := m.glance(l)
		if !a.member && m.asked.Take(a.device) != nil {
			m.decline(r, errBacklog)
			continue
		}
		leave := func() {
			if !a.member {
				m.asked.Release(a.device)
			}
		}
		// The link bounds how many run: it lets so many requests wait undecided.
		if !m.life.Go(func(context.Context) {
			defer leave()
			m.route(ctx, l, r, a)
		}) {
			leave()
			_ = r.DeclineWith(told(errClosed))
		}
	}
}

// route has a channel request decided, and passes on the channel.
func (m *ConnectionManager) route(ctx context.Context, l *link, r *multiplex.Request, a asker) {
	if m.running() != nil {
		m.decline(r, errShuttingDown)
		return
	}
	key := uniqueKey{l.peer.Device, r.Name()}
	ping := func() { _, _ = l.mux.Ping(ctx) } // on an error the link ends, and r with it
	if m.uniques.request(ctx, key, ping, func() (*channel.Socket, error) { return m.accept(l, r) }) {
		return
	}
	sock, err := m.answer(ctx, l, r, a)
	m.uniques.decided(key)
	if err != nil || sock == nil {
		return
	}
	if m.cfg.OnConnectionReady == nil {
		_ = sock.Reset(channel.CodeNotAccepted)
		return
	}
	why := channel.CodeNotAccepted
	if !m.workers.notify(ctx, "OnConnectionReady", a, func() {
		why = channel.CodeInternal
		m.cfg.OnConnectionReady(l.peer, sock)
	}) {
		_ = sock.Reset(why)
	}
}

// errShuttingDown is what peers are told while this side waits for its channels.
var errShuttingDown = errors.New("shutting down")

// answer decides on a request. It returns the channel if OnConnectionReady is to
// have it; an error was told to the peer, or came from it.
func (m *ConnectionManager) answer(ctx context.Context, l *link, r *multiplex.Request, a asker) (*channel.Socket, error) {
	c, decide := m.router.claimant(r.Name()), decision(m.cfg.OnChannelRequest)
	if c != nil {
		decide = c.decide
	}
	var err error
	switch {
	case decide != nil:
		err = m.workers.ask(ctx, "OnChannelRequest", a, func(ctx context.Context) error { return decide(ctx, l.peer, r.Name()) })
	case c == nil:
		err = fmt.Errorf("%w on %s", errNoListener, r.Name())
	}
	if err != nil {
		m.decline(r, err)
		return nil, err
	}
	if c == nil {
		return m.accept(l, r)
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.DecisionTimeout)
	defer cancel()
	err = c.offer(ctx, a, func() (*channel.Socket, error) { return m.accept(l, r) })
	if errors.Is(err, errBacklog) || errors.Is(err, errGone) {
		m.decline(r, err)
	}
	return nil, err
}

// accept opens a channel that the peer has asked for.
func (m *ConnectionManager) accept(l *link, r *multiplex.Request) (*channel.Socket, error) {
	if !m.admitChannel(l) {
		return nil, errRetired
	}
	sock, err := r.Accept()
	if err == nil {
		m.locked(func() { m.totals.Accepted++ })
		m.uniques.accepted(uniqueKey{l.peer.Device, r.Name()}, sock)
	}
	return sock, err
}

// decline tells the peer no. A listener that is closed as the manager leaves does not
// count: the peer is to ask again, as of any device that leaves.
func (m *ConnectionManager) decline(r *multiplex.Request, why error) {
	if (errors.Is(why, errNoListener) || errors.Is(why, errGone)) && m.running() != nil {
		why = errShuttingDown
	}
	if r.DeclineWith(told(why)) == nil {
		m.locked(func() { m.totals.Declined++ })
	}
}

// errNoListener is why a request is declined that no program has asked for.
var errNoListener = errors.New("nobody listens")

// told returns what a peer is told of an error: the code for its program
// (docs/protocol.md, "Codes"), which is 0 if the text says all, and the text for its
// user. Details that are none of the peer's business are left out.
func told(err error) (code channel.Code, text string) {
	switch text = err.Error(); {
	case errors.Is(err, errClosed):
		return channel.CodeClosing, "closing"
	case errors.Is(err, errShuttingDown):
		code = channel.CodeClosing
	case errors.Is(err, identity.ErrNotTrusted):
		return channel.CodeRefused, "not trusted"
	case errors.Is(err, errLost), errors.Is(err, errAbandoned):
		return channel.CodeNotNeeded, "not needed any more"
	case errors.Is(err, errCrossed):
		code = channel.CodeCrossed
	case errors.Is(err, errIdle):
		code = channel.CodeIdle
	case errors.Is(err, errNoListener), errors.Is(err, errGone):
		code = channel.CodeNoListener
	case errors.Is(err, errBacklog), errors.Is(err, ErrCapacity), errors.Is(err, errGaveWay):
		code = channel.CodeResource
	case errors.Is(err, errInternal):
		code = channel.CodeInternal
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, "no decision in time"
	}
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		text = strconv.Quote(text)
	}
	return code, text
}
