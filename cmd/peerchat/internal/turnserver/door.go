package turnserver

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"peerlink/internal/life"
	"peerlink/internal/pause"
	"peerlink/internal/proving"
	"peerlink/internal/quota"
	"peerlink/internal/relay"
)

const (
	// maxConns bounds the TCP connections, of all and of one IPv4 address or
	// IPv6 /64: twice as many as there may be allocations, so that allocations
	// alone do not fill the door. A newcomer takes the place of the oldest that has
	// no allocation, once that is graceLimit old (proving.Gate).
	maxConns      = 2 * maxAllocations
	maxConnsOfOne = 2 * maxOfHost
	// graceLimit is enough for a handshake and an allocation on a slow line.
	graceLimit = 2 * time.Second
	// firstByteLimit bounds what is needed to tell TLS from TURN, and a handshake.
	firstByteLimit = 5 * time.Second
	// idleLimit ends a connection on which nothing arrives: a client that wants it asks
	// at least every minute.
	idleLimit = 2 * time.Minute
	// tlsRecord is the first byte of TLS; the ones of STUN and TURN are below 0x80
	// and never this one (RFC 7983).
	tlsRecord = 0x16
	// alpnTURN is the application protocol of TURN within TLS (RFC 7443).
	alpnTURN = "stun.turn"
)

// door is the TCP port. What turns out to be TURN leaves it by Accept.
type door struct {
	s   *Server
	ln  net.Listener
	tls *tls.Config

	turnc chan net.Conn
	gate  proving.Gate
	life  life.Group // of the port and of what came in by it

	mu       sync.Mutex
	visitors map[string]*visitor // by the name of their address
}

func newDoor(s *Server, ln net.Listener) (*door, error) {
	cert, err := certificate(s.cfg.Key)
	if err != nil {
		return nil, err
	}
	d := &door{
		s: s, ln: ln, turnc: make(chan net.Conn), visitors: make(map[string]*visitor),
		gate: proving.Gate{Places: maxConns, PerSource: maxConnsOfOne, Grace: s.cfg.grace, Source: func(c net.Conn) (netip.Prefix, bool) {
			return quota.Host(c.RemoteAddr().String()), true
		}},
		tls: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert,
			NextProtos: []string{relay.Protocol, alpnTURN}, SessionTicketsDisabled: true,
		},
	}
	d.life.Go(d.run)
	return d, nil
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.turnc:
		return c, nil
	case <-d.life.Done():
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (d *door) Addr() net.Addr { return d.ln.Addr() }

// Close implements net.Listener: it ends all connections too.
func (d *door) Close() error {
	d.life.End()
	_ = d.ln.Close()
	d.life.Wait()
	return nil
}

func (d *door) run(ctx context.Context) {
	for pauses := pause.Backoff(5*time.Millisecond, time.Second); ; {
		c, err := d.ln.Accept()
		switch {
		case err == nil:
			pauses.Reset()
			d.enter(ctx, c)
		case errors.Is(err, net.ErrClosed), pause.For(ctx, pauses.NextBackOff()) != nil:
			return
		}
	}
}

// enter lets a connection in, or closes it where there is no room.
func (d *door) enter(ctx context.Context, c net.Conn) {
	place := d.gate.Admit(c, time.Now())
	for place.Wait > 0 && pause.Until(ctx, place.Wait, place.Freed) == nil {
		place = d.gate.Admit(c, time.Now())
	}
	if place.In == nil {
		_ = c.Close()
		return
	}
	if place.Out != nil {
		_ = place.Out.Conn.Close()
	}
	name := addrName(c.RemoteAddr())
	v := &visitor{Conn: c, place: place.In}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	v.leave = sync.OnceFunc(func() {
		stop()
		d.mu.Lock()
		if d.visitors[name] == v {
			delete(d.visitors, name)
		}
		d.mu.Unlock()
		place.In.Leave()
	})
	d.mu.Lock()
	d.visitors[name] = v
	d.mu.Unlock()
	if !d.life.Go(func(context.Context) { d.receive(v) }) {
		_ = v.Close()
	}
}

// keep makes the connection of a client that gets an allocation safe from
// newcomers. It returns false if the connection has just lost its place.
func (d *door) keep(client string) bool {
	v := d.visitor(client)
	return v == nil || v.place.Keep() // a client over UDP has none
}

// end ends the connection of a client with its allocation, if it has one: its
// place is not safe any more.
func (d *door) end(client string) {
	if v := d.visitor(client); v != nil {
		_ = v.Close()
	}
}

func (d *door) visitor(client string) *visitor {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.visitors[client]
}

func (d *door) receive(v *visitor) {
	_ = v.SetDeadline(time.Now().Add(firstByteLimit))
	var first [1]byte
	if _, err := v.Conn.Read(first[:]); err != nil {
		_ = v.Close()
		return
	}
	v.first = first[:]
	if first[0] != tlsRecord {
		d.pass(v)
		return
	}
	conn := tls.Server(v, d.tls)
	ctx, cancel := context.WithTimeout(context.Background(), firstByteLimit)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		d.s.debug("turnserver: handshake", "from", v.RemoteAddr(), "err", err)
		_ = v.Close()
		return
	}
	cs := conn.ConnectionState()
	if cs.NegotiatedProtocol == relay.Protocol {
		d.answer(conn, cs)
		return
	}
	d.pass(conn)
}

// answer hands out credentials, or nothing.
func (d *door) answer(conn *tls.Conn, cs tls.ConnectionState) {
	defer conn.Close()
	b, err := d.passFor(cs, quota.Host(conn.RemoteAddr().String()).Addr())
	if err != nil {
		d.s.debug("turnserver: no credentials", "to", conn.RemoteAddr(), "err", err)
		return
	}
	_, _ = conn.Write(b) // a device that has gone asks again
}

func (d *door) passFor(cs tls.ConnectionState, from netip.Addr) ([]byte, error) {
	if !d.s.cfg.Relay {
		return nil, errors.New("relaying is off")
	}
	peer, err := deviceOf(cs)
	if err != nil {
		return nil, err
	}
	p, no := d.s.pass(peer, from, time.Now())
	if no != 0 {
		return no.Encode()
	}
	return p.Encode()
}

// pass gives a connection to the TURN server, which reads it until it fails.
func (d *door) pass(c net.Conn) {
	_ = c.SetDeadline(time.Time{})
	select {
	case d.turnc <- patient{c}:
	case <-d.life.Done():
		_ = c.Close()
	}
}

// visitor is a counted connection. Its first byte has been looked at.
type visitor struct {
	net.Conn
	first []byte
	place *proving.Place
	leave func()
}

// Read implements net.Conn.
func (v *visitor) Read(b []byte) (int, error) {
	if len(v.first) > 0 && len(b) > 0 {
		n := copy(b, v.first)
		v.first = v.first[n:]
		return n, nil
	}
	return v.Conn.Read(b)
}

// Close implements net.Conn.
func (v *visitor) Close() error {
	v.leave()
	return v.Conn.Close()
}

// patient is a connection that ends when nothing arrives for idleLimit.
type patient struct{ net.Conn }

// Read implements net.Conn.
func (p patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(idleLimit)); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}
