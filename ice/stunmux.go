package ice

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pion/transport/v3/deadline"
)

// Bounds of a session, which ends with its negotiation.
const (
	maxStunSources      = 2 * maxCandidates // addresses whose requests are looked at
	maxStunTransactions = 1024              // requests of ours whose answer may still come
	maxStunQueue        = 64                // packets that wait for the agent
	maxHandshakesOfOne  = 8                 // QUIC handshakes from one checked address
)

// stunMux gives each ICE agent its STUN packets out of the one UDP socket. It
// is a pion/ice UDPMux. pion's own remembers which agent an address belongs to
// and so mixes agents up as soon as two of them talk to the same device; this
// one goes by the user name in requests and by the transaction in responses.
// Everything that is not STUN for a running negotiation is dropped here.
type stunMux struct {
	write  func(b []byte, to net.Addr) (int, error)
	locals []net.Addr // one per address family: a handle, no address to bind

	mu       sync.Mutex
	sessions map[string]*stunSession // by local user name fragment
}

func newStunMux(write func([]byte, net.Addr) (int, error), locals []net.Addr) *stunMux {
	return &stunMux{write: write, locals: locals, sessions: make(map[string]*stunSession)}
}

// stunSession is one agent's share.
type stunSession struct {
	mux     *stunMux
	conns   [2]*stunConn  // IPv4, IPv6
	touched chan struct{} // closed by the first request

	// Guarded by mux.mu.
	sources      map[netip.AddrPort]int // QUIC handshakes begun; -1 while unchecked
	transactions map[[12]byte]*stunConn
	order        [][12]byte // of transactions, oldest first
}

// open registers an agent before it exists, so that early requests wait for it.
func (m *stunMux) open(ufrag string) *stunSession {
	s := &stunSession{
		mux:          m,
		touched:      make(chan struct{}),
		sources:      make(map[netip.AddrPort]int),
		transactions: make(map[[12]byte]*stunConn),
	}
	for i := range s.conns {
		s.conns[i] = &stunConn{s: s, inc: make(chan stunPacket, maxStunQueue), done: make(chan struct{}), read: deadline.New()}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sessions[ufrag] = s
	return s
}

// RemoveConnByUfrag ends a session. It may be called more than once.
func (m *stunMux) RemoveConnByUfrag(ufrag string) {
	m.mu.Lock()
	s := m.sessions[ufrag]
	delete(m.sessions, ufrag)
	m.mu.Unlock()
	if s != nil {
		for _, c := range s.conns {
			c.Close()
		}
	}
}

// GetConn returns an agent's connection for the family of addr.
func (m *stunMux) GetConn(ufrag string, addr net.Addr) (net.PacketConn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sessions[ufrag]
	if s == nil {
		return nil, net.ErrClosed
	}
	return s.conns[family(addrPort(addr))], nil
}

// GetListenAddresses returns one handle per address family. All of an agent's
// local candidates share the socket, so more of them would only multiply the
// pairs to check.
func (m *stunMux) GetListenAddresses() []net.Addr { return m.locals }

// Close does nothing: sessions end with their negotiations.
func (m *stunMux) Close() error { return nil }

func family(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return 0
	}
	return 1
}

func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// dispatch takes a packet that is not QUIC.
func (m *stunMux) dispatch(b []byte, from net.Addr) {
	class, tx, ok := parseSTUN(b)
	src := addrPort(from)
	if !ok || !src.IsValid() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var c *stunConn
	switch class {
	case stunRequest:
		local, _, _ := strings.Cut(stunUsername(b), ":")
		s := m.sessions[local]
		if s == nil || !s.request(src) {
			return
		}
		c = s.conns[family(src)]
	case stunSuccess, stunError:
		for _, s := range m.sessions {
			if c = s.transactions[tx]; c != nil {
				delete(s.transactions, tx)
				break
			}
		}
	}
	if c == nil {
		return
	}
	select {
	case c.inc <- stunPacket{append([]byte(nil), b...), from}:
	default:
	}
}

