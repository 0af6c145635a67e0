package webrtc

import (
	enc "encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/identity"
	"peerlink/internal/calls"
)

// sink is a host that knows nothing of any call: it counts the packets that come.
type sink struct {
	candidates []string
	packets    atomic.Int64
}

func newSink(t *testing.T, addrs int) *sink {
	t.Helper()
	s := &sink{}
	var running sync.WaitGroup
	t.Cleanup(running.Wait) // after the closing
	for i := range addrs {
		pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 9, 1, byte(i + 1)}), 0)))
		if err != nil {
			t.Fatal(err)
		}
		at := pc.LocalAddr().(*net.UDPAddr).AddrPort()
		s.candidates = append(s.candidates, fmt.Sprintf("candidate:%d 1 udp 2130706431 %s %d typ host", i+1, at.Addr(), at.Port()))
		running.Go(func() {
			for b := make([]byte, 1500); ; {
				if _, _, err := pc.ReadFrom(b); err != nil {
					return
				}
				s.packets.Add(1)
			}
		})
		t.Cleanup(func() { pc.Close() })
	}
	return s
}

// flood has each of the keys make an offer in turn that names the sink, and waits
// until all calls are over.
func (s *sink) flood(t *testing.T, x *exchange, to *device, sdp string, keys []*identity.Identity, offers int) {
	t.Helper()
	ctx, ignored := limit(t, patience), to.board.Ignored()
	send := func(from *identity.Identity, b []byte) {
		t.Helper()
		if err := x.Join(from).Send(ctx, to.id.DeviceID(), b); err != nil {
			t.Fatal(err)
		}
	}
	for i := range offers {
		b, err := (&message{kind: calls.Offer, id: calls.NewID(), sdp: sdp, candidates: s.candidates}).encode()
		if err != nil {
			t.Fatal(err)
		}
		send(keys[i%len(keys)], b)
	}
	send(keys[0], nil) // no signal, behind all others
	for over := false; !over; {
		_, running := to.board.Running()
		over = to.board.Ignored() > ignored && running == 0
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the calls do not end")
		}
	}
}

// Throw-away keys name a third party's addresses. What arrives there has a small
// price each; a member's offer has what it had.
//
// case: S8
func TestAThirdPartyHearsLittleOnStrangersWord(t *testing.T) {
	const offers = 100
	s, x, trust := newSink(t, maxCandidates), newExchange(), new(identity.Trust)
	b := x.newDevice(t, "bob", func(c *Config) { c.Trust, c.Timeout = trust, 4*time.Second })
	hanging := x.newDevice(t, "mallory")
	session, err := hanging.newSession(t.Context(), caller, calls.NewID(), b.id.DeviceID(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.hangUp()
	sdp, err := session.offer()
	if err != nil {
		t.Fatal(err)
	}
	var keys []*identity.Identity
	for range offers {
		keys = append(keys, newIdentity(t, "throw-away"))
	}
	began := time.Now()
	s.flood(t, x, b, sdp, keys, offers)
	packets, took := s.packets.Load(), time.Since(began)
	t.Logf("%d offers of strangers in %v: %d packets", offers, took, packets)
	if most := int64(5 * (256 + 64*took.Seconds() + 1)); packets > most || packets > 5*2*offers*2 || packets == 0 {
		t.Errorf("want at most %d", most)
	}

	member := newIdentity(t, "member")
	if err := trust.Set(member.DeviceID(), identity.Allowed); err != nil {
		t.Fatal(err)
	}
	s.packets.Store(0)
	s.flood(t, x, b, sdp, []*identity.Identity{member}, 1)
	t.Logf("one offer of a member: %d packets", s.packets.Load())
	if s.packets.Load() <= 5*2*2 {
		t.Error("a member is not called back with patience")
	}
}

// Strangers connect as fast as members.
//
// case: S8
func TestHonestStrangersConnectAsMembersDo(t *testing.T) {
	x, trust := newExchange(), new(identity.Trust)
	stranger, member := x.newDevice(t, "stranger"), x.newDevice(t, "member")
	b := x.newDevice(t, "bob", func(c *Config) { c.Trust = trust })
	if err := trust.Set(member.id.DeviceID(), identity.Allowed); err != nil {
		t.Fatal(err)
	}
	var took [2][]time.Duration
	for round := range 10 {
		for i := range took {
			i = (i + round) % len(took)
			began := time.Now()
			connect(t, []*device{member, stranger}[i], b)
			took[i] = append(took[i], time.Since(began))
		}
	}
	m, s := slices.Min(took[0]), slices.Min(took[1])
	t.Logf("a member connects in %v, a stranger in %v: ratio %.2f", m, s, float64(s)/float64(m))
}

// An address gets a few checks, one more for each of its own, and all once it has
// answered one; requests to servers and answers are not checks.
//
// case: S8
func TestAPricedSocketHoldsChecksBack(t *testing.T) {
	s := &pricedSocket{price: &calls.Price{}, targets: make(map[netip.AddrPort]*target)}
	at := netip.MustParseAddrPort("192.0.2.1:1")
	tx := byte(0)
	packet := func(kind, attribute uint16) []byte {
		b := make([]byte, stunHeader+4)
		enc.BigEndian.PutUint16(b, kind)
		enc.BigEndian.PutUint32(b[4:], stunCookie)
		enc.BigEndian.PutUint16(b[stunHeader:], attribute)
		tx++
		b[8] = tx
		return b
	}
	check := func() []byte { return packet(stunRequest, stunUsername) }
	paid := func(to netip.AddrPort) (n int) {
		for range 100 {
			if s.pay(check(), to) {
				n++
			}
		}
		return n
	}
	if n := paid(at); n != s.price.Checks() {
		t.Errorf("%d checks", n)
	}
	s.heard(check(), at)
	if n := paid(netip.MustParseAddrPort("[::ffff:192.0.2.1]:1")); n != 1 {
		t.Errorf("%d checks for one", n)
	}
	for _, free := range [][]byte{packet(stunSuccess, stunUsername), packet(stunRequest, 0x8022), {1, 2, 3}, nil, make([]byte, 100)} {
		if !s.pay(free, at) {
			t.Errorf("%x is held back", free)
		}
	}
	for port := range uint16(100) {
		s.pay(check(), netip.AddrPortFrom(at.Addr(), 2+port))
	}
	if len(s.targets) != maxTargets {
		t.Errorf("%d addresses", len(s.targets))
	}
	s.heard(packet(stunSuccess, stunUsername), at)
	if n := paid(at); n != 0 {
		t.Errorf("%d checks for a forged answer", n)
	}
	answer := packet(stunSuccess, stunUsername)
	copy(answer[8:], s.targets[at].checks[0][:])
	s.heard(answer, at)
	if n := paid(at); n != 100 {
		t.Errorf("%d checks after an answer", n)
	}
}
