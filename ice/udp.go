package ice

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pion/transport/v3"
	"github.com/pion/transport/v3/stdnet"
	"github.com/quic-go/quic-go"

	"peerlink/identity"
	"peerlink/internal/pause"
	"peerlink/internal/route"
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

	// A peer that dies is noticed by the pulse, within silenceLimit and a look. The
	// time-out is for a path that lives while QUIC gets nothing through: after 6 s
	// it has sent everything again six times, and the link's beacon has ended.
	quicKeepAlive   = 500 * time.Millisecond
	quicIdleTimeout = 6 * time.Second

	// A window must hold what is under way: 16 MiB are 1 Gbit/s at 130 ms.
	quicFirstWindow  = 2 << 20
	quicStreamWindow = 16 << 20
	quicConnWindow   = 24 << 20

	// The least that QUIC allows, before IP and UDP. quic-go would begin with
	// 1280, and never get through a tunnel that carries 1280 with them; it tries
	// more by itself once the connection is up.
	quicFirstPacket = 1200
)

// udpEngine is ICE by pion for finding a path, and QUIC for the bytes, on one
// UDP socket for all devices.
type udpEngine struct {
	t       *Transport
	socket  *net.UDPConn
	base    *base   // the socket
	relays  *relays // nil without TURN servers
	mux     *stunMux
	watches sync.Map // the *watch of each connection, by tag
	net     transport.Net
	port    uint16
	v6      bool

	mu    sync.Mutex
	conns map[*quic.Conn]struct{}

	senders sync.WaitGroup // of datagrams: each ends with its connection; Add only under mu
}

func newUDPEngine(t *Transport) (*udpEngine, error) {
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, fmt.Errorf("ice: open a UDP port: %w", err)
	}
	addr := conn.LocalAddr().(*net.UDPAddr)
	e := &udpEngine{t: t, socket: conn, port: uint16(addr.Port), v6: addr.IP.To4() == nil, conns: make(map[*quic.Conn]struct{})}
	if e.net, err = stdnet.NewNet(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("ice: network interfaces: %w", err)
	}
	locals := []net.Addr{&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: addr.Port}}
	if e.v6 {
		locals = append(locals, &net.UDPAddr{IP: net.IPv6loopback, Port: addr.Port})
	}
	e.mux = newStunMux(e.write, locals)
	if servers := slices.DeleteFunc(slices.Clone(t.servers), func(s server) bool { return !s.relays() }); len(servers) > 0 {
		e.relays = &relays{e: e, servers: servers, all: make(map[*relay]struct{})}
		e.mux.relay = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2), Port: addr.Port}
		e.mux.relayed = e.relays.send
		e.mux.canRelay = func() bool { return e.relays.current() != nil }
	}
	if e.base, err = newBase(e, socket{conn}, nil); err != nil {
		conn.Close()
		return nil, err
	}
	e.base.run(func() {})
	return e, nil
}

// write sends a packet from the socket.
func (e *udpEngine) write(b []byte, to net.Addr) (int, error) {
	if e.t.cfg.lost != nil && e.t.cfg.lost(addrPort(to)) {
		return len(b), nil
	}
	return e.base.quic.WriteTo(b, to)
}

