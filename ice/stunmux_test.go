package ice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v2"

	"peerlink/identity"
	"peerlink/internal/calls"
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

// unpriced is a member's.
func unpriced() *calls.Price { return nil }

// read returns how many packets wait for c.
func waiting(c *stunConn) int { return len(c.inc) }

// Two agents of this device talk to the same address of one peer: requests go
// by user name, responses by transaction.
func TestTheMuxKeepsAgentsWithTheSamePeerApart(t *testing.T) {
	m := newTestMux()
	a, b := m.open("aaaa", "secret", unpriced), m.open("bbbb", "secret", unpriced)
	peer := udpAddr("192.0.2.1:9")
	m.receive(stunMessage(t, stun.BindingRequest, stun.NewUsername("aaaa:peer")).Raw, peer, false)
	m.receive(stunMessage(t, stun.BindingRequest, stun.NewUsername("bbbb:peer")).Raw, peer, false)
	m.receive(stunMessage(t, stun.BindingRequest, stun.NewUsername("bbbb:peer")).Raw, udpAddr("[2001:db8::1]:9"), false)
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
	m.receive(resp.Raw, peer, false)
	m.receive(resp.Raw, peer, false) // a second one answers nothing
	if waiting(a.conns[0]) != 1 || waiting(b.conns[0]) != 2 {
		t.Errorf("responses: %d, %d", waiting(a.conns[0]), waiting(b.conns[0]))
	}
}

// fault: E8, J1
func TestTheMuxDropsWhatNobodyAskedForAndIsBounded(t *testing.T) {
	m := newTestMux()
	s := m.open("aaaa", "secret", unpriced)
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
		m.receive(b, peer, false)
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
		m.receive(good, udpAddr(fmt.Sprintf("192.0.2.1:%d", 1000+i)), false)
	}
	if n := waiting(s.conns[0]); n != min(maxStunQueue, maxStunSources) || len(s.sources) != maxStunSources {
		t.Errorf("%d packets wait, %d sources are known", n, len(s.sources))
	}
	for i := range 2 * maxStunTransactions {
		s.remember([12]byte{byte(i), byte(i >> 8)}, transaction{s.conns[0], addrPort(peer)})
	}
	if len(s.transactions) != maxStunTransactions || len(s.order) != maxStunTransactions {
		t.Errorf("%d transactions, %d in order", len(s.transactions), len(s.order))
	}
}

// Candidates may be those of somebody who has nothing to do with it: what is
// sent there is little, and to how many is bounded.
// fault: E8
func TestAnAddressThatDoesNotAnswerIsAskedLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := map[string]int{}
		m := newStunMux(func(b []byte, to net.Addr) (int, error) { sent[to.String()]++; return len(b), nil }, nil)
		s := m.open("aaaa", "secret", unpriced)
		silent := udpAddr("192.0.2.1:9")
		ask := func(to net.Addr) { s.conns[0].WriteTo(stunMessage(t, stun.BindingRequest).Raw, to) }
		for range 500 { // ten seconds of pion's pace
			ask(silent)
			time.Sleep(checkInterval)
		}
		if n := sent[silent.String()]; n < 35 || n > 55 {
			t.Errorf("%d requests in 10 s, want about 45", n)
		}
		before := sent[silent.String()]
		ask(silent)
		m.receive(stunMessage(t, stun.BindingRequest, stun.NewUsername("aaaa:peer")).Raw, silent, false)
		ask(silent)
		if n := sent[silent.String()] - before; n == 0 {
			t.Error("an address that asks is not asked back at once")
		}
		for i := range 4 * maxStunTargets {
			ask(udpAddr(fmt.Sprintf("192.0.2.2:%d", 1000+i)))
		}
		if len(sent) > maxStunTargets {
			t.Errorf("requests went to %d addresses", len(sent))
		}
	})
}

