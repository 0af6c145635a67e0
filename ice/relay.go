package ice

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v3"

	"peerlink/internal/pause"
)

const (
	// relayLinger is how long an allocation is kept that nobody uses: the next
	// call to somebody who needs it is then quicker, and a server is not asked
	// for one by every call.
	relayLinger = time.Minute
	// relayStagger is the head start of one way to a relay before the next, as
	// for servers in RFC 8305.
	relayStagger  = 250 * time.Millisecond
	allocateLimit = 8 * time.Second
	// relayPause is how long a failure to get a relay is remembered.
	relayPause = 2 * time.Second
	// maxPermissions bounds the addresses that one allocation may send to.
	maxPermissions = 64
	// deniedPause is how long an address is left alone that a server refused.
	deniedPause = 2 * time.Second
)

// relays makes and keeps allocations at TURN servers, at most one that is
// offered at a time.
type relays struct {
	e       *udpEngine
	servers []server

	mu         sync.Mutex
	closed     bool
	cur        *relay              // the one that is offered
	all        map[*relay]struct{} // with those that connections still use
	wanted     int                 // negotiations that may need one
	allocating bool
	failed     time.Time
	shutting   sync.WaitGroup // Add only under mu
}

// relay is one allocation.
type relay struct {
	p      *relays
	server string
	addr   netip.AddrPort // where it receives for this device
	client *turn.Client
	conn   net.Conn // to the server
	packet *relayConn
	base   *base
	over   chan struct{} // closed when base has ended

	// Guarded by p.mu.
	users  int // live connections
	idle   *time.Timer
	closed bool
}

const relaySource = "relay"

// serve keeps a relay for a negotiation, for as long as ctx. On a local network
// the negotiation is over before one is asked for.
func (r *relays) serve(ctx context.Context) {
	r.mu.Lock()
	have := r.cur != nil
	r.mu.Unlock()
	if !have && pause.For(ctx, headStart) != nil {
		return
	}
	r.mu.Lock()
	r.wanted++
	r.allocateLocked()
	r.settleLocked()
	r.mu.Unlock()
	<-ctx.Done()
	r.mu.Lock()
	r.wanted--
	r.settleLocked()
	r.mu.Unlock()
}

// allocateLocked asks for a relay where one is wanted and none is there.
func (r *relays) allocateLocked() {
	if r.closed || r.allocating || r.cur != nil || r.wanted == 0 || time.Since(r.failed) < relayPause {
		return
	}
	r.allocating = r.e.t.board.Go(func(ctx context.Context) {
		n, err := r.allocate(ctx)
		r.mu.Lock()
		r.allocating = false
		if err == nil && r.closed {
			err = errClosed
		}
		if err == nil {
			r.cur = n
			r.all[n] = struct{}{}
			r.settleLocked()
		} else {
			r.failed = time.Now()
		}
		r.mu.Unlock()
		r.e.t.said(engineUDP, relaySource, err)
		if err != nil {
			r.e.t.log.Debug("ice: no relay", "err", err)
			if n != nil {
				n.shut()
			}
			return
		}
		r.e.t.log.Debug("ice: relay", "server", n.server, "address", n.addr)
		r.e.t.outside.set(engineUDP, relaySource, candidate{relayCandidate, n.addr})
	})
}

// settleLocked starts and stops the clocks of relays that are not needed.
func (r *relays) settleLocked() {
	for n := range r.all {
		needed := n.users > 0 || n == r.cur && r.wanted > 0
		switch {
		case needed && n.idle != nil:
			n.idle.Stop()
			n.idle = nil
		case !needed && n.idle == nil && !n.closed:
			linger := relayLinger
			if n != r.cur { // in doubt, but calls under way were told of it
				linger = r.e.t.cfg.Timeout
			}
			n.idle = time.AfterFunc(linger, func() { r.retire(n) })
		}
	}
}

// retire closes a relay that is still not needed.
func (r *relays) retire(n *relay) {
	r.mu.Lock()
	if n.users > 0 || n == r.cur && r.wanted > 0 || n.closed {
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	n.close()
}

// current returns the relay that is offered, or nil.
func (r *relays) current() *relay {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cur
}

// lieAt reports whether one of this side's relays lies at an IP address.
func (r *relays) lieAt(ip netip.Addr) bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := range r.all {
		if n.addr.Addr() == ip {
			return true
		}
	}
	return false
}

// send sends a packet through the relay that is offered.
func (r *relays) send(b []byte, to net.Addr) (int, error) {
	if n := r.current(); n != nil {
		return n.packet.WriteTo(b, to)
	}
	return len(b), nil
}

// renew offers another relay from now on, as this one may be cut off.
func (r *relays) renew() {
	if n := r.current(); n != nil {
		n.doubt()
	}
	r.mu.Lock()
	r.failed = time.Time{}
	r.allocateLocked()
	r.mu.Unlock()
}

// close ends all relays. Nothing that the Transport has started is left then.
func (r *relays) close() {
	r.mu.Lock()
	r.closed = true
	all := slices.Collect(maps.Keys(r.all))
	r.mu.Unlock()
	for _, n := range all {
		n.close()
	}
	r.shutting.Wait()
}

// hold counts a connection in that runs over the relay, release out.
func (n *relay) hold() {
	n.p.mu.Lock()
	defer n.p.mu.Unlock()
	n.users++
	n.p.settleLocked()
}

func (n *relay) release() {
	n.p.mu.Lock()
	defer n.p.mu.Unlock()
	n.users--
	n.p.settleLocked()
}