func (e *udpEngine) config() *quic.Config {
	return &quic.Config{
		EnableDatagrams:                true,
		HandshakeIdleTimeout:           greetTimeout,
		InitialPacketSize:              quicFirstPacket,
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
	e.senders.Wait()
	if e.relays != nil {
		e.relays.close()
	}
	e.base.close()
	e.socket.Close()
}

// stop ends accepting.
func (e *udpEngine) stop() { e.base.ln.Close() }

// connContext keeps strangers from costing a handshake.
func (e *udpEngine) connContext(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	if !e.mux.mayConnect(addrPort(info.RemoteAddr)) {
		return nil, errors.New("no negotiation was checked from this address")
	}
	return ctx, nil
}

// describe opens a session: from now on requests of the peer's agent are kept.
func (e *udpEngine) describe(n *negotiation, m *message, addrs []netip.Addr) error {
	s := &udpSession{e: e, n: n, ufrag: rand.Text()[:16], password: rand.Text(), remotec: make(chan *message, 1), morec: make(chan []candidate)}
	s.stun = e.mux.open(s.ufrag, s.password, n.price.Load)
	if !n.spawn(s.run) {
		e.mux.RemoveConnByUfrag(s.ufrag)
		return errEnded
	}
	n.udp = s
	m.udp = &udpPart{s.ufrag, s.password, e.candidates(addrs)}
	if e.relays != nil {
		n.spawn(e.relays.serve)
	}
	return nil
}

func (e *udpEngine) candidates(addrs []netip.Addr) []candidate {
	return withOutside(hostCandidates(addrs, e.port, e.t.cfg.Loopback, e.v6), e.t.outside.of(engineUDP))
}

// more adds candidates of the peer's agent.
func (e *udpEngine) more(n *negotiation, found []candidate) {
	n.spawn(func(ctx context.Context) {
		select {
		case n.udp.morec <- found:
		case <-ctx.Done():
		}
	})
}

// start wakes the session; describe has run before, on the same goroutine.
func (e *udpEngine) start(n *negotiation, remote *message) {
	pause.Tell(n.udp.remotec, remote)
}

// typeOf says what an address of the peer's is. Packets of a peer's relay may
// come before the signal that names it: an address that the peer has not named,
// on the host where this side's own relay lies, is taken to be one too.
func (e *udpEngine) typeOf(n *negotiation, remote netip.AddrPort) string {
	typ := n.typeOf(engineUDP, remote)
	if typ == unnamed && !n.isPeers(engineUDP, remote.Addr()) && e.relays.lieAt(remote.Addr()) {
		return relayCandidate.String()
	}
	return typ
}

// describePath tells the addresses of a path. The one from which the system
// sends is not known to a socket of no particular address.
func (e *udpEngine) describePath(at *base, n *negotiation, remote netip.AddrPort) route.Path {
	to := net.UDPAddrFromAddrPort(remote)
	if at.relay != nil {
		p := route.Between(engineUDP, relayCandidate.String(), net.UDPAddrFromAddrPort(at.relay.addr), to)
		p.Relay = at.relay.server
		return p
	}
	local := e.socket.LocalAddr()
	if probe, err := net.DialUDP("udp", nil, to); err == nil {
		local = &net.UDPAddr{IP: probe.LocalAddr().(*net.UDPAddr).IP, Port: int(e.port)}
		probe.Close()
	}
	return route.Between(engineUDP, e.typeOf(n, remote), local, to)
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
	// The device closes what it does not take within greetTimeout, and QUIC what is
	// dead: to give up sooner would lose a stream that a busy device has just taken.
	err = bounded(ctx, stream, e.t.cfg.Timeout, func() error {
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

// serve finds the negotiation of an incoming connection: it must be one with
// the device that the handshake has proven.
func (e *udpEngine) serve(ctx context.Context, b *base, conn *quic.Conn) {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	if err := e.welcome(ctx, b, conn); err != nil {
		e.t.log.Debug("ice: QUIC connection refused", "from", conn.RemoteAddr(), "err", err)
		conn.CloseWithError(codeRefused, "")
	}
}

func (e *udpEngine) welcome(ctx context.Context, at *base, conn *quic.Conn) error {
	peer, err := tlssock.PeerOf(conn.ConnectionState().TLS)
	if err != nil {
		return err
	}
	stream, err := conn.AcceptStream(ctx)
	if err != nil {
		return err
	}
	var b [len(quicPreface) + 16]byte
	if err := bounded(ctx, stream, greetTimeout, func() error {
		_, err := io.ReadFull(stream, b[:])
		return err
	}); err != nil {
		return err
	}
	n := e.t.find(hello{role: controlling, id: requestID(b[len(quicPreface):])})
	if string(b[:len(quicPreface)]) != quicPreface || n == nil || n.peer != peer.Device {
		return fmt.Errorf("no negotiation with device %s waits for this connection", peer.Device)
	}
	desc := e.describePath(at, n, addrPort(conn.RemoteAddr()))
	if !at.keep(conn) {
		return errClosed
	}
	class := udpClass
	if desc.Class == relayCandidate.String() {
		class = relayClass
	}
	way := e.t.way(n, addrPort(conn.RemoteAddr()), class)
	return e.t.deliver(n, newQUICConn(at, conn, stream, desc, controlled), peer, way, func() error {
		return bounded(ctx, stream, greetTimeout, func() error {
			_, err := stream.Write([]byte{greeting})
			return err
		})
	})
}
