package dht

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/packed"
)

// bareHost is a libp2p host that a test speaks through, connected to n.
func bareHost(t testing.TB, n *Node) host.Host {
	t.Helper()
	cfg := Config{Identity: newIdentity(t, "bare")}
	if _, err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	h, err := newHost(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	if err := h.Connect(testContext(t), peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	return h
}

// pushStream opens a push stream that cannot hang the test.
func pushStream(t testing.TB, h host.Host, n *Node) network.Stream {
	t.Helper()
	s, err := h.NewStream(testContext(t), n.host.ID(), pushProtocol)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	return s
}

// tryListen asks n for key's signals; prove answers the challenge.
func tryListen(t testing.TB, h host.Host, n *Node, key identity.DeviceID, prove func(nonce []byte) []byte) (network.Stream, error) {
	t.Helper()
	s := pushStream(t, h, n)
	if _, err := s.Write(appendFrame(nil, kindListen, key[:])); err != nil {
		t.Fatal(err)
	}
	nonce, err := readKind(s, kindChallenge, nonceLen)
	if err != nil {
		return s, err
	}
	if _, err := s.Write(appendFrame(nil, kindProof, prove(nonce))); err != nil {
		t.Fatal(err)
	}
	_, err = readKind(s, kindListening, timeLen)
	return s, err
}

func mustProof(t testing.TB, id *identity.Identity, st []byte) []byte {
	t.Helper()
	b, err := encodeProof(id, st)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fault: D2
func TestListenerWithoutTheKeyIsRefused(t *testing.T) {
	n := startNodes(t, 1)[0]
	h := bareHost(t, n)
	bob, eve := newIdentity(t, "bob"), newIdentity(t, "eve")
	key, node, me := bob.DeviceID(), n.host.ID(), h.ID()
	var old []byte // bob's genuine proof on another stream
	genuine := func(nonce []byte) []byte {
		old = mustProof(t, bob, listenStatement(nonce, key, node, me))
		return old
	}
	s, err := tryListen(t, h, n, key, genuine)
	if err != nil {
		t.Fatalf("the device itself: %v", err)
	}
	chainOnly := func(sig []byte) []byte {
		b, err := packed.Pack(bob.Peer().Chain(), sig)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, prove := range map[string]func([]byte) []byte{
		"with a key of its own":         func(nonce []byte) []byte { return mustProof(t, eve, listenStatement(nonce, key, node, me)) },
		"with the chain alone":          func([]byte) []byte { return chainOnly(make([]byte, 64)) },
		"with no signature":             func([]byte) []byte { return chainOnly(nil) },
		"with a proof seen before":      func([]byte) []byte { return old },
		"with a proof for another node": func(nonce []byte) []byte { return mustProof(t, bob, listenStatement(nonce, key, "other node", me)) },
		"with a proof for another peer": func(nonce []byte) []byte { return mustProof(t, bob, listenStatement(nonce, key, node, "other peer")) },
		"with a proof for another key": func(nonce []byte) []byte {
			return mustProof(t, bob, listenStatement(nonce, eve.DeviceID(), node, me))
		},
		"with garbage": func([]byte) []byte { return []byte("garbage") },
	} {
		before := n.drops[dropListener].Load()
		if _, err := tryListen(t, h, n, key, prove); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v", name, err)
		}
		if n.drops[dropListener].Load() != before+1 {
			t.Errorf("%s: not counted", name)
		}
	}
	if n, _ := n.hub.size(); n != 1 {
		t.Errorf("%d listeners", n)
	}
	n.hub.put(time.Now(), from("alice"), key, []byte("for bob"), signalLife)
	if b, err := readKind(s, kindSignal, 100); err != nil || string(b) != "for bob" {
		t.Errorf("the device itself got %q, %v", b, err)
	}
}

// fault: A1, A7
func TestPushStreamThatBreaksTheProtocolIsReset(t *testing.T) {
	n := startNodes(t, 1)[0]
	h := bareHost(t, n)
	for name, b := range map[string][]byte{
		"a put longer than any":  {0xff, 0xff, byte(kindPut)},
		"a frame without a kind": {0, 0, 0},
		"an unknown kind":        appendFrame(nil, 99, []byte("x")),
		"a node's frame":         appendFrame(nil, kindSignal, []byte("x")),
		"a short listen":         appendFrame(nil, kindListen, []byte("x")),
	} {
		s := pushStream(t, h, n)
		if _, err := s.Write(b); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(s); err == nil || len(got) != 0 {
			t.Errorf("%s: answered %x, %v", name, got, err)
		}
	}
	if n.drops[dropOversize].Load() != 2 {
		t.Errorf("%v", n.drops.byName())
	}
	s := pushStream(t, h, n)
	if _, err := s.Write(appendFrame(nil, kindPut, make([]byte, idLen))); err != nil {
		t.Fatal(err)
	}
	if _, err := readKind(s, kindTaken, 1); err == nil || !strings.Contains(err.Error(), "no signal") {
		t.Errorf("an empty put: %v", err)
	}
	if l, stored := n.hub.size(); l != 0 || stored != 0 {
		t.Errorf("left %d listeners, %d bytes", l, stored)
	}
}

// fault: E2, J3
func TestPeerThatPutsTooOftenIsRefused(t *testing.T) {
	n := startNodes(t, 1)[0]
	n.service.requests = requestRates(2)
	eve, alice := bareHost(t, n), bareHost(t, n)
	put := func(h host.Host, text string) error {
		s := pushStream(t, h, n)
		if _, err := s.Write(appendFrame(nil, kindPut, bobKey[:], []byte(text))); err != nil {
			return err
		}
		_, err := readKind(s, kindTaken, 1)
		return err
	}
	refused := 0
	for i := range 20 {
		if err := put(eve, strings.Repeat("x", i+1)); err != nil {
			refused++
		}
	}
	if refused < 20-2*burstSeconds-2 || n.drops[dropSourceRate].Load() != uint64(refused) {
		t.Errorf("%d of 20 refused, %v", refused, n.drops.byName())
	}
	if err := put(alice, "hello"); err != nil {
		t.Errorf("another peer: %v", err)
	}
}

// fault: D7
func TestStreamsThatSayNothingAreBounded(t *testing.T) {
	s := newService(nil, testHub(), newStore(), new(drops), nil, new(life.Group))
	for range maxPeerHandshake {
		if s.busy.take(from("eve")) != nil {
			t.Fatal("refused too early")
		}
	}
	if s.busy.take(from("eve")) == nil || s.busy.take(from("alice")) != nil {
		t.Error("one peer takes the places of others")
	}
	s.busy.release(from("alice"))
	for i := range maxHandshakes - maxPeerHandshake {
		if s.busy.take(from(peer.ID(rune(1000+i)))) != nil {
			t.Fatal("refused too early")
		}
	}
	if s.busy.take(from("bob")) == nil {
		t.Error("more than in all")
	}
	s.busy.release(from("eve"))
	if s.busy.take(from("bob")) != nil {
		t.Error("a free place was refused")
	}
}

// Keys of libp2p are free, and so are streams: a network has a bound of its own.
func TestOneNetworkLeavesHandshakesToOthers(t *testing.T) {
	s := newService(nil, testHub(), newStore(), new(drops), nil, new(life.Group))
	var taken []origin
	for i := range maxHandshakes {
		if o := (origin{peer: idOf(i), network: networkOf(someAddr)}); s.busy.take(o) == nil {
			taken = append(taken, o)
		}
	}
	if len(taken) != maxNetHandshake {
		t.Errorf("one network has %d places", len(taken))
	}
	if err := s.busy.take(from("alice")); err != nil {
		t.Error(err)
	}
	s.busy.release(from("alice"))
	for _, o := range taken {
		s.busy.release(o)
	}
	if s.busy.used != 0 || !s.busy.taken.empty() {
		t.Errorf("left: %d, %v", s.busy.used, s.busy.taken)
	}
}

// A listening device that reads nothing fills its own stream and queue; whoever
// puts is answered all the same.
//
// fault: B9, C1
func TestListenerThatReadsNothingHoldsUpNobody(t *testing.T) {
	n := startNodes(t, 1)[0]
	n.service.requests = requestRates(1 << 20)
	h := bareHost(t, n)
	bob := newIdentity(t, "bob")
	key := bob.DeviceID()
	if _, err := tryListen(t, h, n, key, func(nonce []byte) []byte {
		return mustProof(t, bob, listenStatement(nonce, key, n.host.ID(), h.ID()))
	}); err != nil {
		t.Fatal(err)
	}
	putter := bareHost(t, n)
	big := make([]byte, maxSealedLen)
	for i := range 200 { // 5 MB, against 256 KiB of the stream and 64 of the queue
		big[0] = byte(i)
		s := pushStream(t, putter, n)
		if _, err := s.Write(appendFrame(nil, kindPut, key[:], big)); err != nil {
			t.Fatal(err)
		}
		if _, err := readKind(s, kindTaken, 1); err != nil {
			t.Fatalf("put %d: %v", i, err)
		}
		_ = s.Close()
	}
	if n.drops[dropSlow].Load() == 0 {
		t.Errorf("the queue took it all: %v", n.drops.byName())
	}
}

func TestListenerThatLeavesIsForgotten(t *testing.T) {
	n := startNodes(t, 1)[0]
	h := bareHost(t, n)
	bob := newIdentity(t, "bob")
	key := bob.DeviceID()
	prove := func(nonce []byte) []byte {
		return mustProof(t, bob, listenStatement(nonce, key, n.host.ID(), h.ID()))
	}
	for name, leave := range map[string]func(network.Stream) error{
		"by closing":   network.Stream.Close,
		"by resetting": network.Stream.Reset,
		"by talking":   func(s network.Stream) error { _, err := s.Write([]byte{1}); return err },
	} {
		s, err := tryListen(t, h, n, key, prove)
		if err != nil {
			t.Fatal(err)
		}
		if err := leave(s); err != nil {
			t.Fatal(err)
		}
		eventually(t, name, func() bool { l, _ := n.hub.size(); return l == 0 })
	}
}

// eventually waits for what another goroutine is about to do and tells nobody of.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it never came about: %s", what)
		}
	}
}

