package ice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"peerlink/identity"
	"peerlink/internal/pause"
	"peerlink/internal/proving"
	"peerlink/internal/quota"
	"peerlink/internal/route"
	"peerlink/tlssock"
)

const (
	// dialPacing is the time between the first dials to two candidates. RFC 6544
	// has none for local networks; RFC 8305 waits 250 ms for servers. A host's
	// wrong interfaces cost only a SYN each, so ours is short.
	dialPacing = 10 * time.Millisecond
	// dialTimeout bounds one SYN's life: a NAT's hole may open while it waits,
	// but only a new SYN goes through it.
	dialTimeout = 3 * time.Second
	// redialPause is the first pause between dials to one candidate, doubled up
	// to maxRedialPause.
	redialPause    = 50 * time.Millisecond
	maxRedialPause = time.Second
	// acceptPause is the first pause after a failed accept, which means that
	// descriptors have run out.
	acceptPause    = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// Bounds on accepted connections that have not passed their check. An honest
// one is through in two round trips; the oldest is dropped for a new one, so
// that connections which only sit there (slow writers) are what goes.
const (
	maxUnchecked      = 256
	maxUncheckedOfOne = 64 // of one IPv4 address or IPv6 /64
)

func newGate() *proving.Gate {
	return &proving.Gate{Places: maxUnchecked, PerSource: maxUncheckedOfOne, Source: func(c net.Conn) (netip.Prefix, bool) {
		return quota.Host(c.RemoteAddr().String()), true
	}}
}

// tcpEngine is ICE over TCP: one port from which it listens and dials, checks
// that prove knowledge of the offer's key, and the plain connection as result.
type tcpEngine struct {
	t     *Transport
	ln    net.Listener
	local *net.TCPAddr // of dials that share the listener's port
	v6    bool
	gate  *proving.Gate // of accepted connections whose check is still running
}

func newTCPEngine(t *Transport) (*tcpEngine, error) {
	shared := net.ListenConfig{Control: reusePort} // so that dials can leave from the port too
	ln, err := shared.Listen(context.Background(), "tcp", ":0")
	if err != nil {
		return nil, fmt.Errorf("ice: open a TCP port: %w", err)
	}
	addr := ln.Addr().(*net.TCPAddr)
	e := &tcpEngine{t: t, ln: ln, gate: newGate(), local: &net.TCPAddr{Port: addr.Port}, v6: addr.IP.To4() == nil}
	t.board.Go(e.accept)
	return e, nil
}

func (e *tcpEngine) name() string { return engineTCP }

func (e *tcpEngine) stop() { e.ln.Close() }

func (e *tcpEngine) close() {}

func (e *tcpEngine) describe(n *negotiation, m *message, addrs []netip.Addr) error {
	m.tcp = &tcpPart{
		key:        n.key,
		candidates: e.candidates(n, addrs),
	}
	return nil
}

func (e *tcpEngine) candidates(n *negotiation, addrs []netip.Addr) []candidate {
	more := e.t.outside.of(engineTCP)
	if n.role == controlled {
		more = append(e.t.directCandidates(addrs), more...)
	}
	return withOutside(hostCandidates(addrs, uint16(e.local.Port), e.t.cfg.Loopback, e.v6), more)
}

// accept takes connections until the listener is closed.
func (e *tcpEngine) accept(ctx context.Context) {
	pauses := pause.Backoff(acceptPause, maxAcceptPause)
	for {
		conn, err := e.ln.Accept()
		switch {
		case err == nil:
			pauses.Reset()
			v := e.gate.Admit(conn, time.Now())
			if v.Out != nil {
				v.Out.Conn.Close()
			}
			if !e.t.board.Go(func(ctx context.Context) { e.serve(ctx, v.In) }) {
				conn.Close()
			}
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return
		default:
			again := pauses.NextBackOff()
			e.t.log.Warn("ice: accept a connection", "err", err, "again in", again)
			if pause.For(ctx, again) != nil {
				return
			}
		}
	}
}

// serve checks an accepted connection and gives it to its negotiation.
func (e *tcpEngine) serve(ctx context.Context, p *proving.Place) {
	var n *negotiation
	err := bounded(ctx, p.Conn, checkTimeout, func() (err error) {
		n, err = checkAccepted(p.Conn, e.t.find)
		return err
	})
	if !p.Leave() && err == nil {
		err = errors.New("dropped for newer connections")
	}
	if err != nil {
		e.t.log.Debug("ice: check failed", "from", p.Conn.RemoteAddr(), "err", err)
		p.Conn.Close()
		return
	}
	e.checked(n, p.Conn.(*net.TCPConn), e.acceptedFrom(n, addrPort(p.Conn.RemoteAddr())), tcpClass)
}

// acceptedFrom says what the peer is at an address from which it has dialled:
// any port of one of its interfaces, or behind a NAT.
func (e *tcpEngine) acceptedFrom(n *negotiation, from netip.AddrPort) string {
	typ := n.typeOf(engineTCP, from)
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.remote[engineTCP]) == 0 { // its answer is still under way
		return hostCandidate.String()
	}
	for _, c := range n.remote[engineTCP] {
		if typ == unnamed && c.typ == hostCandidate && c.addr.Addr() == from.Addr() {
			return hostCandidate.String()
		}
	}
	return typ
}

