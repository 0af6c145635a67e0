package ice

import (
	"net/netip"
	"testing"

	"peerlink/identity"
	"peerlink/internal/calls"
	"peerlink/internal/route"
)

// Of relayed paths one that needs one relay is taken, whichever was found first;
// one that needs two waits for the patience too.
// fault: F1
func TestOneRelayIsTakenRatherThanTwo(t *testing.T) {
	engines := []string{engineTCP, engineUDP}
	tr := &Transport{cfg: Config{Engines: engines}}
	n := newNegotiation(t.Context(), controlling, calls.NewID(), identity.DeviceID{1})
	defer n.end()
	c := call{t: tr, n: n, order: classes(engines)}
	var taken []string
	add := func(name, relay string, remote netip.AddrPort, class class) {
		n.addPath(&path{
			Path: route.Path{Engine: engineUDP, Detail: name, Relay: relay, Remote: remote}, class: class, drop: func() {},
		})
	}
	at := netip.MustParseAddrPort("192.0.2.1:3478")
	add("two", "own", at, udpClassOf(true, false)) // until the peer says that it is a relay
	n.learn(engineUDP, []candidate{{relayCandidate, at}})
	add("one", "own", netip.MustParseAddrPort("198.51.100.1:4000"), udpClassOf(true, false))
	for _, step := range []struct {
		patient, direct bool
		want            int
	}{{true, true, 0}, {false, true, 0}, {true, false, 1}, {true, false, 1}, {false, false, 2}} {
		if p := c.best(step.patient, step.direct); p != nil {
			taken = append(taken, p.Detail)
		}
		if len(taken) != step.want {
			t.Errorf("patient %v, direct %v: took %q", step.patient, step.direct, taken)
		}
	}
	if len(taken) != 2 || taken[0] != "one" || taken[1] != "two" {
		t.Errorf("took %q", taken)
	}
}
