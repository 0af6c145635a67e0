package dht

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestNetworkOfAnAddress(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7":           "192.0.2.0/24",
		"::ffff:192.0.2.7":    "192.0.2.0/24",
		"2001:db8:1:2::3":     "2001:db8:1::/48",
		"fe80::1%eth0":        "fe80::/48",
		"::1":                 "::/48",
		"2001:db8:1:ffff::99": "2001:db8:1::/48",
	} {
		if got := networkOf(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("%s lies in %v, want %s", in, got, want)
		}
	}
	if got := networkOf(netip.Addr{}); got.IsValid() {
		t.Errorf("no address lies in %v", got)
	}
}

// fault: J3
func TestLedgerHoldsPeersAndNetworksApart(t *testing.T) {
	l := newLedger(3, 5)
	at := func(i int, addr string) origin {
		return origin{peer: peer.ID(fmt.Sprint(i)), network: networkOf(netip.MustParseAddr(addr))}
	}
	for range 3 {
		if !l.take(at(1, "192.0.2.1"), 1) {
			t.Fatal("refused too early")
		}
	}
	if l.take(at(1, "198.51.100.1"), 1) {
		t.Error("one peer took more than its part")
	}
	if !l.take(at(2, "192.0.2.2"), 2) || l.take(at(3, "192.0.2.3"), 1) {
		t.Error("one network took more, or less, than its part")
	}
	if !l.take(at(3, "198.51.100.1"), 3) || !l.take(origin{}, 1000) {
		t.Error("others were refused")
	}
	for o, n := range map[origin]int{at(1, "192.0.2.1"): 3, at(2, "192.0.2.2"): 2, at(3, "198.51.100.1"): 3, {}: 1000} {
		l.give(o, n)
	}
	if !l.empty() {
		t.Errorf("left: %v, %v", l.peers, l.networks)
	}
}

// empty reports whether nothing is counted.
func (l *ledger) empty() bool { return len(l.peers)+len(l.networks) == 0 }

// count is how much a peer has taken.
func (l *ledger) count(p peer.ID) int { return *l.of(origin{peer: p}).peer }