// fault: E2
func TestPeerThatPutsRecordsWithoutEndIsDisconnected(t *testing.T) {
	n := startNodes(t, 1)[0]
	eve, alice := bareHost(t, n), bareHost(t, n)
	m, err := newMessenger(eve)
	if err != nil {
		t.Fatal(err)
	}
	id := newIdentity(t, "eve")
	failed := false
	for i := 0; i < 10*recordRate*burstSeconds && !failed; i++ {
		_, err := m.put(network.WithNoDial(testContext(t), "once is enough"), n.host.ID(), recordKey(id.DeviceID()), mustRecord(t, id, uint64(i), time.Now()))
		failed = err != nil
	}
	if !failed || n.drops[dropSourceRate].Load() == 0 {
		t.Errorf("never stopped: %v", n.drops.byName())
	}
	if ma, err := newMessenger(alice); err != nil {
		t.Fatal(err)
	} else if _, err := ma.put(testContext(t), n.host.ID(), recordKey(id.DeviceID()), mustRecord(t, id, 1<<40, time.Now())); err != nil {
		t.Errorf("another peer: %v", err)
	}
}

// Nothing that a node stores for others names who put it there.
func TestNodeDoesNotSeeWhoSignals(t *testing.T) {
	n := startNodes(t, 1)[0]
	alice, bob := device(t, "alice", n), device(t, "bob", n)
	exchange(t, alice, bob, "a secret offer")
	n.hub.mu.Lock()
	defer n.hub.mu.Unlock()
	kept := n.hub.boxes[bob.id()].waiting
	if len(kept) != 1 {
		t.Fatalf("%d signals are kept", len(kept))
	}
	for _, m := range kept {
		from := alice.id()
		if bytes.Contains(m.sealed, from[:]) || bytes.Contains(m.sealed, []byte("secret")) || bytes.Contains(m.sealed, alice.cfg.Identity.Peer().Chain()[0][100:200]) {
			t.Error("the sealed signal shows its sender or its body")
		}
	}
}
