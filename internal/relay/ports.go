package relay

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"
)

// maxPerDevice bounds the addresses from which one device's credentials are
// used at a time, and with them its allocations: each needs an address of its
// own. An address counts until bindingLife after its last request.
const (
	maxPerDevice = 8
	maxQuotas    = 4096 // devices that are counted at once
)

// ports gives out relayed ports, a bounded number.
type ports struct {
	at   netip.Addr
	most int

	mu     sync.Mutex
	closed bool
	open   map[*port]struct{}
}

type port struct {
	net.PacketConn
	of *ports
}

// Close implements net.PacketConn.
func (p *port) Close() error {
	p.of.mu.Lock()
	delete(p.of.open, p)
	p.of.mu.Unlock()
	return p.PacketConn.Close()
}

var errFull = errors.New("relay: no allocations left")

// Validate implements turn.RelayAddressGenerator.
func (p *ports) Validate() error { return nil }

// AllocatePacketConn implements turn.RelayAddressGenerator.
func (p *ports) AllocatePacketConn(string, int) (net.PacketConn, net.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.open) >= p.most {
		return nil, nil, errFull
	}
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, nil, err
	}
	if p.open == nil {
		p.open = make(map[*port]struct{})
	}
	q := &port{c, p}
	p.open[q] = struct{}{}
	at := netip.AddrPortFrom(p.at, uint16(c.LocalAddr().(*net.UDPAddr).Port))
	return q, net.UDPAddrFromAddrPort(at), nil
}

// AllocateConn implements turn.RelayAddressGenerator: TCP is not relayed.
func (p *ports) AllocateConn(string, int) (net.Conn, net.Addr, error) { return nil, nil, errFull }

// close closes what is left, and gives out nothing more.
func (p *ports) close() {
	p.mu.Lock()
	p.closed = true
	open := p.open
	p.open = nil
	p.mu.Unlock()
	for q := range open {
		_ = q.PacketConn.Close()
	}
}

// addresses counts from how many addresses each device uses its credentials.
type addresses struct {
	mu sync.Mutex
	of map[string]map[string]time.Time
}

func (q *addresses) admit(device, addr string, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.of == nil {
		q.of = make(map[string]map[string]time.Time)
	}
	used := q.of[device]
	if used == nil {
		if len(q.of) >= maxQuotas && !q.sweep(now) {
			return false
		}
		used = make(map[string]time.Time)
		q.of[device] = used
	}
	if _, known := used[addr]; !known && len(used) >= maxPerDevice {
		if forgetOld(used, now); len(used) >= maxPerDevice {
			return false
		}
	}
	used[addr] = now
	return true
}

// forgetOld forgets the addresses from which nothing was asked for long.
func forgetOld(used map[string]time.Time, now time.Time) {
	maps.DeleteFunc(used, func(_ string, last time.Time) bool { return now.Sub(last) > bindingLife })
}

// sweep forgets devices that use nothing any more. q.mu is held.
func (q *addresses) sweep(now time.Time) bool {
	maps.DeleteFunc(q.of, func(_ string, used map[string]time.Time) bool {
		forgetOld(used, now)
		return len(used) == 0
	})
	return len(q.of) < maxQuotas
}
