//go:build linux

package nat

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
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
	p.link = newLink(l.t, l.ns(name), l.ns(p.router), w)
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
	n := newNetwork(t, relaying...)
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
			var took, again, rtts []float64
			var steps []any
			tries := 0
			examine := func(took []float64) []float64 {
				tries++
				o := a.examine(b)
				if o.way != c.way { // a busy machine may be late with what is better than a relay
					t.Logf("connected by %s (%s)", o.way, o.path)
					return took
				}
				rtts, steps = append(rtts, o.rtt), o.steps
				return append(took, o.first)
			}
			// Each by a new device: neither side knows anything of the other. On a busy
			// machine some more, as only the best one counts.
			for tries < 20 && (len(took) < 5 || slices.Min(took)/max(slices.Min(rtts), float64(roundTrip.Milliseconds())) > c.rounds) {
				a.sending = filepath.Join(t.TempDir(), "caller")
				took = examine(took)
			}
			if len(took) == 0 {
				t.Fatalf("never connected by %s", c.way)
			}
			t.Logf("the last connect: %v", steps)
			for tries = 0; tries < 10 && len(again) < 2; { // by new processes of one device
				again = examine(again)
			}
			if len(again) == 0 {
				t.Fatalf("never connected again by %s", c.way)
			}
			slices.Sort(took)
			// The tun devices add to the delay; the link has measured what there is.
			real := max(slices.Min(rtts), float64(roundTrip.Milliseconds()))
			median := took[len(took)/2]
			fmt.Printf("%s: first byte after %.0f ms (%.0f to %.0f), %.1f round trips of %.1f ms (best %.1f; by a device that called before %.1f)\n",
				c.way, median, took[0], took[len(took)-1], median/real, real, took[0]/real, slices.Min(again)/real)
			// The best one counts: a busy machine adds to the time, but not to the
			// number of times that something goes there and back.
			if best := took[0] / real; best > c.rounds {
				t.Errorf("%.1f round trips, want at most %.0f; the last connect: %v", best, c.rounds, steps)
			}
		})
	}
}

// Two devices connect over links as bad as people have them, and bytes arrive
// as they were.
// fault: F4
func TestBadLinksConnectOrSayWhyNot(t *testing.T) {
	n := newNetwork(t)
	for name, w := range map[string]wire{
		"3 % loss":       {delay: 10 * time.Millisecond, loss: 0.03},
		"20 % loss":      {delay: 10 * time.Millisecond, loss: 0.2},
		"20 % outage":    {delay: 10 * time.Millisecond, outage: 0.2},
		"600 ms":         {delay: 150 * time.Millisecond},
		"reordered":      {delay: 10 * time.Millisecond, reorder: 0.1},
		"duplicates":     {delay: 10 * time.Millisecond, duplicate: 0.2},
		"corrupted":      {delay: 10 * time.Millisecond, corrupt: 0.02},
		"MTU 1280":       {delay: 10 * time.Millisecond, mtu: 1280},
		"very bad phone": {delay: 100 * time.Millisecond, loss: 0.05, reorder: 0.05, duplicate: 0.01, mtu: 1280},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, done := n.behind(t, w)
			defer done()
			o, took := a.reached(b, time.Minute, "")
			var speed float64
			switch {
			case w.loss < 0.05:
				speed = a.send(b, 1<<20, "")
			case w.loss < 0.1: // some 40 KB a second
				speed = a.send(b, 256<<10, "")
			default: // bursts of a second and more happen: the link may be lost, and must say so
				speed = a.sendAtLast(b, 128<<10)
			}
			fmt.Printf("%-15s first byte after %5.0f ms, %v in all, %s by %s, %.2f MB/s\n", name, o.first, took.Round(10*time.Millisecond), o.way, o.engine(), speed)
		})
	}
}

// behind makes two devices, the second behind a bad link, which begins to lose
// packets once the device is ready: joining the DHT is not what is tested.
func (n *network) behind(t *testing.T, w wire) (a, b *peer, done func()) {
	loss := w.loss
	w.loss = 0
	l := &lab{t: t, prefix: n.prefix}
	l.hosts.Store(n.hosts.Load())
	sub := &network{lab: l, bootstrap: n.bootstrap}
	short := fmt.Sprint(n.hosts.Load())
	a, b = sub.device(l.host("a"+short, coneDrop)), sub.device(l.slowHost("b"+short, coneDrop, w))
	b.link.worsen(loss)
	return a, b, func() { n.hosts.Store(l.hosts.Load()) }
}

// Over a link that is too bad the call ends, and says what was tried; whether
// 60 % loss is too bad is a matter of luck.
// fault: F4
func TestLinksThatAreTooBadAreSaidToBe(t *testing.T) {
	n := newNetwork(t)
	a, b, done := n.behind(t, wire{delay: 10 * time.Millisecond})
	defer done()
	for _, loss := range []float64{0.6, 1} {
		b.link.worsen(loss)
		q := a.call("doctor", b.device)
		e := q.step(time.Minute, "doctor")
		_ = q.finish(10 * time.Second)
		ok, why := e.json["ok"] == true, fmt.Sprint(e.json["error"])
		switch {
		case ok && loss == 1:
			t.Errorf("connected over a link that is dead: %s", e.raw)
		case !ok && !strings.Contains(why, b.device[:8]):
			t.Errorf("at a loss of %.0f %%: %q", 100*loss, why)
		}
		fmt.Printf("%.0f %% loss: connected %v, %.0f ms: %.300s\n", 100*loss, ok, e.json["connect_ms"], why)
	}
}

// The links lose what they are told to, in bursts.
func TestLinksLoseWhatTheyShould(t *testing.T) {
	for _, loss := range []float64{0, 0.03, 0.2, 0.6, 0.9, 1} {
		var f fade
		f.set(loss)
		const n = 300000
		lost, bursts, losing := 0, 0, false
		for i := range n {
			l := f.loses(time.Unix(0, int64(i)))
			if l {
				lost++
				if !losing {
					bursts++
				}
			}
			losing = l
		}
		if got := float64(lost) / n; math.Abs(got-loss) > 0.02 {
			t.Errorf("%.3f are lost, want %.2f", got, loss)
		}
		if loss > 0 && loss <= 0.6 && math.Abs(float64(lost)/float64(bursts)-burst) > 0.3 {
			t.Errorf("loss %.2f: %.2f in a row, want %d", loss, float64(lost)/float64(bursts), burst)
		}
	}
}
