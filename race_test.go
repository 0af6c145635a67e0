package peerlink_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/identity"
)

// Three carriers get there at the same moment, from one side or both, while
// both sides open channels. Only one of the links may ever carry any.
//
// fault: E3
func TestRacingCarriersLoseNoChannel(t *testing.T) {
	bySeed(t, 400, 3, raceOnce)
}

func raceOnce(t *testing.T, r *rand.Rand, ids [2]*identity.Identity) {
	nets := []*network{newNetwork("a"), newNetwork("b"), newNetwork("c")}
	for _, n := range nets {
		n.latency = time.Duration(r.IntN(3)) * time.Millisecond
	}
	within := func(n int) time.Duration { return time.Duration(r.IntN(n)) * time.Millisecond }
	both := r.IntN(2) == 0 // both call, or the second waits for the first one's call
	var ds [2]*device
	for i := range ds {
		ds[i] = nets[0].deviceOf(t, ids[i], func(c *peerlink.Config) {
			c.HeadStart = -1
			for _, n := range nets[1:] {
				p := n.port(c.Identity)
				c.Dialers, c.Listeners = append(c.Dialers, p), append(c.Listeners, p)
			}
			for _, d := range c.Dialers {
				dialing := within(2)
				d.(*port).dials = func(ctx context.Context) error { return wait(ctx, dialing) }
			}
		})
		ds[i].echo(t, "*")
	}
	var wg sync.WaitGroup
	for i := range ds {
		for k := range 6 {
			start := within(6)
			wg.Go(func() {
				time.Sleep(start)
				for i == 1 && !both && !ds[1].IsConnected(ids[0].DeviceID()) {
					time.Sleep(time.Millisecond / 4) // of the bubble
				}
				if err := talk(ds[i], ds[1-i], fmt.Sprintf("chat://%d/%d", i, k)); err != nil {
					t.Errorf("device %d, channel %d (both call: %v): %v", i, k, both, err)
				}
			})
		}
	}
	wg.Wait()
	time.Sleep(2 * time.Second)
	synctest.Wait()
	if a, b := ds[0].Connections(), ds[1].Connections(); len(a) != 1 || len(b) != 1 || a[0].Carrier != b[0].Carrier {
		t.Errorf("links left (both call: %v): %+v and %+v", both, a, b)
	}
	for i, d := range ds {
		if m := d.Metrics(); m.Failed != 0 || m.Carriers["a"].Failed+m.Carriers["b"].Failed+m.Carriers["c"].Failed != 0 {
			t.Errorf("device %d counts failures, where carriers were only slower: %+v", i, m)
		}
	}
}
