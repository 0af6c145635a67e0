package dht

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/internal/reach"
)

// All bootstrap nodes are gone for good; a device that was in the network before
// comes back through nodes that it remembers, and one that was not learns why.
//
// fault: E5
func TestDeviceRejoinsThroughNodesItRemembers(t *testing.T) {
	nodes := startNodes(t, 4)
	path := filepath.Join(t.TempDir(), "reach.json")
	cfg := Config{Identity: newIdentity(t, "alice"), Bootstrap: nodes[0].Addrs(), ReachFile: path}
	alice, err := Start(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ready(t, alice)
	eventually(t, "alice knows other nodes", func() bool { return len(alice.memory.nodes()) == 4 })
	if err := alice.Close(); err != nil {
		t.Fatal(err)
	}
	if err := nodes[0].Close(); err != nil {
		t.Fatal(err)
	}
	again := start(t, cfg)
	ready(t, again)
	bob := device(t, "bob", nodes[3])
	exchange(t, bob, again, "offer")
	exchange(t, again, bob, "answer")
}

// Look-ups fail, as after an eclipse; the node through which a device was
// signalled before is asked itself.
//
// fault: E4, E5
func TestKnownDeviceIsReachedThoughLookupsFail(t *testing.T) {
	node := startNodes(t, 1)[0]
	path := filepath.Join(t.TempDir(), "reach.json")
	cfg := Config{Identity: newIdentity(t, "alice"), Bootstrap: node.Addrs(), ReachFile: path}
	alice, err := Start(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ready(t, alice)
	bob := device(t, "bob", node)
	exchange(t, alice, bob, "before")
	eventually(t, "the way is remembered", func() bool { return len(alice.memory.carriers(bob.id())) == 1 })
	if err := alice.Close(); err != nil {
		t.Fatal(err)
	}
	forgetNetwork(t, path)
	eclipse := startHostile(t, &hostile{}, nil)
	cfg.Bootstrap = eclipse.addrs()
	again := start(t, cfg)
	eventually(t, "alice is eclipsed", func() bool { return again.Health().Table >= 1 })
	exchange(t, again, bob, "after")
	stranger := start(t, Config{Identity: newIdentity(t, "stranger"), Bootstrap: eclipse.addrs()})
	if _, err := stranger.Lookup(testContext(t), bob.id()); err == nil {
		t.Error("the eclipse shows bob to one who does not remember")
	}
}

// forgetNetwork takes the nodes to join through out of a reach file.
func forgetNetwork(t *testing.T, path string) {
	t.Helper()
	book, err := reach.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, via := range book.Known(networkName, time.Now()) {
		book.Failed(networkName, via)
	}
	if left := book.Known(networkName, time.Now()); len(left) > 0 {
		t.Fatalf("%v is left", left)
	}
	if err := book.Save(); err != nil {
		t.Fatal(err)
	}
}

// fault: I2
func TestDamagedMemoryIsToldAndReplaced(t *testing.T) {
	node := startNodes(t, 1)[0]
	path := filepath.Join(t.TempDir(), "reach.json")
	if err := os.WriteFile(path, []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	alice, err := Start(testContext(t), Config{Identity: newIdentity(t, "alice"), Bootstrap: node.Addrs(), ReachFile: path})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "alice remembers the node", func() bool { return len(alice.memory.nodes()) == 1 })
	if err := alice.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), node.host.ID().String()) {
		t.Errorf("%s, %v", b, err)
	}
}