// doubt stops offering the relay; who uses it may go on.
func (n *relay) doubt() {
	n.p.mu.Lock()
	defer n.p.mu.Unlock()
	if n.p.cur != n {
		return
	}
	n.p.cur = nil
	n.p.e.t.outside.clear(engineUDP, relaySource)
	n.p.settleLocked()
	n.p.allocateLocked()
}

// close ends the relay and the connections over it.
func (n *relay) close() {
	n.doubt()
	n.p.mu.Lock()
	if n.closed {
		n.p.mu.Unlock()
		return
	}
	n.closed = true
	if n.idle != nil {
		n.idle.Stop()
	}
	delete(n.p.all, n)
	n.p.shutting.Add(1)
	n.p.mu.Unlock()
	defer n.p.shutting.Done()
	n.shut()
}

// shut ends what the relay consists of, the last first.
func (n *relay) shut() {
	if n.base != nil {
		n.base.close()
		<-n.over
	}
	if n.packet != nil {
		n.packet.close()
	}
	n.client.Close()
	_ = n.conn.Close()
}

// allocate tries all ways to all servers, one shortly after the other, and
// returns the first relay that comes of it.
func (r *relays) allocate(ctx context.Context) (*relay, error) {
	type result struct {
		n   *relay
		err error
	}
	ctx, cancel := context.WithTimeout(ctx, allocateLimit)
	var ways []func() (*relay, error)
	for _, s := range r.servers {
		for _, network := range []string{"udp", "tcp"} {
			if s.transport == "" || s.transport == network {
				ways = append(ways, func() (*relay, error) { return r.allocateAt(ctx, s, network) })
			}
		}
	}
	results := make(chan result, len(ways))
	running := 0
	defer func() { // the losers
		cancel()
		for ; running > 0; running-- {
			if l := <-results; l.n != nil {
				l.n.shut()
			}
		}
	}()
	next := time.NewTimer(0)
	defer next.Stop()
	var errs []error
	for {
		if running == 0 && len(ways) == 0 {
			return nil, errors.Join(errs...)
		}
		var nextc <-chan time.Time
		if len(ways) > 0 {
			nextc = next.C
		}
		select {
		case <-nextc:
			way := ways[0]
			ways = ways[1:]
			running++
			go func() {
				n, err := way()
				results <- result{n, err}
			}()
			next.Reset(relayStagger)
		case res := <-results:
			running--
			if res.err == nil {
				return res.n, nil
			}
			errs = append(errs, res.err)
			next.Reset(0)
		}
	}
}

// allocateAt gets a relay at one server.
func (r *relays) allocateAt(ctx context.Context, s server, network string) (*relay, error) {
	name := s.String()
	if s.transport == "" {
		name += " over " + network
	}
	fail := func(doing string, err error) (*relay, error) {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
		return nil, fmt.Errorf("relay %s: %s: %w", name, doing, err)
	}
	username, password, err := s.credentials(ctx)
	if err != nil {
		return fail("get credentials", err)
	}
	conn, err := s.connect(ctx, network)
	if err != nil {
		return fail("connect", err)
	}
	n := &relay{p: r, server: name, over: make(chan struct{})}
	reading, failed := context.WithCancel(context.Background())
	n.conn = watchedConn{conn, failed}
	through := packets(n.conn, network)
	if n.client, err = turn.NewClient(&turn.ClientConfig{
		TURNServerAddr: nominalServer, Conn: through, Username: username, Password: password,
		LoggerFactory: silentPion(), Net: r.e.net,
	}); err != nil {
		_ = conn.Close()
		return fail("make a client", err)
	}
	// An allocation that was given up ends with its connection, or unrefreshed.
	stop := context.AfterFunc(ctx, n.abort)
	defer stop()
	if err := n.client.Listen(); err != nil {
		n.abort()
		return fail("listen", err)
	}
	packet, err := n.client.Allocate()
	if err != nil {
		n.abort()
		return fail("allocate", through.why(err))
	}
	n.packet = &relayConn{PacketConn: packet, peers: make(map[netip.Addr]permission)}
	if err := n.open(packet.LocalAddr()); err != nil {
		n.shut()
		return fail("use its address", err)
	}
	if !stop() {
		n.shut()
		return fail("allocate", context.Cause(ctx))
	}
	context.AfterFunc(reading, n.close)
	return n, nil
}

// abort wakes whoever waits for the server.
func (n *relay) abort() {
	n.client.Close()
	_ = n.conn.Close()
}

// open puts QUIC and STUN on the allocation.
func (n *relay) open(at net.Addr) error {
	n.addr = addrPort(at)
	if err := checkCandidate(candidate{relayCandidate, n.addr}, n.p.e.t.cfg.Loopback); err != nil {
		return err
	}
	b, err := newBase(n.p.e, n.packet, n)
	if err != nil {
		return err
	}
	if !b.run(func() { close(n.over) }) {
		b.close()
		return errClosed
	}
	n.base = b
	return nil
}

// connect makes the connection over which the server is spoken to.
func (s server) connect(ctx context.Context, network string) (net.Conn, error) {
	d := net.Dialer{Timeout: askTimeout}
	conn, err := d.DialContext(ctx, network, s.addr())
	if err != nil || s.scheme != "turns" {
		return conn, err
	}
	cfg := s.TLS.Clone()
	if cfg == nil {
		cfg = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if cfg.ServerName == "" {
		cfg.ServerName = s.host
	}
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secured, nil
}

func silentPion() logging.LoggerFactory {
	log := logging.NewDefaultLoggerFactory()
	log.DefaultLogLevel = logging.LogLevelDisabled
	return log
}
