package dht

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// A device whose addresses are all gone closes every connection, and is called
// again as soon as it has one: nothing waits for a time-out, nor for the pause
// after a failure.
//
// fault: F2, E9
func TestDeviceThatMovedListensAnewAtOnce(t *testing.T) {
	nodes := startNodes(t, 3)
	alice, bob := device(t, "alice", nodes[0]), device(t, "bob", nodes[1])
	eventually(t, "bob listens at all nodes", func() bool { return bob.Health().Subscriptions == 3 })
	before := bob.host.Network().Conns()
	bob.moved(map[netip.Addr]bool{netip.MustParseAddr("192.0.2.1"): true})
	for _, c := range before {
		if !c.IsClosed() {
			t.Errorf("the connection from %s is open", c.LocalMultiaddr())
		}
	}
	start := time.Now()
	eventually(t, "bob listens at all nodes again", func() bool {
		up := 0
		for _, n := range nodes {
			if bob.host.Network().Connectedness(n.host.ID()) == network.Connected {
				up++
			}
		}
		return up == 3 && bob.Health().Subscriptions == 3
	})
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("bob can be called after %v", took)
	}
	exchange(t, alice, bob, "there you are")
}

// Connections from addresses that the machine still has are left alone.
func TestConnectionsFromStandingAddressesLive(t *testing.T) {
	node := startNodes(t, 1)[0]
	bob := device(t, "bob", node)
	own, err := ownAddresses()
	if err != nil {
		t.Fatal(err)
	}
	if !own[netip.MustParseAddr("127.0.0.1")] {
		t.Skipf("no loopback address among %v", own)
	}
	before := bob.host.Network().Conns()
	bob.moved(own)
	for _, c := range before {
		if c.IsClosed() {
			t.Errorf("the connection from %s was closed", c.LocalMultiaddr())
		}
	}
}

// After a restart pauses are short again, however long it has not worked.
func TestRestartForgetsLongPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var tries []time.Time
		go p.run(ctx, func(context.Context) bool { tries = append(tries, time.Now()); return false })
		time.Sleep(10 * time.Minute) // the pauses have grown to half a minute
		synctest.Wait()
		began := time.Now()
		tries = nil
		p.restart(movedWithin)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(tries) < 3 || tries[0].Sub(began) > pacerMinPause+movedWithin {
			t.Errorf("within 2 s tried %d times, the first after %v", len(tries), tries[0].Sub(began))
		}
	})
}