// start dials every candidate of the peer, one shortly after the other.
func (e *tcpEngine) start(n *negotiation, remote *message) { e.more(n, remote.tcp.candidates) }

// more dials further candidates.
func (e *tcpEngine) more(n *negotiation, candidates []candidate) {
	n.spawn(func(ctx context.Context) {
		for i, c := range candidates {
			if i > 0 && pause.For(ctx, dialPacing) != nil {
				return
			}
			if !n.price.Load().Takes(engineTCP, c.addr.Addr(), false) {
				n.tried(engineTCP, c.String(), errStrangers)
				continue
			}
			n.spawn(func(ctx context.Context) {
				if c.typ != directCandidate || n.role == controlling && pause.For(ctx, directDelay) == nil {
					e.pursue(ctx, n, c)
				}
			})
		}
	})
}

// errStrangers is why a candidate of a stranger is not tried at all.
var errStrangers = errors.New("one of a stranger's candidates that are more than a few, or private and on no network of this machine")

// pursue dials a candidate until the negotiation ends, or as often as its price
// allows. A connection that has passed its check is kept, and replaced only if it
// comes to nothing: the other side may have dropped it for newer ones, or died and
// come back.
func (e *tcpEngine) pursue(ctx context.Context, n *negotiation, c candidate) {
	shared := canSharePort && c.typ != directCandidate
	price := n.price.Load()
	for !price.Pay(time.Now()) {
		if pause.For(ctx, redialPause) != nil {
			return
		}
	}
	pauses := pause.Backoff(redialPause, maxRedialPause)
	for left := price.Dials(); left > 0 && ctx.Err() == nil; left-- {
		conn, err := e.dial(ctx, n, c, shared)
		switch {
		case err == nil:
			select {
			case <-e.checked(n, conn, c.typ.String(), classOf(c.typ)):
			case <-ctx.Done():
			}
		case shared && (portTaken(err) || errors.Is(err, errCrossed)):
			// The addresses and ports of both listeners make one connection, no
			// more. A further one needs a port of its own.
			shared = false
			left++
			continue
		default:
			n.tried(engineTCP, c.String(), err)
		}
		if pause.For(ctx, pauses.NextBackOff()) != nil {
			return
		}
	}
}

// dial makes one connection and checks it, unless the device's other listener takes it.
func (e *tcpEngine) dial(ctx context.Context, n *negotiation, c candidate, shared bool) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	if shared {
		d.LocalAddr, d.Control = e.local, reusePort
	}
	conn, err := d.DialContext(ctx, "tcp", c.addr.String())
	if err != nil {
		return nil, err
	}
	if c.typ == directCandidate {
		return conn.(*net.TCPConn), nil
	}
	if err := bounded(ctx, conn, checkTimeout, func() error {
		return checkDialled(conn, n.role, n.id, n.key)
	}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("check: %w", err)
	}
	return conn.(*net.TCPConn), nil
}

