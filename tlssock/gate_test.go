package tlssock

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"
)

// stranger is a connection of which only the remote address matters.
type stranger struct {
	net.Conn
	addr net.Addr
}

func (s stranger) RemoteAddr() net.Addr { return s.addr }

func from(ip string) stranger {
	return stranger{addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 1))}
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestPrefixGroupsWhatOneCustomerHolds(t *testing.T) {
	for _, tt := range [][2]string{
		{"192.0.2.7", "192.0.2.0/24"},
		{"::ffff:192.0.2.7", "192.0.2.0/24"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"fe80::1%eth0", "fe80::/64"},
	} {
		if got := prefixOf(from(tt[0]).RemoteAddr()).String(); got != tt[1] {
			t.Errorf("%s: %s, want %s", tt[0], got, tt[1])
		}
	}
	if got := prefixOf(&net.UnixAddr{Name: "x"}); got != (netip.Prefix{}) {
		t.Errorf("a Unix address: %v", got)
	}
}

// fault: J3
func TestSourceAboveItsRateIsTurnedAway(t *testing.T) {
	var g gate
	try := func(ip string, now time.Time) bool {
		v := g.enter(from(ip), now)
		if v.in != nil {
			g.leave(v.in)
		}
		return v.in != nil
	}
	in := 0
	for i := range 1000 {
		if try(fmt.Sprintf("192.0.2.%d", i%256), epoch) {
			in++
		}
	}
	if in != sourceBurst {
		t.Errorf("%d of 1000 at once were let in, want %d", in, sourceBurst)
	}
	in = 0
	for i := range 1000 {
		if try("192.0.2.1", epoch.Add(time.Duration(i)*10*time.Millisecond)) {
			in++
		}
	}
	if want := 10 * int(time.Second/sourceEvery); in < want-1 || in > want+1 {
		t.Errorf("%d in 10 s were let in, want %d", in, want)
	}
	if !try("192.0.3.1", epoch) {
		t.Error("a neighbouring prefix was turned away")
	}
	for range 1000 {
		if !try("127.0.0.1", epoch) {
			t.Fatal("loopback was turned away")
		}
	}
}

// fault: J3, D7
func TestSourceAboveItsShareLosesItsOldest(t *testing.T) {
	var g gate
	var first *slot
	for range maxPendingPerSource {
		v := g.enter(from("192.0.2.1"), epoch)
		if v.in == nil || v.out != nil {
			t.Fatalf("within the share: %+v", v)
		}
		if first == nil {
			first = v.in
		}
	}
	if v := g.enter(from("192.0.2.2"), epoch.Add(grace-1)); v.in != nil || v.wait != 0 {
		t.Errorf("while the oldest has its grace: %+v, want turned away", v)
	}
	v := g.enter(from("192.0.2.2"), epoch.Add(grace))
	if v.in == nil || v.out != first {
		t.Errorf("after its grace: %+v, want the oldest to make room", v)
	}
	g.leave(first) // its goroutine ends later: that frees nothing twice
	if n := len(g.pending); n != maxPendingPerSource || v.in.source.pending != n {
		t.Errorf("%d places are taken, the source counts %d", n, v.in.source.pending)
	}
}

// fault: J3, D7
func TestWhenAllPlacesAreTakenTheBusiestSourcePays(t *testing.T) {
	var g gate
	quiet := g.enter(from("198.51.100.1"), epoch).in // the oldest of all
	for i := range maxPending - 1 {
		if v := g.enter(from(fmt.Sprintf("10.0.%d.1", i%20)), epoch.Add(1)); v.in == nil || v.out != nil {
			t.Fatalf("place %d: %+v", i, v)
		}
	}
	v := g.enter(from("203.0.113.1"), epoch.Add(grace/2))
	if v.in != nil || v.wait != grace/2+1 || v.freed == nil {
		t.Fatalf("full: %+v, want to wait until the oldest of the busiest has had its grace", v)
	}
	full := g.enter(from("203.0.113.1"), epoch.Add(grace+1))
	if full.in == nil || full.out == nil || full.out == quiet || len(g.pending) != maxPending {
		t.Fatalf("after the grace: %+v with %d places taken", full, len(g.pending))
	}
	select {
	case <-v.freed:
	default:
		t.Error("the freed place was not announced")
	}
}

// fault: J3
func TestTableOfSourcesIsBounded(t *testing.T) {
	var g gate
	ip := func(i int) stranger { return from(fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff)) }
	hold := func(i int, now time.Time) verdict {
		v := g.enter(ip(i), now)
		if v.in != nil {
			g.leave(v.in)
		}
		return v
	}
	for i := range 3 * maxSources {
		hold(i, epoch)
	}
	if len(g.sources) != maxSources {
		t.Errorf("%d sources are remembered, want %d", len(g.sources), maxSources)
	}
	if v := hold(5*maxSources, epoch); v.in != nil {
		t.Error("newcomers' shared place has no rate")
	}
	if v := hold(7*maxSources, epoch.Add(time.Minute)); v.in == nil || v.in.source == &g.shared || len(g.sources) != 1 {
		t.Errorf("idle sources were not forgotten: %d left", len(g.sources))
	}
}

func BenchmarkGateWhenFull(b *testing.B) {
	var g gate
	for i := range maxPending {
		g.enter(from(fmt.Sprintf("10.0.%d.1", i)), epoch)
	}
	conn, now := from("192.0.2.1"), epoch.Add(grace)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(grace)
		g.enter(conn, now)
	}
}
