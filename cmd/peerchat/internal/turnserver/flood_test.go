package turnserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/turn/v3"

	"peerlink/identity"
	"peerlink/internal/relay"
)

// newIdentity is a device of an account of its own.
func newIdentity(t *testing.T) *identity.Identity {
	t.Helper()
	id, err := identity.Generate("x")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// allocation is one that a device has, with its way there.
type allocation struct {
	net.PacketConn
	client *turn.Client
	socket net.PacketConn
}

func (a *allocation) end() {
	a.Close()
	a.client.Close()
	a.socket.Close()
}

// allocate gets an allocation from an address of this machine.
func (f *fixture) allocate(t *testing.T, from string, p relay.Pass) (*allocation, error) {
	t.Helper()
	socket, err := net.ListenPacket("udp4", from+":0")
	if err != nil {
		t.Fatal(err)
	}
	c := clientOn(t, socket, f.Addr().String(), p.Username, p.Password)
	a, err := c.Allocate()
	if err != nil {
		c.Close()
		socket.Close()
		return nil, err
	}
	return &allocation{a, c, socket}, nil
}

// passOf gives a device credentials that it has asked for from some network.
func (f *fixture) passOf(t *testing.T, me *identity.Identity, from netip.Addr) relay.Pass {
	t.Helper()
	p, no := f.pass(me.Peer(), from, time.Now())
	if no != 0 {
		t.Fatalf("no credentials: reason %d", no)
	}
	return p
}

// reach is what a device needs for a call: credentials and an allocation.
func (f *fixture) reach(t *testing.T, me *identity.Identity) (time.Duration, *allocation) {
	t.Helper()
	begun := time.Now()
	p, err := relay.Fetch(t.Context(), f.Addr().String(), f.key, me)
	if err != nil {
		t.Fatal(err)
	}
	a, err := f.allocate(t, "127.0.0.1", p)
	if err != nil {
		t.Fatal(err)
	}
	return time.Since(begun), a
}

// given waits until a condition holds; the test's time-out bounds it.
func given(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for !holds() {
		if err := t.Context().Err(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// Identities cost nothing: many of them at one address get the places of one
// address, members at that address and strangers at others get theirs, and after
// the flood all is as before.
//
// case: S25
// fault: J1, J3
func TestAFloodOfIdentitiesLeavesRoomForTheOthers(t *testing.T) {
	for _, n := range []int{67, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) { flood(t, n) })
	}
}

func flood(t *testing.T, n int) {
	contact := newIdentity(t)
	f := start(t, func(c *Config) { c.Member = func(p identity.Peer) bool { return p.Account == contact.AccountID() } })
	best := func() time.Duration {
		shortest := time.Hour
		for range 5 {
			took, a := f.reach(t, contact)
			a.end()
			shortest = min(shortest, took)
		}
		return shortest
	}
	undisturbed := best()
	passes, taken := 0, []*allocation{}
	for i := range n {
		me := newIdentity(t)
		if _, err := relay.Fetch(t.Context(), f.Addr().String(), f.key, me); err == nil {
			passes++
		} else if !errors.Is(err, relay.ErrFull) {
			t.Fatalf("the relay's no: %v", err)
		}
		// Each has got credentials elsewhere, too.
		p := f.passOf(t, me, netip.AddrFrom4([4]byte{20, byte(i), 1, 1}))
		for range 2 {
			a, err := f.allocate(t, "127.0.0.1", p)
			if err == nil {
				taken = append(taken, a)
			} else if !strings.Contains(err.Error(), "486") {
				t.Fatalf("TURN's no: %v", err)
			}
		}
	}
	if passes > maxOfHost+1 || len(taken) != maxOfHost { // one more may come after issueEvery
		t.Errorf("%d identities got %d passes and %d allocations, want %d of each", n, passes, len(taken), maxOfHost)
	}
	flooded := best()
	t.Logf("%d identities: a contact has its allocation after %v, undisturbed %v: ratio %.2f", n, flooded, undisturbed, float64(flooded)/float64(undisturbed))
	if runtime.GOOS == "linux" { // elsewhere loopback has one address
		a, err := f.allocate(t, "127.0.1.2", f.passOf(t, newIdentity(t), netip.MustParseAddr("127.0.1.2")))
		if err != nil {
			t.Fatalf("a stranger at another address: %v", err)
		}
		a.end()
	}
	for _, a := range taken {
		a.end()
	}
	given(t, "places are given back", func() bool {
		members, strangers := f.places.devices.Used()
		hosts, _ := f.places.hosts.Used()
		nets, _ := f.places.nets.Used()
		return members+strangers+hosts+nets+f.Allocations()+f.door.gate.Held() == 0
	})
	again, err := f.allocate(t, "127.0.0.1", f.passOf(t, newIdentity(t), netip.MustParseAddr("20.0.0.9")))
	if err != nil {
		t.Fatalf("after the flood: %v", err)
	}
	again.end()
}

// case: S25
func TestPlacesAreCountedByDeviceByNetworkAndInAll(t *testing.T) {
	for name, c := range map[string]struct {
		most int
		next func(i int) holder
		want int
	}{
		"a stranger, from everywhere": {512, func(i int) holder { return newHolder("a", false, netip.AddrFrom4([4]byte{byte(i), 1, 1, 1})) }, maxOfStranger},
		"strangers at one address":    {512, func(i int) holder { return newHolder(fmt.Sprint(i), false, netip.MustParseAddr("20.0.0.1")) }, maxOfHost},
		"strangers of one /64": {512, func(i int) holder {
			return newHolder(fmt.Sprint(i), false, netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)))
		}, maxOfHost},
		"strangers of one /24": {512, func(i int) holder {
			return newHolder(fmt.Sprint(i), false, netip.AddrFrom4([4]byte{20, 0, 0, byte(i)}))
		}, maxOfNet},
		"strangers of one /48": {512, func(i int) holder {
			return newHolder(fmt.Sprint(i), false, netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%x::1", i)))
		}, maxOfNet},
		"strangers of all networks": {40, func(i int) holder {
			return newHolder(fmt.Sprint(i), false, netip.AddrFrom4([4]byte{20, byte(i), 0, 1}))
		}, 20},
		"a member":               {512, func(int) holder { return newHolder("a", true, netip.MustParseAddr("20.0.0.1")) }, maxOfMember},
		"members at one address": {512, func(i int) holder { return newHolder(fmt.Sprint(i), true, netip.MustParseAddr("20.0.0.1")) }, 200},
	} {
		p, got := newPlaces(c.most, true), 0
		var back []holder
		for i := range 200 {
			if h := c.next(i); p.take(h) == nil {
				got++
				back = append(back, h)
			}
		}
		if got != c.want {
			t.Errorf("%s: %d places, want %d", name, got, c.want)
		}
		for _, h := range back {
			p.release(h)
		}
		for i := range c.want {
			if err := p.room(c.next(i)); err != nil {
				t.Errorf("%s: not given back: %v", name, err)
			}
		}
	}
}

// Only members are relayed where the owner says so, each until it is a member no
// more.
// case: S25
func TestStrangersAreRefusedWhereARelayIsForMembers(t *testing.T) {
	member := newIdentity(t)
	var still atomic.Bool
	still.Store(true)
	f := start(t, func(c *Config) {
		c.MembersOnly = true
		c.Member = func(p identity.Peer) bool { return still.Load() && p.Device == member.DeviceID() }
	})
	if _, err := f.fetch(t); !errors.Is(err, relay.ErrNoRelay) || !strings.Contains(err.Error(), "its owner has named") {
		t.Errorf("a stranger: %v", err)
	}
	_, a := f.reach(t, member)
	p := f.passOf(t, member, netip.MustParseAddr("127.0.0.1"))
	a.end()
	still.Store(false)
	if _, err := f.allocate(t, "127.0.0.1", p); err == nil {
		t.Error("a member that is one no more was relayed")
	}
}

// A full relay says so at once, to a device that asks for credentials and to one
// that has some.
// case: S25
func TestAFullRelaySaysSo(t *testing.T) {
	f := start(t, func(c *Config) { c.most = 1 })
	other := f.passOf(t, newIdentity(t), netip.MustParseAddr("20.0.0.1"))
	_, a := f.reach(t, f.me)
	defer a.end()
	if _, err := relay.Fetch(t.Context(), f.Addr().String(), f.key, newIdentity(t)); !errors.Is(err, relay.ErrFull) {
		t.Errorf("credentials: %v", err)
	}
	if _, err := f.allocate(t, "127.0.0.1", other); err == nil || !strings.Contains(err.Error(), "508") {
		t.Errorf("allocation: %v", err)
	}
}

// case: S25
func TestRatesHoldForASourceAndInAll(t *testing.T) {
	const each, all, seconds, packet = 100_000, 400_000, 10, 1000
	from := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{20, byte(i), 1, 1}) }
	// run has devices send as much as they can, and returns what got through of each.
	run := func(holders ...holder) (sums []int) {
		m, now := newMeter(each, all, true), time.Unix(1_000_000, 0)
		sums = make([]int, len(holders))
		for range seconds * 1000 {
			for i, h := range holders {
				for m.allow(h, packet, now) {
					sums[i] += packet
				}
			}
			now = now.Add(time.Millisecond)
		}
		return sums
	}
	within := func(what string, got, rate int) {
		t.Helper()
		// A full burst to begin with, and one packet for rounding.
		if most := rate * (seconds + 1); got > most+packet || got < most*9/10 {
			t.Errorf("%s: %d bytes in %d s, want about %d", what, got, seconds, most)
		}
	}
	within("a member", run(newHolder("a", true, from(0)))[0], each)
	same := run(newHolder("a", false, from(0)), newHolder("b", false, from(0)))
	within("two strangers at one address", same[0]+same[1], each)
	var holders []holder
	for i := range 8 {
		holders = append(holders, newHolder(fmt.Sprint(i), false, from(i)))
	}
	sums := run(append(holders, newHolder("m", true, from(9)))...)
	strangers := 0
	for _, s := range sums[:8] {
		strangers += s
	}
	within("strangers in all", strangers, all/2)
	within("a member beside them", sums[8], each)
	for _, members := range []bool{false, true} {
		m := newMeter(-1, -1, members)
		for range 3 {
			if !m.allow(holders[0], 1<<30, time.Unix(1, 0)) {
				t.Errorf("members %v: there is a limit where there is to be none", members)
			}
		}
	}
}

