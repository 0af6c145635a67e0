package ice

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pion/stun/v2"
	"github.com/pion/transport/v3/deadline"

	"peerlink/internal/calls"
	"peerlink/internal/pause"
)

// Bounds of a session, which ends with its negotiation.
const (
	maxStunSources      = 2 * maxCandidates // addresses whose requests are looked at
	maxStunTransactions = 1024              // requests of ours whose answer may still come
	maxStunQueue        = 64                // packets that wait for the agent
	maxHandshakesOfOne  = 8                 // QUIC handshakes from one checked address
	maxStunTargets      = 4 * maxCandidates // addresses that an agent sends requests to
)

// Requests to an address that does not answer are sent less and less often: a
// stranger's candidates may be somebody else's, and such have a price besides. pion
// alone would send fifty a second to each for as long as the negotiation lasts.
const (
	firstStunPause = 15 * time.Millisecond // under checkInterval: none is left out
	eagerStuns     = 5                     // requests at pion's own pace
	maxStunPause   = 250 * time.Millisecond
	// fewStunsFactor spreads the few requests that an address gets on a stranger's
	// word: five of them last for 1.8 s.
	fewStunsFactor = 3
)

// stunMux gives each ICE agent its STUN packets out of the one UDP socket. It
// is a pion/ice UDPMux. pion's own remembers which agent an address belongs to
// and so mixes agents up as soon as two of them talk to the same device; this
// one goes by the user name in requests and by the transaction in responses.
// Everything that is not STUN for a running negotiation is dropped here.
type stunMux struct {
	write  func(b []byte, to net.Addr) (int, error)
	locals []net.Addr // one per address family: a handle, no address to bind

	// relay is the handle for packets that go through a relay, and relayed sends
	// them: it drops what cannot go. Both are nil where there is no relay.
	relay    net.Addr
	relayed  func(b []byte, to net.Addr) (int, error)
	canRelay func() bool

	mu       sync.Mutex
	sessions map[string]*stunSession // by local user name fragment
	asked    map[[12]byte]question   // of servers
}

// question is a request to a server.
type question struct {
	server  netip.AddrPort
	answerc chan netip.AddrPort // holds 1
}

func newStunMux(write func([]byte, net.Addr) (int, error), locals []net.Addr) *stunMux {
	return &stunMux{write: write, locals: locals, sessions: make(map[string]*stunSession), asked: make(map[[12]byte]question)}
}

// The connections of a session.
const (
	overIPv4 = iota
	overIPv6
	overRelay
	stunWays
)

// stunSession is one agent's share.
type stunSession struct {
	mux     *stunMux
	key     stun.MessageIntegrity // of requests to the agent
	price   func() *calls.Price   // of requests of the agent's
	conns   [stunWays]*stunConn
	touched chan struct{}   // closed by the first request
	found   chan checkedWay // addresses that have answered a request
	first   chan checkedWay // addresses that the first request went to

	// Guarded by mux.mu.
	sources      map[netip.AddrPort]int // QUIC handshakes begun; -1 while unchecked
	transactions map[[12]byte]transaction
	order        [][12]byte // of transactions, oldest first
	paces        map[checkedWay]*pace
}

// checkedWay is an address that requests go to, or that has answered one, and over what.
type checkedWay struct {
	way  int
	addr netip.AddrPort
}

type transaction struct {
	conn *stunConn
	to   netip.AddrPort
}

// pace is how often requests go to one address.
type pace struct {
	next  time.Time
	pause time.Duration
	sent  int
}

// open registers an agent before it exists, so that early requests wait for it.
func (m *stunMux) open(ufrag, password string, price func() *calls.Price) *stunSession {
	s := &stunSession{
		mux:          m,
		key:          stun.NewShortTermIntegrity(password),
		price:        price,
		touched:      make(chan struct{}),
		found:        make(chan checkedWay, maxStunSources),
		first:        make(chan checkedWay, maxCandidates),
		sources:      make(map[netip.AddrPort]int),
		transactions: make(map[[12]byte]transaction),
		paces:        make(map[checkedWay]*pace),
	}
	for i := range s.conns {
		s.conns[i] = &stunConn{s: s, way: i, inc: make(chan stunPacket, maxStunQueue), done: make(chan struct{}), read: deadline.New()}
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
	if m.relay != nil && addr.String() == m.relay.String() {
		return s.conns[overRelay], nil
	}
	return s.conns[family(addrPort(addr))], nil
}

// GetListenAddresses returns one handle per address family, and one for the
// relay, where one may be used. All of an agent's local candidates share the
// socket, so more of them would only multiply the pairs to check.
func (m *stunMux) GetListenAddresses() []net.Addr {
	if m.relay == nil {
		return m.locals
	}
	return append(slices.Clone(m.locals), m.relay)
}

// Close does nothing: sessions end with their negotiations.
func (m *stunMux) Close() error { return nil }

func family(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return overIPv4
	}
	return overIPv6
}

