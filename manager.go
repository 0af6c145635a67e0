package peerlink

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
)

// closeTimeout bounds ConnectionManager.Close: each link gets a second to say
// goodbye, at once, and callbacks of the application the rest.
const closeTimeout = 2 * time.Second

// errClosed is the cause of everything that ends because of Close.
var errClosed = fmt.Errorf("peerlink: connection manager: %w", net.ErrClosed)

// ConnectionManager owns the links of one device and routes their channels.
// Make one with New. All methods may be called concurrently.
type ConnectionManager struct {
	cfg    Config
	ctx    context.Context // ends with Close; the life of the manager's goroutines
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // every goroutine of the manager
	done   chan struct{}  // closed when Close is over

	mu           sync.Mutex
	closing      bool
	slots        []slotState
	freeSlots    []uint32
	links        int
	byDevice     map[identity.DeviceID][]*link
	negotiations map[identity.DeviceID]*negotiation
	private      int // negotiations for NewLink and for certain carriers
	patterns     map[string]*listener
	totals       Metrics
}

// New makes a manager and starts to accept on its Listeners.
func New(cfg Config) (*ConnectionManager, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	m := &ConnectionManager{
		cfg:          cfg.withDefaults(),
		done:         make(chan struct{}),
		byDevice:     make(map[identity.DeviceID][]*link),
		negotiations: make(map[identity.DeviceID]*negotiation),
		patterns:     make(map[string]*listener),
	}
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	for _, l := range m.cfg.Listeners {
		n, asks := l.(Negotiator)
		if asks {
			n.Decide(m.decide)
		}
		m.goFunc(func() { m.acceptLoop(l, asks) })
	}
	if m.cfg.Trust != nil {
		m.goFunc(m.watchTrust)
	}
	return m, nil
}

// goFunc runs f on a goroutine that Close waits for; after Close it does not run.
func (m *ConnectionManager) goFunc(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		return false
	}
	m.wg.Go(func() {
		f()
	})
	return true
}

// acceptLoop takes streams from a carrier until it is closed.
func (m *ConnectionManager) acceptLoop(l Listener, asked bool) {
	for {
		conn, peer, err := l.Accept(m.ctx)
		if err != nil {
			if m.ctx.Err() == nil {
				m.cfg.Logger.Error("carrier stopped accepting", "carrier", l.Name(), "err", err)
			}
			return
		}
		if !m.goFunc(func() { m.welcome(l.Name(), conn, peer, asked) }) {
			_ = conn.Close()
		}
	}
}

// welcome makes a link of an accepted stream.
func (m *ConnectionManager) welcome(carrier string, conn net.Conn, peer identity.Peer, asked bool) {
	ctx, cancel := context.WithTimeout(m.ctx, m.cfg.DecisionTimeout)
	defer cancel()
	if !asked {
		if err := m.decide(ctx, peer); err != nil {
			m.cfg.Logger.Info("refused a device", "peer", peer.Device, "carrier", carrier, "reason", err)
			_ = conn.Close()
			return
		}
	}
	if _, err := m.raise(ctx, carrier, conn, peer, Inbound); err != nil {
		m.cfg.Logger.Info("inbound link did not come up", "peer", peer.Device, "carrier", carrier, "err", err)
	}
}

// raise puts a multiplexed socket on a stream and, once the peer has said
// hello, makes the link known. It owns conn.
func (m *ConnectionManager) raise(ctx context.Context, carrier string, conn net.Conn, peer identity.Peer, dir Direction) (*link, error) {
	l := &link{peer: peer, carrier: carrier, direction: dir, path: pathOf(carrier, conn)}
	cfg := m.cfg.Link
	cfg.LocalAddr, cfg.RemoteAddr = &Addr{m.cfg.Identity.Peer()}, &Addr{peer}
	if dir == Outbound {
		l.mux = multiplex.Client(conn, cfg)
	} else {
		l.mux = multiplex.Server(conn, cfg)
	}
	var first bool
	err := l.mux.Ready(ctx)
	if err == nil {
		first, err = m.register(l)
	}
	if err != nil {
		_ = l.mux.CloseWith(channel.CodeClosed, reasonFor(err))
		return nil, err
	}
	if !m.goFunc(func() { m.serve(l, first) }) {
		m.unregister(l)
		_ = l.mux.Close()
		return nil, errClosed
	}
	return l, nil
}

// pathOf asks the stream how it runs, for people to read.
func pathOf(carrier string, conn net.Conn) string {
	if p, ok := conn.(interface{ Path() string }); ok {
		return p.Path()
	}
	return fmt.Sprintf("%s %v→%v", carrier, conn.LocalAddr(), conn.RemoteAddr())
}

// AddConn adopts a stream that somebody else made and proved: it becomes a link
// like any other. This side is its calling side if dir is Outbound; the two
// ends must not agree on that. It waits for the peer's hello, and owns conn.
func (m *ConnectionManager) AddConn(ctx context.Context, conn net.Conn, peer identity.Peer, dir Direction) (LinkID, error) {
	l, err := m.raise(ctx, "adopted", conn, peer, dir)
	if err != nil {
		return LinkID{}, fmt.Errorf("peerlink: adopt connection to %s: %w", peer.Device.Short(), err)
	}
	return l.id, nil
}

// watchTrust closes the links of devices that the trust store no longer allows.
func (m *ConnectionManager) watchTrust() {
	for {
		changed := m.cfg.Trust.Changed()
		for _, l := range m.allLinks() {
			if err := m.cfg.Trust.Check(l.peer); err != nil {
				m.cfg.Logger.Info("closing link", "peer", l.peer.Device, "err", err)
				m.goFunc(func() { _ = l.mux.CloseWith(channel.CodeClosed, "not trusted any more") })
			}
		}
		select {
		case <-changed:
		case <-m.ctx.Done():
			return
		}
	}
}

func (m *ConnectionManager) allLinks() []*link {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ls []*link
	for _, of := range m.byDevice {
		ls = append(ls, of...)
	}
	return ls
}

// Close ends all links, telling their peers, and everything under way: pending
// calls return an error that matches net.ErrClosed. It waits for the manager's
// goroutines, at most two seconds if callbacks of the application do not
// return. The second call waits for the first.
func (m *ConnectionManager) Close() error {
	m.mu.Lock()
	if m.closing {
		m.mu.Unlock()
		<-m.done
		return nil
	}
	m.closing = true
	listeners := make([]*listener, 0, len(m.patterns))
	for _, l := range m.patterns {
		listeners = append(listeners, l)
	}
	m.mu.Unlock()
	defer close(m.done)
	m.cancel(errClosed)
	for _, l := range listeners {
		_ = l.Close()
	}
	for _, l := range m.cfg.Listeners {
		_ = l.Close()
	}
	var closing sync.WaitGroup
	for _, l := range m.allLinks() {
		closing.Go(func() { _ = l.mux.Close() })
	}
	over := make(chan struct{})
	go func() {
		closing.Wait()
		m.wg.Wait()
		close(over)
	}()
	timeout := time.NewTimer(closeTimeout)
	defer timeout.Stop()
	select {
	case <-over:
		return nil
	case <-timeout.C:
		return fmt.Errorf("peerlink: closed, but a callback of the application still runs after %v", closeTimeout)
	}
}
