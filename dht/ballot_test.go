package dht

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
)

// case: S14
func TestTheDeviceThatMostNodesHoldIsFound(t *testing.T) {
	alice, eve := identity.DeviceID{1}, identity.DeviceID{2}
	at := func(node int, addr string) origin {
		o := origin{peer: peer.ID(fmt.Sprint(node))}
		if addr != "" {
			o.network = networkOf(netip.MustParseAddr(addr))
		}
		return o
	}
	for name, c := range map[string]struct {
		alice, eve []origin // of the nodes that hold it
		last       bool     // eve's nodes are nearer
	}{
		"more nodes":                  {alice: []origin{at(1, ""), at(2, "")}, eve: []origin{at(3, "")}},
		"more nodes, farther":         {alice: []origin{at(1, ""), at(2, "")}, eve: []origin{at(3, "")}, last: true},
		"more networks, fewer nodes":  {alice: []origin{at(1, "192.0.2.1"), at(2, "198.51.100.1")}, eve: []origin{at(3, "203.0.113.1"), at(4, "203.0.113.1"), at(5, "203.0.113.2")}, last: true},
		"as many, but a nearer node":  {alice: []origin{at(1, "192.0.2.1")}, eve: []origin{at(2, "198.51.100.1")}},
		"one network, but more nodes": {alice: []origin{at(1, "192.0.2.1"), at(2, "192.0.2.2")}, eve: []origin{at(3, "192.0.2.3")}, last: true},
		"nobody else":                 {alice: []origin{at(1, "192.0.2.1")}},
	} {
		b := ballot{votes: make(map[identity.DeviceID]vote)}
		first, second := 0, 100
		if c.last {
			first, second = second, first
		}
		for i, o := range c.alice {
			b.cast(alice, o, first+i)
		}
		for i, o := range c.eve {
			b.cast(eve, o, second+i)
		}
		if got, ok := b.winner(); !ok || got != alice {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
	}
	if _, ok := (&ballot{}).winner(); ok {
		t.Error("no node holds any")
	}
}
