package calls

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/identity"
)

// Of what an offer names a few are used, of each kind that may be of use, whatever
// comes first; a private address only on a network of this machine.
//
// case: S8
func TestFewOfAStrangersAddressesAreUsed(t *testing.T) {
	p := &Price{
		purse: New[*note](Config{}, nil).purse, taken: make(map[string]*[worthless]int),
		own: []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("fd00:7::/64"), netip.MustParsePrefix("198.51.100.0/24")},
	}
	var used []string
	for _, at := range []string{
		"10.0.0.1", "172.16.0.1", "192.168.8.1", "100.64.0.1", "169.254.0.1", "fd00:8::1", "fe80::1%eth0", "::1", "::ffff:10.0.0.1", // of networks elsewhere
		"192.168.7.1", "fd00:7::1", "192.168.7.2", "127.0.0.1", // here
		"2001:db8::1", "2001:db8::2", "2001:db8::3",
		"198.51.100.1", "203.0.113.1", "203.0.113.2",
		"relay 203.0.113.3", "relay 203.0.113.4", "relay 10.0.0.2",
	} {
		a, relay := at, false
		if len(at) > 6 && at[:6] == "relay " {
			a, relay = at[6:], true
		}
		if p.Takes("udp", netip.MustParseAddr(a), relay) {
			used = append(used, at)
		}
	}
	if want := []string{"192.168.7.1", "fd00:7::1", "2001:db8::1", "2001:db8::2", "198.51.100.1", "203.0.113.1", "relay 203.0.113.3"}; !slices.Equal(used, want) {
		t.Errorf("used are %q, want %q", used, want)
	}
	if !p.Takes("tcp", netip.MustParseAddr("203.0.113.9"), false) {
		t.Error("the other engine's count for this one")
	}
	for _, free := range []*Price{nil, {}} {
		for range 100 {
			if !free.Takes("udp", netip.MustParseAddr("10.0.0.1"), false) || !free.Pay(time.Now()) {
				t.Fatalf("%v has a bound", free)
			}
		}
	}
}

// All offers of strangers have one purse, whatever their keys; members do not need it.
//
// case: S8
func TestStrangersOffersHaveOnePurse(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		trust, member := new(identity.Trust), newIdentity(t)
		b := w.device(t, func(c *Config) { c.Trust = trust })
		if err := trust.Set(member.DeviceID(), identity.Allowed); err != nil {
			t.Fatal(err)
		}
		price := func(from *identity.Identity) *Price {
			return (&Visit[*note]{b: b.Board, room: b.room(from.Peer())}).Price()
		}
		var all []*Price
		for range 100 {
			all = append(all, price(newIdentity(t)))
		}
		paid := func() (n int) {
			for i := range 10_000 {
				if all[i%len(all)].Pay(time.Now()) {
					n++
				}
			}
			return n
		}
		for _, want := range []int{addressBurst, 0} {
			if n := paid(); n != want {
				t.Errorf("%d addresses at once, want %d", n, want)
			}
		}
		time.Sleep(time.Second)
		if n := paid(); n != addressRate {
			t.Errorf("%d addresses after a second", n)
		}
		if p := price(member); p != nil || !p.Pay(time.Now()) || p.Dials() < 1000 || p.Checks() < 1000 {
			t.Error("a member pays")
		}
		time.Sleep(time.Minute) // and all is given back
		if n := paid(); n != addressBurst {
			t.Errorf("%d addresses after a minute", n)
		}
		synctest.Wait()
	})
}

// What was called pays little, unless its answer proves it a member.
//
// case: S8
func TestTheAnswerSaysWhatACalledDevicePays(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		trust, far := new(identity.Trust), newIdentity(t)
		b := w.device(t, func(c *Config) { c.Trust = trust })
		if err := trust.Set(far.AccountID(), identity.Allowed); err != nil {
			t.Fatal(err)
		}
		c := &Call[*note]{b: b.Board, Peer: far.DeviceID(), from: far.Peer()}
		if p := c.Price(); p != nil {
			t.Error("a member pays")
		}
		c.from = newIdentity(t).Peer()
		if p := c.Price(); p.Dials() != calledDials || p.Checks() != calledChecks {
			t.Errorf("%d dials, %d checks", p.Dials(), p.Checks())
		}
	})
}
