package dht

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"peerlink/identity"
)

const netnsEnv = "PEERLINK_TEST_NETNS"

// inOwnNetwork runs the test that calls it once more, in a process with a network
// namespace of its own that has a LAN 192.0.2.0/24 and nothing else. It reports
// true there, and false, with the child's verdict told, outside.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(netnsEnv) == t.Name() {
		for _, args := range []string{
			"link set lo up", "link add lan0 type veth peer name lan1", "addr add 192.0.2.1/24 dev lan0",
			"link set lan0 up", "link set lan1 up",
		} {
			ip(t, args)
		}
		return true
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("NOT TESTED: local networks, for want of iproute2's ip")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), netnsEnv+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Skipf("NOT TESTED: local networks, as no network namespace can be made: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in a network of its own: %v\n%s", err, out)
	}
	return false
}

// fault: E4, E5
func TestDevicesOfOneLANFindEachOtherWithoutAnyNode(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	alice := start(t, Config{Identity: newIdentity(t, "alice"), LAN: true})
	bob := start(t, Config{Identity: newIdentity(t, "bob"), LAN: true})
	ready(t, alice)
	ready(t, bob)
	eventually(t, "they found each other", func() bool { return alice.Health().Neighbours == 1 && bob.Health().Neighbours == 1 })
	exchange(t, alice, bob, "offer")
	exchange(t, bob, alice, "answer")
	if addrs := alice.Addrs(); len(addrs) != 0 {
		t.Errorf("alice tells %q", addrs)
	}
	if rec, err := alice.Lookup(testContext(t), bob.id()); err != nil || rec.Peer.Name != "bob" {
		t.Errorf("%v, %v", rec, err)
	}
	if _, err := alice.Lookup(testContext(t), newIdentity(t, "nobody").DeviceID()); err == nil {
		t.Error("nobody was found")
	}
}

// A LAN with a node on it is a whole network, though nobody was told of the node.
//
// fault: E5
func TestNodeOnTheLANIsJoinedWithoutBeingNamed(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	node := start(t, Config{Mode: Server, LAN: true, Listen: []string{"/ip4/0.0.0.0/tcp/0"}})
	alice := start(t, Config{Identity: newIdentity(t, "alice"), LAN: true})
	eventually(t, "alice's record is at the node", func() bool {
		has, _ := node.records.Has(context.Background(), dsKey(recordKey(alice.id())))
		return has && alice.Health().Subscriptions == 1
	})
	bob := device(t, "bob", node) // knows the node only
	exchange(t, bob, alice, "offer")
}

// The DHT tells nothing, or the attacker's nodes swallow everything: the device
// next door is reached all the same.
//
// fault: E4
func TestNeighbourIsReachedThroughAnEclipse(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	eclipse := startHostile(t, &hostile{}, nil) // shows no record, says that it pushed
	cfg := func(name string) Config {
		return Config{Identity: newIdentity(t, name), LAN: true, Bootstrap: eclipse.addrs()}
	}
	alice, bob := start(t, cfg("alice")), start(t, cfg("bob"))
	eventually(t, "they found each other", func() bool {
		return alice.Health().Neighbours == 1 && bob.Health().Neighbours == 1 && alice.Health().Table == 1
	})
	exchange(t, alice, bob, "offer")
	exchange(t, bob, alice, "answer")
}

// Somebody on the LAN who claims to be every device is believed nothing.
//
// fault: E2, E4
func TestNeighbourThatPoses(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	eve := newIdentity(t, "eve")
	alice := start(t, Config{Identity: newIdentity(t, "alice"), LAN: true})
	poser := start(t, Config{Identity: eve, LAN: true})
	bob := newIdentity(t, "bob")
	poser.service.card.mu.Lock()
	poser.service.card.me, poser.service.card.value = bob, mustRecord(t, eve, 1<<50, time.Now())
	poser.service.card.until = time.Now().Add(time.Hour)
	poser.service.card.mu.Unlock()
	eventually(t, "alice knows the poser", func() bool { return alice.Health().Neighbours == 1 })
	if rec, err := alice.Lookup(testContext(t), bob.DeviceID()); err == nil {
		t.Errorf("found %v", rec)
	}
	// A client serves nobody but its own device.
	for name, f := range map[string]func() error{
		"a signal for another": func() error {
			_, err := alice.put(testContext(t), poser.host.ID(), identity.DeviceID{1}, []byte("x"), 0)
			return err
		},
		"another's listening": func() error {
			return alice.presence.listen(testContext(t), poser.host.ID(), func(time.Duration) {})
		},
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "nobody else") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// ip changes the network of the test.
func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// Everything starts on a machine without a network, which comes up later: nobody
// has to be restarted.
//
// fault: E5
func TestColdStartWithoutANetworkJoinsWhenItComesUp(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	ip(t, "addr del 192.0.2.1/24 dev lan0")
	ip(t, "link set lan0 down")
	node := start(t, Config{Mode: Server, Listen: []string{"/ip4/0.0.0.0/tcp/4001"}})
	boot := []string{"/ip4/192.0.2.1/tcp/4001/p2p/" + node.host.ID().String()}
	alice := start(t, Config{Identity: newIdentity(t, "alice"), Bootstrap: boot})
	bob := start(t, Config{Identity: newIdentity(t, "bob"), Bootstrap: boot})
	carol, dave := start(t, Config{Identity: newIdentity(t, "carol"), LAN: true}), start(t, Config{Identity: newIdentity(t, "dave"), LAN: true})
	ctx, cancel := context.WithTimeout(testContext(t), 700*time.Millisecond) // some attempts
	defer cancel()
	if err := alice.Ready(ctx); err == nil {
		t.Fatal("ready without a network")
	}
	ip(t, "link set lan0 up")
	ip(t, "addr add 192.0.2.1/24 dev lan0")
	ready(t, alice)
	ready(t, bob)
	exchange(t, alice, bob, "offer")
	eventually(t, "neighbours find each other", func() bool { return carol.Health().Neighbours == 1 && dave.Health().Neighbours == 1 })
	exchange(t, carol, dave, "offer")
}
