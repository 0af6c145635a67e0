// Package peerlink reaches a device by the hash of its public key, wherever it
// is, and talks to it over as many named channels as you like.
//
//	acc, err := account.Create(dir, account.Options{Name: "alice's laptop"})
//	err = acc.Start(ctx) // and acc.Shutdown(ctx) at the end
//	sock, err := acc.ConnectionManager().ConnectDevice(ctx, bob, "file://photo.jpg", peerlink.ConnectOptions{})
//	_, err = io.Copy(sock, photo) // sock is a net.Conn
//
// On the other side, best before Start:
//
//	files, err := acc.ConnectionManager().Listen("file://*") // a net.Listener
//	conn, err := files.Accept()
//	peer, _ := peerlink.PeerOf(conn)                         // the device there, proven
//
// A [ConnectionManager] owns the links of one device. A link is one live
// connection to one other device: a carrier's stream, proven to end there, with
// a multiplexed socket on it. The first ConnectDevice to a device races the
// carriers it was given, the cheaper ones with a head start; a further one only
// opens a channel. If two devices connect to each other at once, one link is
// left, and no channel is lost. Links without channels close after a while, and
// links that lead nowhere are replaced when the network changes.
//
// A channel is a [net.Conn], so what works on one works here: http.Serve on a
// listener, http.Client with [ConnectionManager.Transport]. [Messages] cuts a
// channel into messages, and [channel.Socket.SendUnreliable] sends datagrams where
// the carrier has them. Links, Events, Connections and Metrics show what goes
// on; package metrics gives it to Prometheus. The package itself knows no
// carrier: they come in as [Dialer] and [Listener] values; package account
// brings the usual ones.
//
// # Limits
//
// One negotiation per device at a time, for all callers; Config.Capacity links in
// all and Config.PerDevice with one device; 65 534 channels a link; 256
// undecided channel requests a link; 256 callbacks at once about one device.
// A device that is no member (identity.Trust.Member) is a stranger. It makes 4 links
// at most, strangers keep half of the links when members want more, their links share
// half of the budget for unread bytes, and 128 callbacks run about one of them.
// Callbacks run on goroutines of their own, never under a lock and never on a
// reader. Close gives each link a second for what was written, its carriers the
// time that they need, and callbacks two seconds.
package peerlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/pause"
	"peerlink/internal/quota"
	"peerlink/multiplex"
)

const (
	// closeTimeout is how long Close waits for callbacks of the application.
	closeTimeout = 2 * time.Second
	// carrierTimeout is how long Close waits for carriers, after the links: each
	// gives a peer that has gone silent two or three seconds.
	carrierTimeout = 5 * time.Second
)

// errClosed is the cause of everything that ends because of Close.
var errClosed = fmt.Errorf("peerlink: connection manager: %w", ErrClosed)

// errStarted is why a manager that has started cannot be set up any further.
var errStarted = fmt.Errorf("peerlink: connection manager: %w", ErrStarted)

// ConnectionManager owns the links of one device and routes their channels.
// Make one with New, or with Open and Start; the methods of another one panic. All
// methods may be called concurrently, in any order and more than once.
type ConnectionManager struct {
	cfg  Config
	life life.Group    // of every goroutine of the manager: ends with Close
	done chan struct{} // closed when Close is over
	err  error         // Close's, then

	arriving  *quota.Quota[identity.DeviceID] // holds a place for each stream that is on the way to become a link
	asked     *quota.Quota[identity.DeviceID] // holds a place for each channel request of a stranger that is at work
	turned    chan struct{}                   // holds a place for each stream that found none, until it is closed
	strangers *multiplex.Budget               // the half of Config.Link.Budget for links that strangers have made
	said      *quota.Rates[identity.DeviceID] // how much is logged about a device
	aloud     *rate.Limiter                   // how much is logged about strangers
	transport *transports
	workers   workers // run the application's callbacks
	router    router  // has the patterns of Listen
	uniques   uniques // make the channels of ConnectOptions.UniqueName

	// Guards the parts below, and of each link the fields that link names. Taken
	// after uniques.mu, and before the locks of life, Trust and sockets; not held
	// while a carrier or a callback runs.
	mu      sync.Mutex
	started bool          // from then on cfg does not change
	leaving bool          // Shutdown or Close was called: nothing new begins
	links   links         // that are known
	talks   talks         // make further links
	bus     bus           // tells readers what happens
	totals  totals        // count it
	cut     ShutdownError // has the links that Shutdown and Close have cut
}

// New makes a manager and starts it, with the carriers of cfg.
func New(cfg Config) (*ConnectionManager, error) {
	m, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	return m, m.Start(nil, nil)
}