// request tells whether a request from src is looked at. A device that has
// been told the credentials could otherwise have the agent hold a candidate
// for every address it can write into a packet.
func (s *stunSession) request(src netip.AddrPort) bool {
	if _, known := s.sources[src]; !known {
		if len(s.sources) == maxStunSources {
			return false
		}
		s.sources[src] = -1
	}
	select {
	case <-s.touched:
	default:
		close(s.touched)
	}
	return true
}

// sent looks at what the agent sends.
func (s *stunSession) sent(c *stunConn, b []byte, to netip.AddrPort) {
	class, tx, ok := parseSTUN(b)
	if !ok {
		return
	}
	s.mux.mu.Lock()
	defer s.mux.mu.Unlock()
	switch class {
	case stunRequest:
		if len(s.order) == maxStunTransactions {
			delete(s.transactions, s.order[0])
			s.order = s.order[1:]
		}
		s.order = append(s.order, tx)
		s.transactions[tx] = c
	case stunSuccess:
		// The agent answers only what was made with its password.
		if s.sources[to] == -1 {
			s.sources[to] = 0
		}
	}
}

// mayConnect tells whether a QUIC handshake from src is taken up: only from
// where a running negotiation was checked, and not too many.
func (m *stunMux) mayConnect(src netip.AddrPort) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sessions {
		if begun, known := s.sources[src]; known && begun >= 0 && begun < maxHandshakesOfOne {
			s.sources[src]++
			return true
		}
	}
	return false
}

type stunPacket struct {
	b    []byte
	from net.Addr
}

// stunConn is the net.PacketConn of an agent's candidates of one family.
type stunConn struct {
	s    *stunSession
	inc  chan stunPacket
	once sync.Once
	done chan struct{}
	read *deadline.Deadline
}

// ReadFrom implements net.PacketConn.
func (c *stunConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case <-c.done:
		return 0, nil, net.ErrClosed
	default:
	}
	select {
	case p := <-c.inc:
		return copy(b, p.b), p.from, nil
	case <-c.read.Done():
		return 0, nil, c.read.Err()
	case <-c.done:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo implements net.PacketConn.
func (c *stunConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.s.sent(c, b, addrPort(to))
	return c.s.mux.write(b, to)
}

// Close implements net.PacketConn.
func (c *stunConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

// LocalAddr implements net.PacketConn.
func (c *stunConn) LocalAddr() net.Addr { return c.s.mux.locals[0] }

// SetDeadline implements net.PacketConn.
func (c *stunConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (c *stunConn) SetReadDeadline(t time.Time) error { c.read.Set(t); return nil }

// SetWriteDeadline implements net.PacketConn.
func (c *stunConn) SetWriteDeadline(_ time.Time) error { return nil }

// The part of STUN (RFC 8489, sections 5 and 14) that tells packets apart:
//
//	type:uint16 | length:uint16 | cookie:uint32 = 0x2112A442 | transaction [12]
//	attribute: type:uint16 | length:uint16 | value, padded to 4
//
// Everything else, and all checking of integrity, is the agent's.
const (
	stunHeader   = 20
	stunCookie   = 0x2112A442
	stunRequest  = 0x0001 // binding, by class
	stunSuccess  = 0x0101
	stunError    = 0x0111
	stunUserAttr = 0x0006
)

func parseSTUN(b []byte) (class uint16, tx [12]byte, ok bool) {
	if len(b) < stunHeader || binary.BigEndian.Uint32(b[4:]) != stunCookie ||
		int(binary.BigEndian.Uint16(b[2:])) != len(b)-stunHeader {
		return 0, tx, false
	}
	return binary.BigEndian.Uint16(b), [12]byte(b[8:20]), true
}

// stunUsername returns the first USERNAME of a parsed packet, or "".
func stunUsername(b []byte) string {
	for b = b[stunHeader:]; len(b) >= 4; {
		typ, n := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if n > len(b)-4 {
			return ""
		}
		if typ == stunUserAttr {
			return string(b[4 : 4+n])
		}
		b = b[min(len(b), 4+(n+3)&^3):]
	}
	return ""
}
