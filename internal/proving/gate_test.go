package proving

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"peerlink/internal/quota"
)

// Bounds of the gates that are tested.
const (
	places      = 128
	perSource   = 32
	grace       = 5 * time.Second
	sourceBurst = 64
	sourceEvery = 50 * time.Millisecond
	maxSources  = 4096
)

// newGate is a gate for the Internet: a /24 or /64 is a source, and loopback has
// no limits of its own.
func newGate() *Gate {
	return &Gate{
		Places: places, PerSource: perSource, Grace: grace, Rate: quota.NewRates[netip.Prefix](maxSources, rate.Every(sourceEvery), sourceBurst),
		Source: func(c net.Conn) (netip.Prefix, bool) {
			from := quota.NetworkOf(netip.MustParseAddrPort(c.RemoteAddr().String()).Addr(), 24, 64)
			return from, !from.Addr().IsLoopback()
		},
	}
}

// stranger is a connection that has nothing but a remote address.
type stranger struct {
	net.Conn
	addr net.Addr
}

func (s stranger) RemoteAddr() net.Addr { return s.addr }

func from(ip string) stranger {
	return stranger{addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 1))}
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// fault: J3
func TestSourceAboveItsRateIsTurnedAway(t *testing.T) {
	g := newGate()
	try := func(ip string, now time.Time) bool {
		v := g.Admit(from(ip), now)
		if v.In != nil {
			v.In.Leave()
		}
		return v.In != nil
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
	g := newGate()
	var first *Place
	for range perSource {
		v := g.Admit(from("192.0.2.1"), epoch)
		if v.In == nil || v.Out != nil {
			t.Fatalf("within the share: %+v", v)
		}
		if first == nil {
			first = v.In
		}
	}
	if v := g.Admit(from("192.0.2.2"), epoch.Add(grace-1)); v.In != nil || v.Wait != 0 {
		t.Errorf("while the oldest has its grace: %+v, want turned away", v)
	}
	v := g.Admit(from("192.0.2.2"), epoch.Add(grace))
	if v.In == nil || v.Out != first {
		t.Errorf("after its grace: %+v, want the oldest to make room", v)
	}
	first.Leave() // its goroutine ends later: that frees nothing twice
	if n := len(g.pending); n != perSource || g.held[v.In.from] != n {
		t.Errorf("%d places are taken, the source counts %d", n, g.held[v.In.from])
	}
}

// fault: J3, D7
func TestWhenAllPlacesAreTakenTheBusiestSourcePays(t *testing.T) {
	g := newGate()
	quiet := g.Admit(from("198.51.100.1"), epoch).In // the oldest of all
	for i := range places - 1 {
		if v := g.Admit(from(fmt.Sprintf("10.0.%d.1", i%20)), epoch.Add(1)); v.In == nil || v.Out != nil {
			t.Fatalf("place %d: %+v", i, v)
		}
	}
	v := g.Admit(from("203.0.113.1"), epoch.Add(grace/2))
	if v.In != nil || v.Wait != grace/2+1 || v.Freed == nil {
		t.Fatalf("full: %+v, want to wait until the oldest of the busiest has had its grace", v)
	}
	full := g.Admit(from("203.0.113.1"), epoch.Add(grace+1))
	if full.In == nil || full.Out == nil || full.Out == quiet || len(g.pending) != places {
		t.Fatalf("after the grace: %+v with %d places taken", full, len(g.pending))
	}
	select {
	case <-v.Freed:
	default:
		t.Error("the freed place was not announced")
	}
}

// fault: J3
func TestNothingIsKeptOfSourcesThatHaveLeft(t *testing.T) {
	g := newGate()
	for i := range 3 * maxSources {
		v := g.Admit(from(fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff)), epoch)
		if v.In == nil {
			t.Fatalf("source %d was turned away for what others did", i)
		}
		v.In.Leave()
	}
	if g.Held() != 0 || len(g.held) != 0 {
		t.Errorf("%d places, %d sources are left", g.Held(), len(g.held))
	}
}

