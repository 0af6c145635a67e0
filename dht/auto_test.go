package dht

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
)

// everywhere counts loopback as public, too: it is all that these tests have.
func everywhere(netip.Addr) bool { return true }

// publicNodes are bare nodes that come back to anybody.
func publicNodes(t *testing.T, size int) []*Node {
	t.Helper()
	nodes := []*Node{start(t, Config{Mode: Server, public: everywhere})}
	for len(nodes) < size {
		nodes = append(nodes, start(t, Config{Mode: Server, public: everywhere, Bootstrap: nodes[0].Addrs()}))
	}
	for _, n := range nodes {
		ready(t, n)
	}
	return nodes
}

// A device that nodes reach at its own port becomes one of them: it enters their
// tables and carries others' signals. When it is reached no more, it ends that.
func TestDeviceThatIsReachedServes(t *testing.T) {
	nodes := publicNodes(t, 2)
	carol := start(t, Config{Identity: newIdentity(t, "carol"), Mode: Auto, Listen: []string{loopback}, Bootstrap: nodes[0].Addrs(), public: everywhere, autoFirst: time.Millisecond})
	bob := newIdentity(t, "bob").DeviceID()
	put := func() error {
		_, err := nodes[0].put(testContext(t), carol.host.ID(), bob, make([]byte, 100), 0)
		return err
	}
	eventually(t, "carol serves", carol.serves)
	eventually(t, "carol is in the tables of both", func() bool {
		for _, n := range nodes {
			if n.kad.RoutingTable().Find(carol.host.ID()) == "" {
				return false
			}
		}
		return true
	})
	if addrs := carol.Addrs(); len(addrs) != 1 || !strings.HasPrefix(addrs[0], "/ip4/127.0.0.1/tcp/") {
		t.Errorf("told under %q", addrs)
	}
	if err := put(); err != nil {
		t.Errorf("a signal for another device: %v", err)
	}
	emitter := emitterOf(t, carol)
	carol.auto.set(nil, emitter)
	if err := put(); err == nil || !strings.Contains(err.Error(), "nobody else") {
		t.Errorf("a signal for another device, afterwards: %v", err)
	}
	eventually(t, "carol has left the tables", func() bool {
		return nodes[0].kad.RoutingTable().Find(carol.host.ID()) == "" && len(carol.Addrs()) == 0
	})
	exchange(t, device(t, "alice", nodes[1]), carol, "you can still be called")
}

// Where nothing, or somebody else, answers at the port, a device stays a client,
// and so it does on addresses that are not public.
func TestDeviceThatIsNotReachedStaysAClient(t *testing.T) {
	nodes := publicNodes(t, 2)
	carol := start(t, Config{Identity: newIdentity(t, "carol"), Mode: Auto, Listen: []string{loopback}, Bootstrap: nodes[0].Addrs(), public: everywhere})
	ready(t, carol)
	for what, port := range map[string]uint16{"nothing": 1, "another node": ownPort(nodes[1].host.Network().ListenAddresses())} {
		if _, reached, err := carol.probe(testContext(t), nodes[0].host.ID(), port); reached || err != nil {
			t.Errorf("%s at the port: reached %v, %v", what, reached, err)
		}
	}
	at, reached, err := carol.probe(testContext(t), nodes[0].host.ID(), ownPort(carol.host.Network().ListenAddresses()))
	if !reached || err != nil {
		t.Errorf("itself at the port: reached %v at %v, %v", reached, at, err)
	}
	dave := start(t, Config{Identity: newIdentity(t, "dave"), Mode: Auto, Listen: []string{loopback}, Bootstrap: nodes[0].Addrs()})
	ready(t, dave)
	if found, _ := dave.auto.ask(testContext(t)); found != nil || dave.serves() {
		t.Errorf("on a private network it serves at %v", found)
	}
	for addr, want := range map[string]bool{
		"192.168.1.1": false, "10.0.0.1": false, "100.64.1.1": false, "127.0.0.1": false, "169.254.1.1": false, "fd00::1": false, "fe80::1": false,
		"203.0.113.1": true, "2001:db8::1": true,
	} {
		if got := isPublic(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s public: %v", addr, got)
		}
	}
}

// A node comes back to nobody else than who asks, and not often.
// fault: E8, J3
func TestProbesAreBounded(t *testing.T) {
	node := publicNodes(t, 1)[0]
	carol := start(t, Config{Identity: newIdentity(t, "carol"), Mode: Auto, Listen: []string{loopback}, Bootstrap: node.Addrs(), public: everywhere})
	ready(t, carol)
	before := len(node.host.Network().ConnsToPeer(carol.host.ID()))
	for i := range probeBurst + 2 {
		_, _, err := carol.probe(testContext(t), node.host.ID(), 1)
		if refused := err != nil && strings.Contains(err.Error(), "too many probes"); refused != (i >= probeBurst) {
			t.Errorf("probe %d: %v", i, err)
		}
	}
	if n := len(node.host.Network().ConnsToPeer(carol.host.ID())); n != before || carol.host.Network().Connectedness(node.host.ID()) != network.Connected {
		t.Errorf("%d connections, before %d", n, before)
	}
	for name, payload := range map[string][]byte{"no port": {0, 0}, "short": {1}, "long": {1, 2, 3}} {
		s, err := carol.host.NewStream(testContext(t), node.host.ID(), pushProtocol)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(appendFrame(nil, kindProbe, payload)); err != nil {
			t.Fatal(err)
		}
		if _, err := readKind(s, kindProbed, 64); err == nil || !strings.Contains(err.Error(), "no port") {
			t.Errorf("%s: %v", name, err)
		}
		_ = s.Reset()
	}
}

func emitterOf(t *testing.T, n *Node) event.Emitter {
	t.Helper()
	e, err := n.host.EventBus().Emitter(new(event.EvtLocalReachabilityChanged))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}
