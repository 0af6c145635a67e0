package dht

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
)

// sealedLetter makes a genuine letter.
func sealedLetter(t testing.TB, from, to *identity.Identity, n byte, at time.Time, life time.Duration) []byte {
	t.Helper()
	plain, err := encodeSignal(from, to.DeviceID(), [signalIDLen]byte{n}, at, life, []byte{n}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := sealSignal(to.DeviceID(), to.SealingKey(), plain)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestLetterWaitsTenMinutesWhereASignalIsStale(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	in := newTestInbox(t, bob, nil)
	sent := in.now()
	now := sent
	in.now = func() time.Time { return now }
	letter := sealedLetter(t, alice, bob, 1, sent, MaxLetterLife)
	brief := sealedLetter(t, alice, bob, 2, sent, time.Minute)
	offer := sealedFor(t, alice, bob.DeviceID(), bob.SealingKey(), 3, sent)
	now = sent.Add(MaxLetterLife)
	for name, c := range map[string]struct {
		sealed []byte
		err    error
	}{"a letter": {letter, nil}, "a letter of a minute": {brief, errStale}, "a signal": {offer, errStale}} {
		if _, err := in.sift(someNode, c.sealed); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
	}
	if in.letterQueue.Len() != 1 || in.queue.Len() != 0 {
		t.Errorf("%d letters, %d signals", in.letterQueue.Len(), in.queue.Len())
	}
	now = now.Add(freshness + time.Second)
	if _, err := in.sift(someNode, sealedLetter(t, alice, bob, 4, sent, MaxLetterLife)); !errors.Is(err, errStale) {
		t.Errorf("a letter that is over: %v", err)
	}
	if _, err := in.sift(someNode, sealedLetter(t, alice, bob, 5, now.Add(freshness+time.Second), MaxLetterLife)); !errors.Is(err, errStale) {
		t.Errorf("a letter from the future: %v", err)
	}
	if _, err := in.sift(someNode, sealedLetter(t, alice, bob, 6, now, MaxLetterLife+time.Millisecond)); err == nil || errors.Is(err, errStale) {
		t.Errorf("a letter for too long: %v", err)
	}
}

// A letter is remembered for its whole life, though thousands of signals made
// the short memory forget it.
//
// fault: E1
func TestLetterIsDeliveredOnceInItsWholeLife(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	in := newTestInbox(t, bob, nil)
	letter := sealedLetter(t, alice, bob, 1, in.now(), MaxLetterLife)
	for i := range 3 {
		c, err := in.sift(someNode, letter)
		if (err == nil) != (i == 0) || err != nil && c != dropDuplicate {
			t.Errorf("time %d: %v, %v", i, c, err)
		}
		in.digests.Purge()
		in.ids.Purge()
	}
	if in.letterQueue.Len() != 1 {
		t.Errorf("%d letters", in.letterQueue.Len())
	}
}

func TestLetterThatFindsNoRoomComesAgain(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	in := newTestInbox(t, bob, func(c *Config) { c.senderRate = 100 })
	in.letters = newRates[bool](2, 1000)
	for i := range letterQueue {
		if _, err := in.sift(someNode, sealedLetter(t, alice, bob, byte(i), in.now(), time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	late := sealedLetter(t, alice, bob, letterQueue, in.now(), time.Minute)
	if c, err := in.sift(someNode, late); c != dropQueue || err == nil {
		t.Errorf("%v, %v", c, err)
	}
	next(t, in.letterQueue)
	if _, err := in.sift(someNode, late); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// fault: E2
func TestLettersAreLimitedInAll(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	in := newTestInbox(t, bob, func(c *Config) { c.senderRate = 1000 })
	taken := 0
	for i := range 2 * burstSeconds * letterRate {
		if _, err := in.sift(someNode, sealedLetter(t, alice, bob, byte(i), in.now(), time.Minute)); err == nil {
			taken++
		}
	}
	if taken != burstSeconds*letterRate || in.letterQueue == nil {
		t.Errorf("%d were taken", taken)
	}
}

func TestLetterReachesADeviceThatWasAway(t *testing.T) {
	nodes := startNodes(t, 3)
	alice, bob := device(t, "alice", nodes[0]), device(t, "bob", nodes[1])
	id := bob.cfg.Identity
	if err := bob.Close(); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		eventually(t, "bob's streams are gone", func() bool { l, _ := n.hub.size(); return l == 1 })
	}
	d, err := alice.SendLetter(testContext(t), id.DeviceID(), []byte("read me later"), 5*time.Minute)
	if err != nil || d != (Delivery{Asked: 3, Took: 3}) {
		t.Fatalf("%v, %v", d, err)
	}
	for _, n := range nodes {
		n.hub.sweep(time.Now().Add(5 * time.Minute)) // still there
		if _, stored := n.hub.size(); stored == 0 {
			t.Error("a node does not keep it as long as it should")
		}
	}
	again := start(t, Config{Identity: id, Bootstrap: nodes[2].Addrs()})
	from, msg, sent, err := again.ReceiveLetter(testContext(t))
	if err != nil || from.Device != alice.id() || string(msg) != "read me later" || time.Since(sent) > deadline {
		t.Errorf("%v, %q, %v, %v", from, msg, sent, err)
	}
	for _, n := range nodes {
		n.hub.sweep(time.Now().Add(5*time.Minute + freshness + time.Second))
		if _, stored := n.hub.size(); stored != 0 {
			t.Error("a node keeps it longer")
		}
	}
	for _, life := range []time.Duration{0, -1, MaxLetterLife + 1} {
		if _, err := alice.SendLetter(testContext(t), id.DeviceID(), nil, life); err == nil || !strings.Contains(err.Error(), "life") {
			t.Errorf("life %v: %v", life, err)
		}
	}
}

// A sender cannot have a node keep anything longer than that, whatever it asks.
//
// fault: E2
func TestNodeKeepsNothingForLongerThanTenMinutes(t *testing.T) {
	n := startNodes(t, 1)[0]
	h := bareHost(t, n)
	hold := func(payload ...[]byte) error {
		s := pushStream(t, h, n)
		if _, err := s.Write(appendFrame(nil, kindHold, payload...)); err != nil {
			t.Fatal(err)
		}
		_, err := readKind(s, kindTaken, 1)
		return err
	}
	if err := hold(bobKey[:], []byte{0xff, 0xff}, []byte("for ever")); err != nil {
		t.Fatal(err)
	}
	if err := hold(bobKey[:], []byte{0xff}); err == nil || !strings.Contains(err.Error(), "no letter") {
		t.Errorf("half a life: %v", err)
	}
	if err := hold(bobKey[:], []byte{0, 1}); err == nil {
		t.Error("an empty letter was taken")
	}
	if err := hold(bobKey[:], []byte{0, 1}, make([]byte, maxSealedLen)); err != nil {
		t.Errorf("the longest letter: %v", err)
	}
	n.hub.sweep(time.Now().Add(MaxLetterLife + freshness + time.Second))
	if _, stored := n.hub.size(); stored != 0 {
		t.Errorf("%d bytes are kept", stored)
	}
}

// Letters of a flood, from as many peers as one likes but one network, leave
// room for others.
//
// fault: J3
func TestOneNetworkTakesAQuarterOfANode(t *testing.T) {
	const room = 16 << 20
	h := newHub(4096, room, new(drops))
	eve := func(i int) origin { return origin{peer: from(idOf(i)).peer, network: networkOf(someAddr)} }
	for i := range 2000 {
		h.put(t0, eve(i), identity.DeviceID{1, byte(i), byte(i >> 8)}, make([]byte, maxSealedLen), MaxLetterLife)
		if _, err := h.listen(t0, identity.DeviceID{2, byte(i), byte(i >> 8)}, eve(i)); err != nil && i < 4096/networkShare {
			t.Fatalf("listener %d: %v", i, err)
		}
	}
	if h.stored > room/networkShare || h.stored < room/networkShare-maxSealedLen-parcelCost {
		t.Errorf("%d bytes are kept for one network", h.stored)
	}
	if h.listeners != 4096/networkShare {
		t.Errorf("%d listeners of one network", h.listeners)
	}
	if _, stored := h.put(t0, from("alice"), bobKey, []byte("x"), signalLife); !stored {
		t.Error("another network was refused")
	}
	if _, err := h.listen(t0, bobKey, from("bob")); err != nil {
		t.Error(err)
	}
}

var someAddr = netip.MustParseAddr("192.0.2.7")

func idOf(i int) peer.ID { return peer.ID(fmt.Sprint("peer", i)) }
