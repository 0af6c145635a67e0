package dht

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
)

var (
	bobKey = identity.DeviceID{'b'}
	t0     = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

func testHub() *hub { return newHub(100, 1<<20, new(drops)) }

func from(p peer.ID) origin { return origin{peer: p} }

func mustListen(t *testing.T, h *hub, key identity.DeviceID, p peer.ID) *listener {
	t.Helper()
	return mustListenFrom(t, h, key, from(p))
}

func mustListenFrom(t *testing.T, h *hub, key identity.DeviceID, o origin) *listener {
	t.Helper()
	l, err := h.listen(t0, key, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// empty fails unless the hub holds nothing at all.
func empty(t *testing.T, h *hub) {
	t.Helper()
	if len(h.boxes)+h.stored+h.listeners != 0 || !h.kept.empty() || !h.listens.empty() {
		t.Errorf("left: %d boxes, putters %v, listeners %v, %d bytes, %d listeners", len(h.boxes), h.kept, h.listens, h.stored, h.listeners)
	}
}

func TestHubPushesAtOnceAndKeepsForLater(t *testing.T) {
	h := testHub()
	if pushed, stored := h.put(t0, from("alice"), bobKey, []byte("early"), signalLife); pushed || !stored {
		t.Errorf("to nobody: pushed %v, stored %v", pushed, stored)
	}
	l := mustListen(t, h, bobKey, "bob")
	if got := string(<-l.queue); got != "early" {
		t.Errorf("waiting signal %q", got)
	}
	if pushed, stored := h.put(t0, from("alice"), bobKey, []byte("live"), signalLife); !pushed || !stored {
		t.Errorf("to a listener: pushed %v, stored %v", pushed, stored)
	}
	if got := string(<-l.queue); got != "live" {
		t.Errorf("pushed signal %q", got)
	}
	if pushed, stored := h.put(t0, from("alice"), bobKey, []byte("live"), signalLife); !pushed || !stored || len(l.queue) != 0 {
		t.Errorf("the same again: pushed %v, stored %v, %d queued", pushed, stored, len(l.queue))
	}
	h.leave(l)
	h.leave(l)
	again := mustListen(t, h, bobKey, "bob")
	if string(<-again.queue) != "early" || string(<-again.queue) != "live" {
		t.Error("a device that comes back does not get what it may have missed, in order")
	}
	h.leave(again)
	h.sweep(t0.Add(signalLife))
	if h.stored == 0 {
		t.Error("swept too early")
	}
	h.sweep(t0.Add(signalLife + 1))
	empty(t, h)
}

func TestListenersOfOtherKeysHearNothing(t *testing.T) {
	h := testHub()
	l := mustListen(t, h, identity.DeviceID{'e'}, "eve")
	h.put(t0, from("alice"), bobKey, []byte("secret"), signalLife)
	if len(l.queue) != 0 {
		t.Error("heard it")
	}
}

// fault: C1
func TestSlowListenerNeverBlocksTheHub(t *testing.T) {
	h := testHub()
	slow, quick := mustListen(t, h, bobKey, "slow"), mustListen(t, h, bobKey, "quick")
	for i := range 2 * listenerQueueLen {
		if pushed, _ := h.put(t0, from("alice"), bobKey, []byte{byte(i)}, signalLife); !pushed {
			t.Fatalf("put %d was not pushed to the quick listener", i)
		}
		if got := <-quick.queue; got[0] != byte(i) {
			t.Fatalf("got %d, want %d", got[0], i)
		}
	}
	if len(slow.queue) != listenerQueueLen || h.drops[dropSlow].Load() != listenerQueueLen {
		t.Errorf("%d queued, %v", len(slow.queue), h.drops.byName())
	}
}

// fault: E2, J3
func TestHubHoldsNoMoreThanItsQuotas(t *testing.T) {
	t.Run("letters of a key", func(t *testing.T) {
		h := testHub()
		for i := range 1000 {
			h.put(t0, from(peer.ID(fmt.Sprint(i))), bobKey, fmt.Append(nil, i), signalLife)
		}
		if n := len(h.boxes[bobKey].waiting); n != maxSealedPerKey {
			t.Errorf("%d letters", n)
		}
		h.sweep(t0.Add(time.Hour))
		empty(t, h)
	})
	t.Run("bytes of a key", func(t *testing.T) {
		h := testHub()
		for i := range 100 {
			h.put(t0, from(peer.ID(fmt.Sprint(i))), bobKey, append(make([]byte, maxSealedLen-1), byte(i)), signalLife)
		}
		if b := h.boxes[bobKey]; b.bytes > maxBytesPerKey || b.bytes < maxBytesPerKey-maxSealedLen || h.stored != b.bytes {
			t.Errorf("%d bytes, %d stored", b.bytes, h.stored)
		}
	})
	t.Run("bytes of a putter", func(t *testing.T) {
		h := newHub(100, 1<<30, new(drops))
		for i := range 100 {
			h.put(t0, from("eve"), identity.DeviceID{1, byte(i)}, make([]byte, maxSealedLen), signalLife)
		}
		if h.stored > maxBytesPerPutter || h.drops[dropQuota].Load() == 0 {
			t.Errorf("%d stored, %v", h.stored, h.drops.byName())
		}
		if _, stored := h.put(t0, from("alice"), bobKey, []byte("x"), signalLife); !stored {
			t.Error("another putter was refused")
		}
		h.sweep(t0.Add(time.Hour))
		empty(t, h)
	})
	t.Run("bytes in all", func(t *testing.T) {
		h := newHub(100, 1<<20, new(drops))
		l := mustListen(t, h, bobKey, "bob")
		for i := range 1000 {
			h.put(t0, from(peer.ID(fmt.Sprint(i))), identity.DeviceID{1, byte(i), byte(i >> 8)}, make([]byte, maxSealedLen), signalLife)
		}
		if h.stored > 1<<20 {
			t.Errorf("%d stored", h.stored)
		}
		if pushed, stored := h.put(t0, from("alice"), bobKey, make([]byte, maxSealedLen), signalLife); !pushed || stored || len(l.queue) != 1 {
			t.Errorf("to a full hub: pushed %v, stored %v", pushed, stored)
		}
		h.leave(l)
		h.sweep(t0.Add(time.Hour))
		empty(t, h)
	})
	t.Run("listeners in all", func(t *testing.T) {
		h := newHub(3, 1<<20, new(drops))
		for i := range 3 {
			mustListen(t, h, identity.DeviceID{byte(i + 1)}, peer.ID(fmt.Sprint(i)))
		}
		if _, err := h.listen(t0, bobKey, from("bob")); err == nil || h.drops[dropListener].Load() != 1 || len(h.boxes) != 3 {
			t.Errorf("%v, %v", err, h.drops.byName())
		}
	})
	t.Run("listeners of a peer", func(t *testing.T) {
		h := testHub()
		for i := range maxListensPerPeer {
			mustListen(t, h, identity.DeviceID{byte(i + 1)}, "eve")
		}
		if _, err := h.listen(t0, bobKey, from("eve")); err == nil {
			t.Error("one more was taken")
		}
	})
}

func TestFloodDisplacesItselfFirst(t *testing.T) {
	h := testHub()
	h.put(t0, from("alice"), bobKey, []byte("from alice"), signalLife)
	for i := range 10 * maxSealedPerKey {
		h.put(t0, from("eve"), bobKey, fmt.Append(nil, "flood ", i), signalLife)
	}
	l := mustListen(t, h, bobKey, "bob")
	if got := string(<-l.queue); got != "from alice" {
		t.Errorf("first is %q", got)
	}
}

// case: S26
func TestAFloodOfTinySignalsOfManyPeersDisplacesItself(t *testing.T) {
	h := testHub()
	h.put(t0, origin{peer: "alice", network: networkOf(netip.MustParseAddr("198.51.100.1"))}, bobKey, make([]byte, 5<<10), signalLife)
	for i := range 10 * maxSealedPerKey {
		h.put(t0, origin{peer: idOf(i), network: networkOf(someAddr)}, bobKey, fmt.Append(nil, i), signalLife)
	}
	if got := <-mustListen(t, h, bobKey, "bob").queue; len(got) != 5<<10 {
		t.Errorf("alice's signal is gone, the first is %q", got)
	}
}

// inNetworks gives each of so many putters or listeners one of as many networks as
// it takes to fill a hub, 16 peers each.
func inNetworks(i int) origin {
	return origin{peer: peer.ID(fmt.Sprint("eve", i/16)), network: networkOf(netip.AddrFrom4([4]byte{10, byte(i % 8), byte(i % 8), 1}))}
}

// case: S26
func TestAFullHubTakesFromTheOneWithMost(t *testing.T) {
	h := newHub(64, 1<<20, new(drops))
	for i := range 1000 {
		h.put(t0, inNetworks(i), identity.DeviceID{1, byte(i), byte(i >> 8)}, make([]byte, 4<<10), MaxLetterLife)
		_, _ = h.listen(t0, identity.DeviceID{2, byte(i), byte(i >> 8)}, inNetworks(i))
	}
	if h.listeners != 64 || h.stored < 1<<20-8<<10 {
		t.Fatalf("%d listeners, %d bytes", h.listeners, h.stored)
	}
	alice := origin{peer: "alice", network: networkOf(netip.MustParseAddr("192.0.2.1"))}
	var mine []*listener
	for i := range 4 {
		if _, stored := h.put(t0, alice, identity.DeviceID{3, byte(i)}, make([]byte, 4<<10), MaxLetterLife); !stored {
			t.Errorf("letter %d was not kept", i)
		}
		mine = append(mine, mustListenFrom(t, h, identity.DeviceID{3, byte(i)}, alice))
	}
	for i := range 1000 { // the flood goes on
		h.put(t0, inNetworks(i), identity.DeviceID{4, byte(i), byte(i >> 8)}, make([]byte, 4<<10), MaxLetterLife)
		_, _ = h.listen(t0, identity.DeviceID{5, byte(i), byte(i >> 8)}, inNetworks(i))
	}
	for i, l := range mine {
		select {
		case reason := <-l.evict:
			t.Errorf("listener %d was evicted: %s", i, reason)
		default:
		}
		if len(l.queue) != 1 {
			t.Errorf("listener %d has %d letters", i, len(l.queue))
		}
	}
	if h.listeners != 64 || h.stored > 1<<20 {
		t.Errorf("%d listeners, %d bytes", h.listeners, h.stored)
	}
	for _, b := range maps.Clone(h.boxes) {
		for _, l := range slices.Clone(b.listeners) {
			h.leave(l)
		}
	}
	h.sweep(t0.Add(time.Hour))
	empty(t, h)
}

// Signals of a byte cost a node what it keeps beside the byte, too.
func TestTinySignalsAreNotFree(t *testing.T) {
	h := testHub()
	for i := range 10_000 {
		h.put(t0, from("eve"), identity.DeviceID{1, byte(i), byte(i >> 8)}, []byte{1}, signalLife)
	}
	if n := len(h.boxes); n > maxBytesPerPutter/parcelCost {
		t.Errorf("%d signals are kept", n)
	}
}

func TestNewestStreamsOfADeviceStay(t *testing.T) {
	h := testHub()
	var ls []*listener
	for range maxListenersPerKey + 1 {
		ls = append(ls, mustListen(t, h, bobKey, "bob"))
	}
	select {
	case <-ls[0].evict:
	default:
		t.Error("the oldest was not evicted")
	}
	if h.listeners != maxListenersPerKey {
		t.Errorf("%d listeners", h.listeners)
	}
	for _, l := range ls {
		h.leave(l)
	}
	empty(t, h)
}
