package turnserver

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/turn/v5"
	"golang.org/x/time/rate"
)

const (
	// maxPeers bounds the addresses that one allocation may exchange packets with;
	// our own devices ask for 64 at most.
	maxPeers = 128
	// asksPerSecond bounds how often one allocation may ask for an address or a
	// channel, after maxPeers at once: a device with 64 addresses refreshes them
	// less than once a second, and pion keeps whatever it is asked for 10 min.
	asksPerSecond = 1
)

// ports gives out relayed ports.
type ports struct {
	s  *Server
	at netip.Addr // zero: none are given out

	mu      sync.Mutex
	closed  bool
	open    map[string]*port // by the client's network and address
	numbers map[uint16]struct{}
}

// port is a relayed port, which one allocation has.
type port struct {
	net.PacketConn
	of     *ports
	client string
	number uint16
	holder holder
	once   sync.Once

	mu    sync.Mutex
	asked *rate.Limiter
	peers map[netip.Addr]struct{}
}

var errFull = errors.New("turnserver: no allocations left")

// Validate implements turn.RelayAddressGenerator.
func (p *ports) Validate() error { return nil }

// AllocatePacketConn implements turn.RelayAddressGenerator. The client has proven
// by now that it knows the password.
func (p *ports) AllocatePacketConn(c turn.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	client, h, ok := p.s.parseUser(c.UserID) // not where an even port is looked for: there is none
	if !ok || c.Network != "udp4" || !p.at.IsValid() {
		return nil, nil, errFull
	}
	if err := p.s.places.take(h); err != nil {
		return nil, nil, err
	}
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		p.s.places.release(h)
		return nil, nil, err
	}
	q := &port{
		PacketConn: conn, of: p, client: client, number: uint16(conn.LocalAddr().(*net.UDPAddr).Port), holder: h,
		asked: rate.NewLimiter(asksPerSecond, maxPeers), peers: make(map[netip.Addr]struct{}),
	}
	if !p.s.door.keep(client) || !p.add(q) {
		_ = q.Close()
		return nil, nil, errFull
	}
	return q, net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.at, q.number)), nil
}

// AllocateListener implements turn.RelayAddressGenerator: TCP is not relayed.
func (p *ports) AllocateListener(turn.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	return nil, nil, errFull
}

// AllocateConn implements turn.RelayAddressGenerator: TCP is not relayed.
func (p *ports) AllocateConn(turn.AllocateConnConfig) (net.Conn, error) { return nil, errFull }

func (p *ports) add(q *port) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if p.open == nil {
		p.open, p.numbers = make(map[string]*port), make(map[uint16]struct{})
	}
	p.open[q.client] = q
	p.numbers[q.number] = struct{}{}
	return true
}

// Close implements net.PacketConn.
func (q *port) Close() error {
	err := net.ErrClosed
	q.once.Do(func() {
		q.of.mu.Lock()
		if q.of.open[q.client] == q {
			delete(q.of.open, q.client)
		}
		delete(q.of.numbers, q.number)
		q.of.mu.Unlock()
		err = q.PacketConn.Close()
		q.of.s.places.release(q.holder)
		q.of.s.door.end(q.client)
	})
	return err
}

// close closes what is left, and gives out nothing more.
func (p *ports) close() {
	p.mu.Lock()
	p.closed = true
	var left []*port
	for _, q := range p.open {
		left = append(left, q)
	}
	p.mu.Unlock()
	for _, q := range left {
		_ = q.Close()
	}
}

// of returns the port of a client, or nil.
func (p *ports) of(client net.Addr) *port {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open[addrName(client)]
}

// gave reports whether a relayed port has this number.
func (p *ports) gave(number uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.numbers[number]
	return ok
}

// admit lets the client exchange packets with an address, unless it asks for too
// many or too often.
func (q *port) admit(ip netip.Addr, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, known := q.peers[ip]
	if !known && len(q.peers) >= maxPeers || !q.asked.AllowN(now, 1) {
		return false
	}
	q.peers[ip] = struct{}{}
	return true
}

// ReadFrom implements net.PacketConn. What comes from an address that the client
// has not asked for does not count: otherwise anybody could use up the rate.
func (q *port) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := q.PacketConn.ReadFrom(b)
		if err != nil {
			return n, from, err
		}
		q.mu.Lock()
		_, known := q.peers[addrPort(from).Addr()]
		q.mu.Unlock()
		if known && q.of.s.meter.allow(q.holder, n, time.Now()) {
			return n, from, nil
		}
	}
}

// WriteTo implements net.PacketConn. It does not wait, as all UDP clients share a
// goroutine: what is above the rate is lost.
func (q *port) WriteTo(b []byte, to net.Addr) (int, error) {
	s := q.of.s
	if s.isOwn(addrPort(to)) || !s.meter.allow(q.holder, len(b), time.Now()) {
		return len(b), nil
	}
	return q.PacketConn.WriteTo(b, to)
}

// addrPort is that of a UDP address.
func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
