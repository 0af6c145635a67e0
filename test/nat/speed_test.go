//go:build linux

package nat

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// oneWay is the delay of each host's own link; the network between is fast. So
// two hosts are 20 ms apart, there and back.
const (
	oneWay    = 5 * time.Millisecond
	roundTrip = 4 * oneWay
)

// slowHost is a host behind a router, over a link that is not as it should be.
func (l *lab) slowHost(name string, k kind, w wire) *place {
	l.t.Helper()
	l.namespace(name)
	p := &place{l: l, name: name, kind: k, router: name + "r"}
	l.namespace(p.router)
	l.join(p.router)
	newLink(l.t, l.ns(name), l.ns(p.router), w)
	net := l.hosts.Load()
	p.inside = fmt.Sprintf("10.%d.0.2", net)
	p.wire(tunName, tunName, fmt.Sprintf("10.%d.0.1", net), p.inside)
	if w.mtu > 0 {
		for _, ns := range []string{name, p.router} {
			l.ip("-n", l.ns(ns), "link", "set", tunName, "mtu", fmt.Sprint(w.mtu))
		}
	}
	p.masquerade(k)
	return p
}

// From ConnectDevice to the first byte of the device takes six round trips
// through two NATs, and ten through a relay.
func TestConnectingTakesFewRoundTrips(t *testing.T) {
	n := newNetwork(t, "--relay")
	for _, c := range []struct {
		kind   kind
		way    string
		rounds float64
	}{{coneDrop, "punched", 6}, {symmetric, "relay", 10}} {
		t.Run(c.way, func(t *testing.T) {
			l := &lab{t: t, prefix: n.prefix}
			l.hosts.Store(n.hosts.Load())
			defer func() { n.hosts.Store(l.hosts.Load()) }()
			sub := &network{lab: l, bootstrap: n.bootstrap}
			a, b := sub.device(l.slowHost("a"+c.way, c.kind, wire{delay: oneWay})), sub.device(l.slowHost("b"+c.way, c.kind, wire{delay: oneWay}))
			var took, rtts []float64
			var steps []any
			for range 5 { // each by a new process, to which the device is new
				o := a.examine(b)
				if o.way != c.way {
					t.Fatalf("connected by %s (%s)", o.way, o.path)
				}
				took, rtts = append(took, o.first), append(rtts, o.rtt)
				steps = o.steps
			}
			slices.Sort(took)
			// The tun devices add to the delay; the link has measured what there is.
			real := max(slices.Min(rtts), float64(roundTrip.Milliseconds()))
			median := took[len(took)/2]
			fmt.Printf("%s: first byte after %.0f ms (%.0f to %.0f), %.1f round trips of %.1f ms\n", c.way, median, took[0], took[len(took)-1], median/real, real)
			t.Logf("the last connect: %v", steps)
			// The best one counts: a busy machine adds to the time, but not to the
			// number of times that something goes there and back.
			if best := took[0] / real; best > c.rounds {
				t.Errorf("%.1f round trips, want at most %.0f; the last connect: %v", best, c.rounds, steps)
			}
		})
	}
}

// Two devices connect over links as bad as people have them, and bytes arrive
// as they were; over one that is worse they give up, and say so.
// fault: F4
func TestBadLinksConnectOrSayWhyNot(t *testing.T) {
	n := newNetwork(t)
	for name, w := range map[string]wire{
		"3 % loss":       {delay: 10 * time.Millisecond, loss: 0.03},
		"20 % loss":      {delay: 10 * time.Millisecond, loss: 0.2},
		"600 ms":         {delay: 150 * time.Millisecond},
		"reordered":      {delay: 10 * time.Millisecond, reorder: 0.1},
		"duplicates":     {delay: 10 * time.Millisecond, duplicate: 0.2},
		"corrupted":      {delay: 10 * time.Millisecond, corrupt: 0.02},
		"MTU 1280":       {delay: 10 * time.Millisecond, mtu: 1280},
		"very bad phone": {delay: 100 * time.Millisecond, loss: 0.05, reorder: 0.05, duplicate: 0.01, mtu: 1280},
	} {
		t.Run(name, func(t *testing.T) {
			l := &lab{t: t, prefix: n.prefix}
			l.hosts.Store(n.hosts.Load())
			defer func() { n.hosts.Store(l.hosts.Load()) }()
			sub := &network{lab: l, bootstrap: n.bootstrap}
			short := fmt.Sprint(n.hosts.Load())
			a, b := sub.device(l.host("a"+short, coneDrop)), sub.device(l.slowHost("b"+short, coneDrop, w))
			o, took := a.reached(b, time.Minute)
			speed := a.send(b, 1, "")
			fmt.Printf("%-15s first byte after %5.0f ms, %v in all, %s by %s, %.2f MB/s\n", name, o.first, took.Round(10*time.Millisecond), o.way, o.engine(), speed)
		})
	}
}