// Open makes a manager that does nothing yet: it is not reached and reaches no
// device, and what would returns ErrNotStarted. Until Start, Listen claims patterns
// and SetCallbacks sets callbacks, so that no early channel is missed. Start goes
// on from there. A manager that was opened must be closed.
func Open(cfg Config) (*ConnectionManager, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	m := &ConnectionManager{
		cfg:      cfg.withDefaults(),
		done:     make(chan struct{}),
		arriving: quota.NewPools[identity.DeviceID](memberArrivals, strangerArrivals),
		asked:    quota.New[identity.DeviceID](maxAskedByStranger, maxAskedByStrangers),
		turned:   make(chan struct{}, maxTurned),
		said:     quota.NewRates[identity.DeviceID](maxSaid, 1, sayBurst),
		aloud:    rate.NewLimiter(strangersSay, strangersBurst),
		talks:    talks{byDevice: make(map[identity.DeviceID][]*negotiation), greeting: make(map[identity.DeviceID]int)},
		totals:   totals{carriers: make(map[string]*Totals)},
	}
	m.workers = workers{
		life: &m.life, timeout: m.cfg.DecisionTimeout, panicked: m.panicked,
		rooms: newRooms(memberCallbacks, strangerCallbacks),
	}
	m.strangers = m.cfg.Link.Budget.Half()
	m.links = links{
		self: m.cfg.Identity.DeviceID(), capacity: m.cfg.Capacity, perDevice: m.cfg.PerDevice,
		byID: make(map[LinkID]*link), byDevice: make(map[identity.DeviceID][]*link),
	}
	m.uniques = uniques{
		self: m.links.self, life: &m.life, running: m.running, keys: make(map[uniqueKey]*unique),
	}
	m.bus = bus{readers: make(map[*reader]struct{}), recap: m.recapLocked}
	m.transport = newTransport(m)
	return m, nil
}

// Start begins to accept on the Listeners and to reach devices by the Dialers,
// first the ones of Config and then the given ones. It does not block. A
// manager starts once: the error of a second Start matches ErrStarted, and after Close
// or Shutdown ErrClosed. The manager closes the listeners, unless Start fails.
func (m *ConnectionManager) Start(dialers []Dialer, listeners []Listener) error {
	m.lock()
	switch {
	case m.leaving:
		m.mu.Unlock()
		return errClosed
	case m.started:
		m.mu.Unlock()
		return errStarted
	}
	m.started = true
	m.cfg.Dialers = slices.Concat(m.cfg.Dialers, dialers)
	m.cfg.Listeners = slices.Concat(m.cfg.Listeners, listeners)
	m.mu.Unlock()
	for _, l := range m.cfg.Listeners {
		n, asks := l.(Negotiator)
		if asks {
			n.Decide(m.decide)
		}
		m.life.Go(func(ctx context.Context) { m.acceptLoop(ctx, l, asks) })
	}
	if m.cfg.Trust != nil {
		m.life.Go(m.watchTrust)
	}
	if m.cfg.IdleTimeout > 0 {
		m.life.Go(m.reapIdle)
	}
	if m.cfg.Network == WatchNetwork {
		m.life.Go(m.watchNetwork)
	}
	return nil
}

// SetCallbacks sets the callbacks that are not nil, in place of Config's. They may
// so use the manager, or what owns it, without a variable that is set later. After
// Start the error matches ErrStarted.
func (m *ConnectionManager) SetCallbacks(c Callbacks) error {
	m.lock()
	defer m.mu.Unlock()
	switch {
	case m.leaving:
		return errClosed
	case m.started:
		return errStarted
	}
	if c.OnICERequest != nil {
		m.cfg.OnICERequest = c.OnICERequest
	}
	if c.OnChannelRequest != nil {
		m.cfg.OnChannelRequest = c.OnChannelRequest
	}
	if c.OnConnectionReady != nil {
		m.cfg.OnConnectionReady = c.OnConnectionReady
	}
	if c.OnNewDevice != nil {
		m.cfg.OnNewDevice = c.OnNewDevice
	}
	return nil
}

// running returns why no link can be made or used: ErrNotStarted, or what matches
// ErrClosed.
func (m *ConnectionManager) running() error {
	m.lock()
	defer m.mu.Unlock()
	switch {
	case m.leaving:
		return errClosed
	case !m.started:
		return fmt.Errorf("peerlink: connection manager: %w", ErrNotStarted)
	}
	return nil
}

const (
	// maxSaid is for how many devices the manager remembers how much it logged.
	maxSaid = 1024
	// sayBurst is how many lines about one device are logged at once, and then
	// one in a second: a hostile one must not fill the disk.
	sayBurst = 10
	// strangersSay is how many lines in a second are logged about all strangers,
	// which have as many keys as they like; strangersBurst are logged at once.
	strangersSay, strangersBurst = 10, 100
)

// asker returns a device as one that wants a place. Room of its own is kept for a
// member.
func (m *ConnectionManager) asker(peer identity.Peer) asker {
	return asker{peer.Device, m.cfg.Trust.Member(peer)}
}

