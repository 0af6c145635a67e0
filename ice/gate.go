package ice

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// Bounds on accepted connections that have not passed their check. An honest
// one is through in two round trips; the oldest is dropped for a new one, so
// that connections which only sit there (slow writers) are what goes.
const (
	maxUnchecked      = 256
	maxUncheckedOfOne = 64 // of one IPv4 address or IPv6 /64
)

// gate holds the accepted connections whose check is still running.
type gate struct {
	mu   sync.Mutex
	all  list.List // of *visitor, oldest first
	from map[netip.Prefix]int
}

// visitor is a connection in the gate.
type visitor struct {
	conn net.Conn
	from netip.Prefix
	elem *list.Element // nil once it has left
}

// admit takes conn in, and closes the oldest of its source, or of all, where a
// bound is reached.
func (g *gate) admit(conn net.Conn) *visitor {
	v := &visitor{conn: conn, from: source(conn.RemoteAddr())}
	g.mu.Lock()
	var evicted *visitor
	switch {
	case g.from[v.from] >= maxUncheckedOfOne:
		evicted = g.oldest(v.from)
	case g.all.Len() >= maxUnchecked:
		evicted = g.all.Front().Value.(*visitor)
	}
	if evicted != nil {
		g.remove(evicted)
	}
	if g.from == nil {
		g.from = make(map[netip.Prefix]int)
	}
	g.from[v.from]++
	v.elem = g.all.PushBack(v)
	g.mu.Unlock()
	if evicted != nil {
		evicted.conn.Close()
	}
	return v
}

func (g *gate) oldest(from netip.Prefix) *visitor {
	for e := g.all.Front(); e != nil; e = e.Next() {
		if v := e.Value.(*visitor); v.from == from {
			return v
		}
	}
	return nil
}

// leave takes v out. It returns false where it had been evicted.
func (g *gate) leave(v *visitor) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.remove(v)
}

func (g *gate) remove(v *visitor) bool {
	if v.elem == nil {
		return false
	}
	g.all.Remove(v.elem)
	v.elem = nil
	if g.from[v.from]--; g.from[v.from] == 0 {
		delete(g.from, v.from)
	}
	return true
}

// source is what one stranger is taken to control.
func source(a net.Addr) netip.Prefix {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{}
	}
	ip := ap.Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}
