package ice

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"peerlink/identity"
	"peerlink/internal/route"
)

// Of relayed paths one that needs one relay is taken, whichever was found first;
// one that needs two waits for the patience too.
// fault: F1
func TestOneRelayIsTakenRatherThanTwo(t *testing.T) {
	engines := []string{engineTCP, engineUDP}
	tr := &Transport{cfg: Config{Engines: engines}}
	n := newNegotiation(t.Context(), controlling, newRequestID(), identity.DeviceID{1})
	defer n.end()
	c := call{t: tr, n: n, order: classes(engines), heard: true}
	var taken []string
	add := func(name, relay string, remote netip.AddrPort, class class) {
		n.addPath(&path{
			engine: engineUDP, desc: route.Path{Detail: name}, relay: relay, remote: remote, class: class, drop: func() {},
			take: func(context.Context) (net.Conn, identity.Peer, error) {
				taken = append(taken, name)
				return nil, identity.Peer{}, errTest
			},
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
		if conn, _, err := c.take(step.patient, step.direct); conn != nil || err != nil || len(taken) != step.want {
			t.Errorf("patient %v, direct %v: took %q, %v", step.patient, step.direct, taken, err)
		}
	}
	if len(taken) != 2 || taken[0] != "one" || taken[1] != "two" {
		t.Errorf("took %q", taken)
	}
}