// about logs what a device has caused, unless there was too much about it, or about
// strangers.
func (m *ConnectionManager) about(a asker, msg string, args ...any) {
	if now := time.Now(); m.said.Allow(a.device, now) && (a.member || m.aloud.AllowN(now, 1)) {
		m.cfg.Logger.Info(msg, append([]any{"peer", a.device}, args...)...)
	}
}

// watchTrust closes the links of devices that the trust store no longer allows, and
// notes which are members.
func (m *ConnectionManager) watchTrust(ctx context.Context) {
	for {
		changed := m.cfg.Trust.Changed()
		for _, l := range m.allLinks() {
			m.look(l)
			if err := m.cfg.Trust.Admit(l.peer); err != nil {
				m.cfg.Logger.Info("closing link", "peer", l.peer.Device, "err", err)
				m.life.Go(func(context.Context) { _ = l.mux.CloseWith(channel.CodeRefused, "not trusted any more") })
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Close ends all links, telling their peers, and everything under way: pending
// calls return an error that matches net.ErrClosed. What Writes on channels
// have returned is still sent, for a second at most, and then cut. The carriers
// are closed after the links. Close waits for the manager's goroutines, at most
// two seconds if callbacks of the application do not return; then it says so. The
// error is, or has within it, a *ShutdownError if a peer has not confirmed all that
// was sent. Calls while it runs wait for it and return the same, later ones nil. See
// Shutdown for waiting until channels have ended.
func (m *ConnectionManager) Close() error {
	m.made()
	select {
	case <-m.done:
		return nil // it was told
	default:
	}
	m.leave()
	links := m.allLinks() // before the goroutines that serve them end
	if !m.life.EndWith(errClosed) {
		<-m.done
		return m.err
	}
	defer close(m.done)
	defer m.transport.CloseIdleConnections()
	began, closed, over := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		_ = m.closeLinks(&m.cut, links...)
		m.closeCarriers()
		close(closed)
		m.life.Wait()
		close(over)
	}()
	_ = pause.Until(context.Background(), m.cfg.Link.CloseTimeout+carrierTimeout, closed)
	var late error
	select {
	case <-over:
	case <-time.After(closeTimeout):
		late = fmt.Errorf("peerlink: closed, but a callback of the application, or a carrier, still runs after %v", time.Since(began).Round(time.Second))
	}
	m.locked(func() { m.err = (&ShutdownError{slices.Clone(m.cut.Cut)}).orNil() })
	if late != nil {
		m.err = errors.Join(m.err, late)
	}
	return m.err
}

// made panics unless New or Open has made the manager.
func (m *ConnectionManager) made() {
	if m == nil || m.done == nil {
		panic("peerlink: a ConnectionManager was used that neither New nor Open has made; did they fail?")
	}
}

// lock takes m.mu, of a manager that was made.
func (m *ConnectionManager) lock() {
	m.made()
	m.mu.Lock()
}

// locked runs f while m.mu is held.
func (m *ConnectionManager) locked(f func()) {
	m.lock()
	defer m.mu.Unlock()
	f()
}

// leave has nothing new begin: no link, no channel. What runs goes on.
func (m *ConnectionManager) leave() {
	first := false
	m.locked(func() { first, m.leaving = !m.leaving, true })
	if !first {
		return
	}
	m.router.close()
	for _, l := range m.cfg.Listeners {
		if s, ok := l.(Stopper); ok {
			s.StopAccepting()
		}
	}
}

// closeLinks ends links, each with a second for what was written, and forgets them.
// A link that ends too early is noted in cut: m.mu guards it, and it is the error.
func (m *ConnectionManager) closeLinks(cut *ShutdownError, links ...*link) error {
	var closing sync.WaitGroup
	for _, l := range links {
		closing.Go(func() {
			err := l.mux.Close()
			m.unregister(l) // so that the lists say so when this returns
			m.locked(func() { cut.note(l, err) })
		})
	}
	closing.Wait()
	return cut.orNil()
}

// closeCarriers gives back what the carriers have. Links need it no more.
func (m *ConnectionManager) closeCarriers() {
	var closing sync.WaitGroup
	for _, l := range m.cfg.Listeners {
		closing.Go(func() { _ = l.Close() })
	}
	closing.Wait()
}

// Shutdown is a Close that lets channels finish: it takes no new links and
// channels, on this side and, with the peers being told, on theirs, waits until
// the channels have ended on both sides and the peers have all bytes, or ctx ends,
// and then closes. The error is Close's, with the links that were cut before that in
// its *ShutdownError.
func (m *ConnectionManager) Shutdown(ctx context.Context) error {
	m.leave()
	m.transport.CloseIdleConnections()
	var draining sync.WaitGroup
	for _, l := range m.allLinks() {
		if l.mux.Err() != nil { // it had ended before
			continue
		}
		draining.Go(func() {
			err := l.mux.Drain(ctx, channel.CodeClosed, errShuttingDown.Error())
			if !errors.Is(err, net.ErrClosed) { // which this side did by itself
				m.locked(func() { m.cut.note(l, err) })
			}
		})
	}
	draining.Wait()
	return m.Close()
}