// A response from elsewhere than where the request went does not count: it
// would have QUIC dial there.
// fault: F3, E8
func TestAResponseCountsOnlyFromWhereTheRequestWent(t *testing.T) {
	m := newTestMux()
	s := m.open("aaaa", "secret", unpriced)
	req := stunMessage(t, stun.BindingRequest)
	s.conns[0].WriteTo(req.Raw, udpAddr("192.0.2.1:9"))
	resp, err := stun.Build(req, stun.BindingSuccess)
	if err != nil {
		t.Fatal(err)
	}
	m.receive(resp.Raw, udpAddr("192.0.2.66:9"), false)
	m.receive(resp.Raw, udpAddr("192.0.2.1:9"), true) // through a relay
	if len(s.found) != 0 || waiting(s.conns[0]) != 0 {
		t.Error("taken from another address, or another way")
	}
	m.receive(resp.Raw, udpAddr("192.0.2.1:9"), false)
	if len(s.found) != 1 || waiting(s.conns[0]) != 1 {
		t.Error("not taken from the right one")
	}
}

// A QUIC handshake is taken up only from where a check came that was made with
// the agent's password; it may be right behind the check.
// fault: E8
func TestQUICIsOnlyForCheckedAddressesAndBounded(t *testing.T) {
	m := newTestMux()
	m.open("aaaa", "secret", unpriced)
	src := netip.MustParseAddrPort("192.0.2.1:9")
	if m.mayConnect(src) {
		t.Error("a stranger may")
	}
	check := func(set ...stun.Setter) []byte {
		return stunMessage(t, append([]stun.Setter{stun.BindingRequest, stun.NewUsername("aaaa:peer")}, set...)...).Raw
	}
	m.receive(check(), udpAddr(src.String()), false)
	m.receive(check(stun.NewShortTermIntegrity("guess")), udpAddr(src.String()), false)
	if m.mayConnect(src) {
		t.Error("a check without the password is enough")
	}
	m.receive(check(stun.NewShortTermIntegrity("secret")), udpAddr("192.0.2.66:9"), false)
	if m.mayConnect(src) {
		t.Error("a check from elsewhere is enough")
	}
	m.receive(check(stun.NewShortTermIntegrity("secret")), udpAddr(src.String()), false)
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
	s := m.open("aaaa", "secret", unpriced)
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

// An address that a stranger has named gets a few requests, spread over two seconds,
// and one more for each that comes from there; and one call has few such addresses.
//
// case: S8
func TestAnAgentsRequestsOnAStrangersWordAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		priced := make(chan *calls.Price, 1)
		board := calls.New(calls.Config{
			Name: "test", Most: 2, Each: 1, Timeout: time.Second, Closed: errClosed, Log: slog.New(slog.DiscardHandler),
		}, priceOf{carrier{new(Transport)}, priced})
		defer board.Close()
		m, err := (&message{kind: calls.Offer}).encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := board.Handle(newIdentity(t, "caller").Peer(), m); err != nil {
			t.Fatal(err)
		}
		price := <-priced
		s := newTestMux().open("aaaa", "secret", func() *calls.Price { return price })
		due := func(to string, d time.Duration) (n int) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(checkInterval) {
				if s.due(checkedWay{0, netip.MustParseAddrPort(to)}, time.Now()) {
					n++
				}
			}
			return n
		}
		if early, late := due("192.0.2.1:1", time.Second), due("192.0.2.1:1", 10*time.Second); early != 4 || late != 1 {
			t.Errorf("%d requests in the first second, %d later", early, late)
		}
		for range 3 {
			s.request(0, netip.MustParseAddrPort("192.0.2.1:1"))
			if n := due("192.0.2.1:1", 10*time.Second); n != 1 {
				t.Errorf("%d requests for one", n)
			}
		}
		for port := range uint16(1000) {
			s.due(checkedWay{0, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), 1+port)}, time.Now())
		}
		if n := len(s.paces); n != maxStunTargets {
			t.Errorf("%d addresses", n)
		}
	})
}

// priceOf is a carrier that only tells the price of what is sent for a caller.
type priceOf struct {
	carrier
	c chan *calls.Price
}

func (p priceOf) Answer(_ context.Context, v *calls.Visit[*message], _ *message) (net.Conn, identity.Peer, error) {
	p.c <- v.Price()
	return nil, identity.Peer{}, errTest
}

func FuzzSTUN(f *testing.F) {
	f.Add(stunMessage(f, stun.BindingRequest, stun.NewUsername("aaaa:peer")).Raw)
	f.Add(stunMessage(f, stun.BindingSuccess).Raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newTestMux()
		s := m.open("aaaa", "secret", unpriced)
		m.receive(b, udpAddr("192.0.2.1:9"), false)
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