func TestAPlaceThatIsKeptIsSafe(t *testing.T) {
	g := &Gate{Places: places, Grace: grace} // of one source
	enter := func(now time.Time) (*Place, time.Duration) {
		v := g.Admit(from("127.0.0.1"), now)
		return v.In, v.Wait
	}
	first, _ := enter(epoch)
	second, _ := enter(epoch)
	for range places - 2 {
		enter(epoch.Add(grace / 2))
	}
	if p, wait := enter(epoch.Add(grace / 4)); p != nil || wait != grace*3/4 {
		t.Errorf("within the grace: %v, wait %s", p, wait)
	}
	if !first.Keep() {
		t.Error("the first has lost its place")
	}
	if p, _ := enter(epoch.Add(grace)); p == nil || !lost(second) || lost(first) {
		t.Error("after the grace the oldest that is not kept did not make room")
	}
	if second.Keep() || second.Leave() {
		t.Error("a place that was taken is still held")
	}
	freed := g.Admit(from("127.0.0.1"), epoch).Freed
	if !first.Leave() {
		t.Error("the first has lost its place")
	}
	select {
	case <-freed:
	default:
		t.Error("a free place was not told")
	}
}

func lost(p *Place) bool {
	select {
	case <-p.Lost():
		return true
	default:
		return false
	}
}

func TestWhenAllPlacesAreKeptNewcomersWait(t *testing.T) {
	g := &Gate{Places: 1, Grace: grace}
	if !g.Admit(from("127.0.0.1"), epoch).In.Keep() {
		t.Fatal("a new place was lost")
	}
	if v := g.Admit(from("127.0.0.1"), epoch.Add(time.Hour)); v.In != nil || v.Wait != grace || v.Freed == nil {
		t.Errorf("%+v, want to wait", v)
	}
}

// The oldest goes at once where there is no grace.
func TestWithoutGraceAndRateASourceThatHasLeftIsForgotten(t *testing.T) {
	g := newGate()
	g.Grace, g.Rate = 0, nil
	var all []*Place
	for i := range 2 * places {
		v := g.Admit(from(fmt.Sprintf("10.0.%d.1", i)), epoch)
		if v.In == nil || (v.Out != nil) != (i >= places) {
			t.Fatalf("place %d: %+v", i, v)
		}
		all = append(all, v.In)
	}
	for i, p := range all {
		if p.Leave() != (i >= places) {
			t.Errorf("place %d", i)
		}
	}
	if g.Held() != 0 || len(g.held) != 0 {
		t.Errorf("%d places, %d sources are left", g.Held(), len(g.held))
	}
}

func BenchmarkGateWhenFull(b *testing.B) {
	g := newGate()
	for i := range places {
		g.Admit(from(fmt.Sprintf("10.0.%d.1", i)), epoch)
	}
	conn, now := from("192.0.2.1"), epoch.Add(grace)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(grace)
		g.Admit(conn, now)
	}
}

func TestSourceThatLosesItsLastPlaceToItselfIsCountedOn(t *testing.T) {
	g := &Gate{Places: 2, PerSource: 1, Source: newGate().Source}
	g.Admit(from("192.0.2.1"), epoch)
	g.Admit(from("198.51.100.1"), epoch)
	again := g.Admit(from("192.0.2.1"), epoch.Add(time.Second))
	if again.In == nil || again.Out == nil {
		t.Fatalf("the newcomer got %+v", again)
	}
	third := g.Admit(from("192.0.2.1"), epoch.Add(2*time.Second))
	if third.Out != again.In || g.Held() != 2 {
		t.Errorf("a source of one place has another one: %+v, %d held", third, g.Held())
	}
}

// A source whose places are all safe keeps no newcomer from the places of others that
// stall.
//
// case: S10
func TestThePlacesOfOthersMakeRoomWhereTheBusiestSourcesAreSafe(t *testing.T) {
	g := &Gate{Places: 4, PerSource: 3, Grace: grace, Source: newGate().Source}
	for range 3 {
		g.Admit(from("192.0.2.1"), epoch).In.Keep()
	}
	idle := g.Admit(from("198.51.100.1"), epoch).In
	if v := g.Admit(from("203.0.113.1"), epoch.Add(grace)); v.In == nil || v.Out != idle {
		t.Errorf("%+v, want the place of the one that stalls", v)
	}
}