func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.AddrPort{}
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// receive takes a packet that is not QUIC, from the socket or a relay.
func (m *stunMux) receive(b []byte, from net.Addr, relayed bool) {
	class, tx, ok := parseSTUN(b)
	src := addrPort(from)
	if !ok || !src.IsValid() {
		return
	}
	way := family(src)
	if relayed {
		way = overRelay
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var c *stunConn
	switch class {
	case stunRequest:
		local, _, _ := strings.Cut(string(stunAttribute(b, stunUserAttr)), ":")
		s := m.sessions[local]
		if s == nil || !s.request(way, src) {
			return
		}
		if s.sources[src] == -1 && s.genuine(b) {
			s.sources[src] = 0
		}
		c = s.conns[way]
	case stunSuccess, stunError:
		if c = m.response(class, tx, checkedWay{way, src}, b); c == nil {
			return
		}
	default:
		return
	}
	pause.Tell(c.inc, stunPacket{append([]byte(nil), b...), from})
}

// request tells whether a request from src is looked at. A device that has
// been told the credentials could otherwise have the agent hold a candidate
// for every address it can write into a packet.
func (s *stunSession) request(way int, src netip.AddrPort) bool {
	// The answer to it may go at once, and a check of ours, which it has paid for.
	if p := s.paces[checkedWay{way, src}]; p != nil && s.price() != nil {
		p.next, p.sent = time.Time{}, max(p.sent-1, 0)
	} else {
		delete(s.paces, checkedWay{way, src})
	}
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

// genuine tells whether a request was made with the agent's password. The agent
// looks for itself, but later: a QUIC handshake may be right behind the request.
func (s *stunSession) genuine(b []byte) bool {
	m := &stun.Message{Raw: b}
	return m.Decode() == nil && s.key.Check(m) == nil
}

// response finds whom a response is for. It counts only if it came from where
// the request went, and the same way. m.mu is held.
func (m *stunMux) response(class uint16, tx [12]byte, from checkedWay, b []byte) *stunConn {
	if q, ok := m.asked[tx]; ok {
		if q.server == from.addr && class == stunSuccess && from.way != overRelay {
			delete(m.asked, tx)
			q.answerc <- mappedAddress(b)
		}
		return nil
	}
	for _, s := range m.sessions {
		t, ok := s.transactions[tx]
		if !ok {
			continue
		}
		if t.to != from.addr || t.conn.way != from.way {
			return nil
		}
		delete(s.transactions, tx)
		if class == stunSuccess {
			pause.Tell(s.found, from)
		}
		return t.conn
	}
	return nil
}

// due tells whether another request may go to an address now. mux.mu is held.
func (s *stunSession) due(to checkedWay, now time.Time) bool {
	price, p := s.price(), s.paces[to]
	if p == nil {
		if len(s.paces) == maxStunTargets || !price.Pay(now) {
			return false
		}
		p = &pace{pause: firstStunPause}
		s.paces[to] = p
		pause.Tell(s.first, to)
	}
	if now.Before(p.next) || p.sent >= price.Checks() {
		return false
	}
	switch p.sent++; {
	case price.Checks() <= eagerStuns:
		p.pause *= fewStunsFactor
	case p.sent > eagerStuns:
		p.pause = min(p.pause*3/2, maxStunPause)
	}
	p.next = now.Add(p.pause)
	return true
}

// remember keeps a request, in place of the oldest if need be. mux.mu is held.
func (s *stunSession) remember(tx [12]byte, t transaction) {
	if len(s.order) == maxStunTransactions {
		delete(s.transactions, s.order[0])
		s.order = s.order[1:]
	}
	s.order = append(s.order, tx)
	s.transactions[tx] = t
}

// sent looks at what the agent sends. It returns false for what is not sent.
func (s *stunSession) sent(c *stunConn, b []byte, to netip.AddrPort) bool {
	class, tx, ok := parseSTUN(b)
	if !ok {
		return true
	}
	s.mux.mu.Lock()
	defer s.mux.mu.Unlock()
	if class == stunRequest {
		if !s.due(checkedWay{c.way, to}, time.Now()) {
			return false
		}
		s.remember(tx, transaction{c, to})
	}
	return true
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
	way  int
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
	if c.way == overRelay && !c.s.mux.canRelay() || !c.s.sent(c, b, addrPort(to)) {
		return len(b), nil
	}
	if c.way == overRelay {
		return c.s.mux.relayed(b, to)
	}
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

// stunAttribute returns the first attribute of a type in a parsed packet, or nil.
func stunAttribute(b []byte, want uint16) []byte {
	for b = b[stunHeader:]; len(b) >= 4; {
		typ, n := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if n > len(b)-4 {
			return nil
		}
		if typ == want {
			return b[4 : 4+n]
		}
		b = b[min(len(b), 4+(n+3)&^3):]
	}
	return nil
}