// pair is an allocation and a peer that it may exchange packets with.
func (f *fixture) pair(t *testing.T) (*allocation, net.PacketConn) {
	t.Helper()
	_, a := f.reach(t, f.me)
	t.Cleanup(a.end)
	peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	return a, peer
}

// What goes through an allocation is counted, in both directions.
// case: S25
func TestARelayKeepsToItsRate(t *testing.T) {
	const rate = 50_000
	f := start(t, func(c *Config) { c.Rate = rate })
	a, peer := f.pair(t)
	begun := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got atomic.Int64
	count := func(c net.PacketConn) {
		for b := make([]byte, 2048); ; {
			n, _, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if got.Add(int64(n)) > 3*rate {
				cancel()
			}
		}
	}
	go count(peer)
	go count(a)
	for ctx.Err() == nil {
		if _, err := a.WriteTo(make([]byte, 1000), peer.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if _, err := peer.WriteTo(make([]byte, 1000), a.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(begun)
	most := rate * (1 + took.Seconds()) // a burst of one second to begin with
	t.Logf("%d bytes in %v, at most %.0f", got.Load(), took, most)
	if float64(got.Load()) > most+4096 {
		t.Errorf("%d bytes in %v, want at most %.0f", got.Load(), took, most)
	}
}

// Packets that nobody has asked for cost a device nothing of its rate.
// case: S25
func TestUnaskedPacketsDoNotCount(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("loopback has one address")
	}
	f := start(t, func(c *Config) { c.Rate = 1 }) // a burst of one packet
	a, peer := f.pair(t)
	stranger, err := net.ListenPacket("udp4", "127.0.0.9:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	for range 100 {
		if _, err := stranger.WriteTo(make([]byte, 1000), a.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.WriteTo(make([]byte, 1000), peer.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	peer.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, _, err := peer.ReadFrom(make([]byte, 2048)); err != nil {
		t.Errorf("the device's packet is lost: %v", err)
	}
}

// case: S25
func TestAnAllocationHasFewPeers(t *testing.T) {
	f := start(t, nil)
	a, _ := f.pair(t)
	q := f.ports.of(a.socket.LocalAddr())
	if q == nil {
		t.Fatal("no allocation")
	}
	now, got := time.Now(), 0
	for i := range 2 * maxPeers {
		if q.admit(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 1}), now.Add(time.Duration(i)*time.Hour)) {
			got++
		}
	}
	if got != maxPeers {
		t.Errorf("%d peers, want %d", got, maxPeers)
	}
	known := netip.AddrFrom4([4]byte{20, 0, 0, 1})
	again := 0
	for range 10 * maxPeers {
		if q.admit(known, now.Add(1e6*time.Hour)) {
			again++
		}
	}
	if again != maxPeers {
		t.Errorf("asked for %d times at once, want %d", again, maxPeers)
	}
}

// Connections that do nothing give way to newer ones; a connection with an
// allocation does not, and ends with it.
// case: S25
// fault: J3, D7
func TestIdleConnectionsGiveWay(t *testing.T) {
	f := start(t, func(c *Config) { c.grace = 1 })
	p, err := f.fetch(t)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", f.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	busy := clientOn(t, turn.NewSTUNConn(conn), f.Addr().String(), p.Username, p.Password)
	relayed, err := busy.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * maxConnsOfOne {
		c, err := net.Dial("tcp", f.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if _, err := f.fetch(t); err != nil {
		t.Errorf("a newcomer: %v", err)
	}
	if n := f.Allocations(); n != 1 {
		t.Errorf("%d allocations, want the one of before", n)
	}
	relayed.Close()
	given(t, "the allocation has ended", func() bool { return f.Allocations() == 0 })
	given(t, "its connection has, too", func() bool {
		f.door.mu.Lock()
		defer f.door.mu.Unlock()
		return f.door.visitors[addrName(conn.LocalAddr())] == nil
	})
}
