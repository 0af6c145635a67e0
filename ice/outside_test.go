package ice

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// A relay is taken late while the question, from where this device is seen, may
// have been lost, and early again once a server has answered or failed.
func TestRelaysWaitForTheFirstAnswerOfAServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no time passes
		c := call{t: &Transport{}, madeAt: time.Now()}
		o := &c.t.outside
		want := func(what string, d time.Duration) {
			t.Helper()
			if got := c.relayPatience(); got != d {
				t.Errorf("%s: a relay waits for %v, want %v", what, got, d)
			}
		}
		want("no server", minRelayPatience)
		first, second, tcp := o.await(engineUDP), o.await(engineUDP), o.await(engineTCP)
		want("asked", maxRelayPatience)
		tcp()
		first()
		first()
		want("one of two has failed", maxRelayPatience)
		o.set(engineUDP, relaySource, candidate{relayCandidate, netip.MustParseAddrPort("203.0.113.1:3478")})
		want("a relay is no view from outside", maxRelayPatience)
		o.set(engineUDP, "two", candidate{srflxCandidate, netip.MustParseAddrPort("203.0.113.2:4000")})
		want("one has answered", minRelayPatience)
		o.clear(engineUDP, "two")
		want("the address is gone, one is awaited", maxRelayPatience)
		second()
		want("none is awaited", minRelayPatience)
	})
}