// checked is where dialled and accepted connections meet. The controlling side
// may nominate the connection, the controlled side waits for that. The result
// is closed when the connection has come to nothing.
func (e *tcpEngine) checked(n *negotiation, conn *net.TCPConn, typ string, class class) <-chan struct{} {
	lost := make(chan struct{})
	c := newTCPConn(conn, route.Between(engineTCP, typ, conn.LocalAddr(), conn.RemoteAddr()))
	take, direct := e.nominate, typ == directCandidate.String()
	if direct {
		take = e.secure
	}
	n.worked(engineTCP, typ+" "+c.path.Remote.String())
	if n.role == controlling {
		n.addPath(&path{
			Path:  c.path,
			class: class,
			near:  class == tcpClass,
			apart: direct,
			drop:  func() { c.Close() },
			take: func(ctx context.Context) (net.Conn, identity.Peer, error) {
				s, err := take(ctx, n, c)
				if err != nil {
					close(lost)
					return nil, identity.Peer{}, err
				}
				return s, s.Peer(), nil
			},
		})
		return lost
	}
	if !n.spawn(func(ctx context.Context) {
		if err := e.await(ctx, n, c); err != nil {
			n.tried(engineTCP, c.path.String(), err)
			close(lost)
		}
	}) {
		c.Close()
	}
	return lost
}

// secure proves the device at the end of a connection.
func (e *tcpEngine) secure(ctx context.Context, n *negotiation, c *tcpConn) (*tlssock.Conn, error) {
	return e.t.tls.Client(ctx, c, n.peer)
}

// nominate is the controlling side's: the byte that decides, then TLS.
func (e *tcpEngine) nominate(ctx context.Context, n *negotiation, c *tcpConn) (*tlssock.Conn, error) {
	if err := bounded(ctx, c, checkTimeout, func() error {
		_, err := c.Write([]byte{nominate})
		return err
	}); err != nil {
		c.Close()
		return nil, fmt.Errorf("nominate: %w", err)
	}
	s, err := e.secure(ctx, n, c)
	if err != nil {
		return nil, err
	}
	// A TLS 1.3 client is done before the server has judged it, and before the
	// device has decided to keep this connection.
	if err := bounded(ctx, s, checkTimeout, func() error { return readGreeting(s) }); err != nil {
		s.Close()
		return nil, fmt.Errorf("greeting: %w", err)
	}
	return s, nil
}

// readGreeting reads the byte with which the device takes the stream.
func readGreeting(r io.Reader) error {
	var b [1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	if b[0] != greeting {
		return fmt.Errorf("0x%02x where a greeting was due", b[0])
	}
	return nil
}

// await is the controlled side's: a connection is nominated and proven, or
// closed by the caller, or ends with the negotiation.
func (e *tcpEngine) await(ctx context.Context, n *negotiation, c *tcpConn) error {
	var b [1]byte
	err := bounded(ctx, c, e.t.cfg.Timeout, func() error {
		_, err := io.ReadFull(c, b[:])
		return err
	})
	if err == nil && b[0] != nominate {
		err = fmt.Errorf("0x%02x where a nomination was due", b[0])
	}
	if err != nil {
		c.Close()
		return fmt.Errorf("not nominated: %w", err)
	}
	s, err := e.t.tls.Server(ctx, c)
	if err != nil {
		return err
	}
	return e.t.deliver(n, s, s.Peer(), e.t.way(n, addrPort(c.RemoteAddr()), tcpClass), func() error {
		return bounded(e.t.board.Context(), s, checkTimeout, func() error {
			_, err := s.Write([]byte{greeting})
			return err
		})
	})
}
