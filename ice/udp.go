package ice

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/transport/v3"
	"github.com/pion/transport/v3/stdnet"
	"github.com/quic-go/quic-go"

	"peerlink/identity"
	"peerlink/tlssock"
)

const (
	// headStart is what TCP has before the agent of the same negotiation starts,
	// unless the peer's agent is heard. On a local network TCP is then done and
	// the agent is never made; elsewhere 20 ms are lost in hundreds.
	headStart = 20 * time.Millisecond
	// checkInterval is between two rounds of checks. pion nominates on a round,
	// so half of it is the mean delay on top of the round trips.
	checkInterval = 20 * time.Millisecond
	// quicPreface opens the stream, followed by the request id.
	quicPreface  = "PLQ1"
	greetTimeout = 5 * time.Second

	// A peer that dies is noticed at most keepAlive + idleTimeout = 2.8 s later:
	// the idle time-out starts again with the first packet sent into silence.
	// (1 s and 3 s would make it 4 s.)
	quicKeepAlive   = 500 * time.Millisecond
	quicIdleTimeout = 2300 * time.Millisecond

	// A window must hold what is under way: 16 MiB are 1 Gbit/s at 130 ms.
	quicFirstWindow  = 2 << 20
	quicStreamWindow = 16 << 20
	quicConnWindow   = 24 << 20
)

// udpEngine is ICE by pion for finding a path, and QUIC for the bytes, on one
// UDP socket for all devices.
type udpEngine struct {
	t      *Transport
	socket *net.UDPConn
	quic   *quic.Transport
	ln     *quic.Listener
	mux    *stunMux
	net    transport.Net
	port   uint16
	v6     bool

	mu    sync.Mutex
	conns map[*quic.Conn]struct{}
}

func newUDPEngine(t *Transport) (*udpEngine, error) {
	socket, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(t.cfg.UDPPort)})
	if err != nil {
		return nil, fmt.Errorf("ice: open UDP port %d: %w", t.cfg.UDPPort, err)
	}
	addr := socket.LocalAddr().(*net.UDPAddr)
	e := &udpEngine{t: t, socket: socket, port: uint16(addr.Port), v6: addr.IP.To4() == nil, conns: make(map[*quic.Conn]struct{})}
	if e.net, err = stdnet.NewNet(); err != nil {
		socket.Close()
		return nil, fmt.Errorf("ice: network interfaces: %w", err)
	}
	e.quic = &quic.Transport{Conn: socket, ConnContext: e.connContext, DisableVersionNegotiationPackets: true}
	locals := []net.Addr{&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: addr.Port}}
	if e.v6 {
		locals = append(locals, &net.UDPAddr{IP: net.IPv6loopback, Port: addr.Port})
	}
	e.mux = newStunMux(e.quic.WriteTo, locals)
	if e.ln, err = e.quic.Listen(t.tls.ServerTLS(), e.config()); err != nil {
		socket.Close()
		return nil, fmt.Errorf("ice: listen for QUIC: %w", err)
	}
	t.spawn(e.readSTUN)
	t.spawn(e.accept)
	return e, nil
}

func (e *udpEngine) config() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           greetTimeout,
		KeepAlivePeriod:                quicKeepAlive,
		MaxIdleTimeout:                 quicIdleTimeout,
		MaxIncomingStreams:             1,
		MaxIncomingUniStreams:          1,
		InitialStreamReceiveWindow:     quicFirstWindow,
		InitialConnectionReceiveWindow: quicFirstWindow,
		MaxStreamReceiveWindow:         quicStreamWindow,
		MaxConnectionReceiveWindow:     quicConnWindow,
	}
}

func (e *udpEngine) name() string { return engineUDP }

// close runs after everything that the Transport waits for has ended.
func (e *udpEngine) close() {
	e.mu.Lock()
	conns := e.conns
	e.conns = nil
	e.mu.Unlock()
	for c := range conns {
		c.CloseWithError(codeGone, "transport closed")
	}
	e.ln.Close()
	e.quic.Close()
	e.socket.Close()
}

// stop ends accepting.
func (e *udpEngine) stop() { e.ln.Close() }

// keep remembers a live connection for close; false where that has run.
func (e *udpEngine) keep(c *quic.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conns == nil {
		return false
	}
	e.conns[c] = struct{}{}
	context.AfterFunc(c.Context(), func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.conns, c)
	})
	return true
}

func (e *udpEngine) readSTUN(ctx context.Context) {
	b := make([]byte, 1500)
	for {
		n, from, err := e.quic.ReadNonQUICPacket(ctx, b)
		if err != nil {
			return
		}
		e.mux.dispatch(b[:n], from)
	}
}

// connContext keeps strangers from costing a handshake.
func (e *udpEngine) connContext(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	if !e.mux.mayConnect(addrPort(info.RemoteAddr)) {
		return nil, errors.New("no negotiation was checked from this address")
	}
	return ctx, nil
}

