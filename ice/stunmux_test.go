package ice

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

func udpAddr(s string) *net.UDPAddr { return net.UDPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

func newTestMux() *stunMux {
	return newStunMux(func(b []byte, _ net.Addr) (int, error) { return len(b), nil }, []net.Addr{udpAddr("127.0.0.1:1")})
}

func stunMessage(t testing.TB, set ...stun.Setter) *stun.Message {
	t.Helper()
	m, err := stun.Build(append([]stun.Setter{stun.TransactionID}, set...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// read returns how many packets wait for c.
func waiting(c *stunConn) int { return len(c.inc) }

// Two agents of this device talk to the same address of one peer: requests go
// by user name, responses by transaction.
func TestTheMuxKeepsAgentsWithTheSamePeerApart(t *testing.T) {
	m := newTestMux()
	a, b := m.open("aaaa"), m.open("bbbb")
	peer := udpAddr("192.0.2.1:9")
	m.dispatch(stunMessage(t, stun.BindingRequest, stun.NewUsername("aaaa:peer")).Raw, peer)
	m.dispatch(stunMessage(t, stun.BindingRequest, stun.NewUsername("bbbb:peer")).Raw, peer)
	m.dispatch(stunMessage(t, stun.BindingRequest, stun.NewUsername("bbbb:peer")).Raw, udpAddr("[2001:db8::1]:9"))
	if waiting(a.conns[0]) != 1 || waiting(b.conns[0]) != 1 || waiting(b.conns[1]) != 1 {
		t.Fatalf("requests: %d, %d, %d", waiting(a.conns[0]), waiting(b.conns[0]), waiting(b.conns[1]))
	}
	req := stunMessage(t, stun.BindingRequest)
	if _, err := b.conns[0].WriteTo(req.Raw, peer); err != nil {
		t.Fatal(err)
	}
	resp, err := stun.Build(req, stun.BindingSuccess)
	if err != nil {
		t.Fatal(err)
	}
	m.dispatch(resp.Raw, peer)
	m.dispatch(resp.Raw, peer) // a second one answers nothing
	if waiting(a.conns[0]) != 1 || waiting(b.conns[0]) != 2 {
		t.Errorf("responses: %d, %d", waiting(a.conns[0]), waiting(b.conns[0]))
	}
}

// fault: E8, J1
func TestTheMuxDropsWhatNobodyAskedForAndIsBounded(t *testing.T) {
	m := newTestMux()
	s := m.open("aaaa")
	peer := udpAddr("192.0.2.1:9")
	good := stunMessage(t, stun.BindingRequest, stun.NewUsername("aaaa:peer")).Raw
	for name, b := range map[string][]byte{
		"empty":              {},
		"garbage":            []byte("hello, is anybody there, I am no STUN packet"),
		"cut":                good[:len(good)-1],
		"unknown user":       stunMessage(t, stun.BindingRequest, stun.NewUsername("zzzz:peer")).Raw,
		"no user":            stunMessage(t, stun.BindingRequest).Raw,
		"unasked response":   stunMessage(t, stun.BindingSuccess).Raw,
		"unknown class":      stunMessage(t, stun.NewType(stun.MethodBinding, stun.ClassIndication)).Raw,
		"attribute over end": append(append([]byte{0, 1, 0, 4}, good[4:20]...), 0, 6, 0xff, 0xff),
	} {
		m.dispatch(b, peer)
		if n := waiting(s.conns[0]); n != 0 {
			t.Fatalf("%s reached the agent", name)
		}
	}
	select {
	case <-s.touched:
		t.Fatal("touched by garbage")
	default:
	}
	for i := range 4 * maxStunSources {
		m.dispatch(good, udpAddr(fmt.Sprintf("192.0.2.1:%d", 1000+i)))
	}
	if n := waiting(s.conns[0]); n != min(maxStunQueue, maxStunSources) || len(s.sources) != maxStunSources {
		t.Errorf("%d packets wait, %d sources are known", n, len(s.sources))
	}
	for range 2 * maxStunTransactions {
		s.conns[0].WriteTo(stunMessage(t, stun.BindingRequest).Raw, peer)
	}
	if len(s.transactions) != maxStunTransactions || len(s.order) != maxStunTransactions {
		t.Errorf("%d transactions, %d in order", len(s.transactions), len(s.order))
	}
}

// A QUIC handshake is taken up only from where an agent has answered a check.
func TestQUICIsOnlyForCheckedAddressesAndBounded(t *testing.T) {
	m := newTestMux()
	s := m.open("aaaa")
	src := netip.MustParseAddrPort("192.0.2.1:9")
	if m.mayConnect(src) {
		t.Error("a stranger may")
	}
	req := stunMessage(t, stun.BindingRequest, stun.NewUsername("aaaa:peer"))
	m.dispatch(req.Raw, udpAddr(src.String()))
	if m.mayConnect(src) {
		t.Error("a check that was not answered is enough")
	}
	resp, err := stun.Build(req, stun.BindingSuccess)
	if err != nil {
		t.Fatal(err)
	}
	s.conns[0].WriteTo(resp.Raw, udpAddr(src.String()))
	for i := range 2 * maxHandshakesOfOne {
		if got, want := m.mayConnect(src), i < maxHandshakesOfOne; got != want {
			t.Errorf("handshake %d: %v", i, got)
		}
	}
	m.RemoveConnByUfrag("aaaa")
	m.RemoveConnByUfrag("aaaa")
	if m.mayConnect(src) {
		t.Error("allowed after the negotiation")
	}
}

func TestAnAgentsConnectionKeepsDeadlinesAndCloses(t *testing.T) {
	m := newTestMux()
	s := m.open("aaaa")
	c, err := m.GetConn("aaaa", udpAddr("127.0.0.1:1"))
	if err != nil || c != net.PacketConn(s.conns[0]) {
		t.Fatal(c, err)
	}
	c.SetReadDeadline(time.Now().Add(-time.Second))
	if _, _, err := c.ReadFrom(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		var ne net.Error
		if !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("past deadline: %v", err)
		}
	}
	c.SetDeadline(time.Time{})
	done := make(chan error, 1)
	go func() {
		_, _, err := c.ReadFrom(make([]byte, 1))
		done <- err
	}()
	m.RemoveConnByUfrag("aaaa")
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := m.GetConn("aaaa", udpAddr("127.0.0.1:1")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("gone: %v", err)
	}
}

func FuzzSTUN(f *testing.F) {
	f.Add(stunMessage(f, stun.BindingRequest, stun.NewUsername("aaaa:peer")).Raw)
	f.Add(stunMessage(f, stun.BindingSuccess).Raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newTestMux()
		s := m.open("aaaa")
		m.dispatch(b, udpAddr("192.0.2.1:9"))
		if waiting(s.conns[0]) == 0 {
			return
		}
		// What is passed on is what pion's decoder agrees with.
		d := &stun.Message{Raw: b}
		var u stun.Username
		if err := d.Decode(); err == nil {
			if err := u.GetFrom(d); err != nil {
				t.Fatalf("passed on without a user name: %x", b)
			}
		}
	})
}
