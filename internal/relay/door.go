package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxConns bounds the TCP connections, of all and of one IPv4 address or
	// IPv6 /64.
	maxConns      = 1024
	maxConnsOfOne = 32
	// firstByteLimit bounds what is needed to tell TLS from TURN, and a handshake.
	firstByteLimit = 5 * time.Second
	// idleLimit ends a connection on which nothing arrives: whoever wants it asks
	// at least every minute.
	idleLimit = 2 * time.Minute
	// tlsRecord is the first byte of TLS; those of STUN and TURN are below 0x80
	// and never this one (RFC 7983).
	tlsRecord = 0x16
)

// door is the TCP port. What turns out to be TURN leaves it by Accept.
type door struct {
	s   *Server
	ln  net.Listener
	tls *tls.Config

	turnc  chan net.Conn
	closed chan struct{}
	once   sync.Once
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]netip.Prefix
	from  map[netip.Prefix]int
}

func newDoor(s *Server, ln net.Listener) (*door, error) {
	cert, err := certificate(s.cfg.Key)
	if err != nil {
		return nil, err
	}
	d := &door{
		s: s, ln: ln, turnc: make(chan net.Conn), closed: make(chan struct{}),
		conns: make(map[net.Conn]netip.Prefix), from: make(map[netip.Prefix]int),
		tls: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert,
			NextProtos: []string{alpnPass, alpnTURN}, SessionTicketsDisabled: true,
		},
	}
	d.wg.Go(d.run)
	return d, nil
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.turnc:
		return c, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (d *door) Addr() net.Addr { return d.ln.Addr() }

// Close implements net.Listener: it ends all connections too.
func (d *door) Close() error {
	d.once.Do(func() {
		close(d.closed)
		_ = d.ln.Close()
		d.mu.Lock()
		for c := range d.conns {
			_ = c.Close()
		}
		d.mu.Unlock()
		d.wg.Wait()
	})
	return nil
}

func (d *door) run() {
	for pause := time.Duration(0); ; {
		c, err := d.ln.Accept()
		switch {
		case err == nil:
			pause = 0
			if v := d.enter(c); v != nil {
				d.wg.Go(func() { d.receive(v) })
			} else {
				_ = c.Close()
			}
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(pause):
		case <-d.closed:
			return
		}
	}
}

// enter counts a connection in; nil where there is no room.
func (d *door) enter(c net.Conn) *visitor {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return nil
	}
	bits := 32
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() {
		bits = 64
	}
	from, err := ip.Prefix(bits)
	if err != nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.closed:
		return nil
	default:
	}
	if len(d.conns) >= maxConns || d.from[from] >= maxConnsOfOne {
		return nil
	}
	d.conns[c] = from
	d.from[from]++
	return &visitor{Conn: c, d: d}
}

func (d *door) leave(c net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	from, ok := d.conns[c]
	if !ok {
		return
	}
	delete(d.conns, c)
	if d.from[from]--; d.from[from] == 0 {
		delete(d.from, from)
	}
}

// receive finds out what a connection wants.
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
		d.s.log.Debug("relay: handshake", "from", v.RemoteAddr(), "err", err)
		_ = v.Close()
		return
	}
	cs := conn.ConnectionState()
	if cs.NegotiatedProtocol == alpnPass {
		d.answer(conn, cs)
		return
	}
	d.pass(conn)
}

// answer hands out credentials, or nothing.
func (d *door) answer(conn *tls.Conn, cs tls.ConnectionState) {
	defer conn.Close()
	b, err := d.passFor(cs)
	if err != nil {
		d.s.log.Debug("relay: no credentials", "to", conn.RemoteAddr(), "err", err)
		return
	}
	_, _ = conn.Write(b) // who has gone asks again
}

func (d *door) passFor(cs tls.ConnectionState) ([]byte, error) {
	if !d.s.cfg.Relay {
		return nil, errors.New("relaying is off")
	}
	peer, err := deviceOf(cs)
	if err != nil {
		return nil, err
	}
	if d.s.cfg.Allow != nil {
		if err := d.s.cfg.Allow(peer); err != nil {
			return nil, err
		}
	}
	return d.s.issue(peer.Device, time.Now())
}

// pass gives a connection to the TURN server, which reads it until it fails.
func (d *door) pass(c net.Conn) {
	_ = c.SetDeadline(time.Time{})
	select {
	case d.turnc <- patient{c}:
	case <-d.closed:
		_ = c.Close()
	}
}

// visitor is a counted connection, whose first byte has been looked at.
type visitor struct {
	net.Conn
	d     *door
	first []byte
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
	v.d.leave(v.Conn)
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