// describe opens a session: from now on requests of the peer's agent are kept.
func (e *udpEngine) describe(n *negotiation, m *message, addrs []netip.Addr) error {
	s := &udpSession{e: e, n: n, ufrag: rand.Text()[:16], password: rand.Text(), remotec: make(chan *message, 1)}
	s.stun = e.mux.open(s.ufrag)
	if !n.spawn(s.run) {
		e.mux.RemoveConnByUfrag(s.ufrag)
		return errEnded
	}
	n.udp = s
	m.udp = &udpPart{s.ufrag, s.password, hostCandidates(addrs, e.port, e.t.cfg.Loopback, e.v6)}
	return nil
}

// start wakes the session; describe has run before, on the same goroutine.
func (e *udpEngine) start(n *negotiation, remote *message) {
	select {
	case n.udp.remotec <- remote:
	default:
	}
}

// describePath names the address from which the system sends to remote, which
// a socket of no particular address does not know itself.
func (e *udpEngine) describePath(typ string, remote *net.UDPAddr) string {
	local := e.socket.LocalAddr()
	if probe, err := net.DialUDP("udp", nil, remote); err == nil {
		local = &net.UDPAddr{IP: probe.LocalAddr().(*net.UDPAddr).IP, Port: int(e.port)}
		probe.Close()
	}
	return pathName(engineUDP, typ, local, remote)
}

// dial makes the QUIC connection of the controlling side and its one stream.
func (e *udpEngine) dial(ctx context.Context, n *negotiation, remote net.Addr, desc string) (net.Conn, identity.Peer, error) {
	conn, err := e.quic.Dial(ctx, remote, e.t.tls.ClientTLS(n.peer), e.config())
	if err != nil {
		return nil, identity.Peer{}, fmt.Errorf("quic: %w", err)
	}
	stream, peer, err := e.greet(ctx, conn, n)
	if err == nil && !e.keep(conn) {
		err = errClosed
	}
	if err != nil {
		conn.CloseWithError(codeRefused, "")
		return nil, identity.Peer{}, err
	}
	return newQUICConn(e.t, conn, stream, desc), peer, nil
}

// greet opens the stream and waits until the device has taken it: only then is
// it sure that it accepts this side's certificate.
func (e *udpEngine) greet(ctx context.Context, conn *quic.Conn, n *negotiation) (*quic.Stream, identity.Peer, error) {
	peer, err := tlssock.PeerOf(conn.ConnectionState().TLS)
	if err != nil {
		return nil, identity.Peer{}, err
	}
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, identity.Peer{}, fmt.Errorf("quic: open the stream: %w", err)
	}
	err = quicBounded(ctx, stream, func() error {
		if _, err := stream.Write(append([]byte(quicPreface), n.id[:]...)); err != nil {
			return err
		}
		return readGreeting(stream)
	})
	if err != nil {
		return nil, identity.Peer{}, fmt.Errorf("quic: greeting: %w", err)
	}
	return stream, peer, nil
}

// accept takes QUIC connections.
func (e *udpEngine) accept(ctx context.Context) {
	for {
		conn, err := e.ln.Accept(ctx)
		if err != nil {
			return
		}
		if !e.t.spawn(func(ctx context.Context) { e.serve(ctx, conn) }) {
			conn.CloseWithError(codeGone, "")
		}
	}
}

// serve finds the negotiation of an incoming connection: it must be one with
// the device that the handshake has proven.
func (e *udpEngine) serve(ctx context.Context, conn *quic.Conn) {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	if err := e.welcome(ctx, conn); err != nil {
		e.t.failed.Add(1)
		e.t.log.Debug("ice: QUIC connection refused", "from", conn.RemoteAddr(), "err", err)
		conn.CloseWithError(codeRefused, "")
	}
}

func (e *udpEngine) welcome(ctx context.Context, conn *quic.Conn) error {
	peer, err := tlssock.PeerOf(conn.ConnectionState().TLS)
	if err != nil {
		return err
	}
	stream, err := conn.AcceptStream(ctx)
	if err != nil {
		return err
	}
	var b [len(quicPreface) + 16]byte
	if err := quicBounded(ctx, stream, func() error {
		_, err := io.ReadFull(stream, b[:])
		return err
	}); err != nil {
		return err
	}
	n := e.t.find(hello{role: controlling, id: requestID(b[len(quicPreface):])})
	if string(b[:len(quicPreface)]) != quicPreface || n == nil || n.peer != peer.Device {
		return fmt.Errorf("no negotiation with device %s waits for this connection", peer.Device)
	}
	desc := e.describePath(hostCandidate.String(), conn.RemoteAddr().(*net.UDPAddr))
	if !e.keep(conn) {
		return errClosed
	}
	return e.t.deliver(n, newQUICConn(e.t, conn, stream, desc), peer, func() error {
		return quicBounded(ctx, stream, func() error {
			_, err := stream.Write([]byte{greeting})
			return err
		})
	})
}

// quicBounded is bounded for a stream, within greetTimeout.
func quicBounded(ctx context.Context, stream *quic.Stream, f func() error) error {
	if err := stream.SetDeadline(time.Now().Add(greetTimeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { stream.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return stream.SetDeadline(time.Time{})
}
