package calls

import (
	"math"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/wlynxg/anet"
	"golang.org/x/time/rate"
)

// What an undecided device may have this one send. It may name addresses of a third
// party that knows nothing of the call, in as many offers, from as many keys as it
// likes. So each address has a small fixed price, and all of them a common purse.
const (
	// addressRate is how many addresses a second, of all offers of strangers, are
	// sent anything; addressBurst may be at once. An honest caller has 13 at most, so
	// 20 can call at the same time. With five checks each, that is 320 packets a second
	// of about 100 bytes: less than one video call.
	addressRate  = 64
	addressBurst = 256
	// offeredDials and offeredChecks are what one address gets. The caller dials, too,
	// and repeats itself: here a hole in a NAT is opened, for which one packet will do,
	// and four may be lost.
	offeredDials  = 1
	offeredChecks = 5
	// calledDials and calledChecks are for addresses in the answer of a device that
	// was called: that was wanted here, and is bounded by the calls that are made. They
	// last for four of a call's ten seconds.
	calledDials  = 5
	calledChecks = 24
)

// worth is what an address may be of use for.
type worth int

const (
	nearby  worth = iota // on a network of this machine
	public4              // of a NAT or a router's port, mostly
	public6              // of an interface
	relayed
	worthless
)

// used is how many addresses of a worth an offer of a stranger may have tried: on a
// local network and in a tunnel; one told by a server and one by a router; of two
// interfaces; one relay.
var used = [worthless]int{nearby: 2, public4: 2, public6: 2, relayed: 1}

// Price bounds what one call has sent to the addresses that its peer names. A nil
// *Price bounds nothing: it is a member's. Its methods may be called concurrently;
// none blocks.
type Price struct {
	purse *rate.Limiter  // nil: this device has called
	own   []netip.Prefix // of this machine's networks

	mu    sync.Mutex
	taken map[string]*[worthless]int
}

// Price returns what may be sent on the caller's word.
func (v *Visit[S]) Price() *Price {
	if v.room == v.b.rooms[1] {
		return nil
	}
	return &Price{purse: v.b.purse, own: networks(), taken: make(map[string]*[worthless]int)}
}

// Price returns what may be sent on the word of the device that was called. Ask for
// it once there is an answer.
func (c *Call[S]) Price() *Price {
	c.b.mu.Lock()
	from := c.from
	c.b.mu.Unlock()
	if c.b.room(from) == c.b.rooms[1] {
		return nil
	}
	return &Price{}
}

// Takes reports whether an address is one of the few that are used for one purpose
// (an engine, say), and counts it if so. What is told first counts; a private address
// is used only on a network of this machine.
func (p *Price) Takes(purpose string, a netip.Addr, relay bool) bool {
	if p == nil || p.purse == nil {
		return true
	}
	w := p.worth(a.Unmap(), relay)
	if w == worthless {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.taken[purpose]
	if n == nil {
		n = new([worthless]int)
		p.taken[purpose] = n
	}
	if n[w] == used[w] {
		return false
	}
	n[w]++
	return true
}

func (p *Price) worth(a netip.Addr, relay bool) worth {
	for _, n := range p.own {
		if isPrivate(a) && n.Contains(a.WithZone("")) {
			return nearby
		}
	}
	switch {
	case isPrivate(a):
		return worthless
	case relay:
		return relayed
	case a.Is4():
		return public4
	}
	return public6
}

// shared is the range of carriers' own NATs (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

// isPrivate reports whether an address means different hosts in different places.
func isPrivate(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || shared.Contains(a)
}

// networks are those that this machine's interfaces are on. Where the system does
// not tell there are none.
func networks() (out []netip.Prefix) {
	all, _ := anet.InterfaceAddrs()
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			ip, _ := netip.AddrFromSlice(n.IP) // zero where it is none, and so is the prefix
			bits, _ := n.Mask.Size()
			if p, err := ip.Unmap().Prefix(bits); err == nil {
				out = append(out, p)
			}
		}
	}
	return out
}

// Pay reports whether something may be sent to one more address now. Where it may
// not, ask again later.
func (p *Price) Pay(now time.Time) bool { return p == nil || p.purse == nil || p.purse.AllowN(now, 1) }

// Dials is how many connections may be tried to one address.
func (p *Price) Dials() int { return p.each(offeredDials, calledDials) }

// Checks is how many checks may be sent to one address that has not answered.
func (p *Price) Checks() int { return p.each(offeredChecks, calledChecks) }

func (p *Price) each(offered, called int) int {
	switch {
	case p == nil:
		return math.MaxInt
	case p.purse == nil:
		return called
	}
	return offered
}
