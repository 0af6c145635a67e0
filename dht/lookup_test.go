package dht

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	recpb "github.com/libp2p/go-libp2p-record/pb"

	"peerlink/internal/trace"
)

// Who was called answers without asking the network for the caller's record: the
// call has told the key.
func TestAnAnswerNeedsNoLookup(t *testing.T) {
	nodes := startNodes(t, 3)
	alice, bob := device(t, "alice", nodes[0]), device(t, "bob", nodes[1])
	exchange(t, alice, bob, "offer")
	var mu sync.Mutex
	var notes []string
	ctx := trace.With(testContext(t), func(e trace.Event) {
		mu.Lock()
		defer mu.Unlock()
		notes = append(notes, e.Detail)
	})
	if err := bob.Send(ctx, alice.id(), []byte("answer")); err != nil {
		t.Fatal(err)
	}
	if _, msg, err := alice.Receive(testContext(t)); err != nil || string(msg) != "answer" {
		t.Fatalf("%q, %v", msg, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(notes) != 1 || !strings.Contains(notes[0], "told by the device") {
		t.Errorf("%q", notes)
	}
}

// The key is told once in a while, not with each signal, and never in letters.
func TestTheSealingKeyIsToldOnce(t *testing.T) {
	node := startNodes(t, 1)[0]
	alice, bob := device(t, "alice", node), device(t, "bob", node)
	lengths := map[bool]int{}
	for i := range 3 {
		for _, life := range []time.Duration{0, time.Minute} {
			plain, err := alice.sign(bob.id(), []byte("hello"), life)
			if err != nil {
				t.Fatal(err)
			}
			s, err := parseSignal(plain)
			if err != nil {
				t.Fatal(err)
			}
			lengths[len(s.key) > 0]++
			if told := len(s.key) > 0; told != (i == 0 && life == 0) {
				t.Errorf("signal %d, life %v: key told: %v", i, life, told)
			}
			if s.life != life || string(s.body) != "hello" {
				t.Errorf("signal %d: life %v, body %q", i, s.life, s.body)
			}
		}
	}
}

// The node that answers first shows an old record, from before the device had
// another sealing key: the signal is sealed again for the newest record, and
// arrives.
//
// fault: E4
func TestASignalIsSealedAgainForANewerRecord(t *testing.T) {
	node := startNodes(t, 1)[0]
	alice, bob := device(t, "alice", node), device(t, "bob", node)
	rec, err := alice.Lookup(testContext(t), bob.id())
	if err != nil {
		t.Fatal(err)
	}
	plain, err := alice.sign(bob.id(), []byte("hello"), 0)
	if err != nil {
		t.Fatal(err)
	}
	stale := newIdentity(t, "old").SealingKey()
	sealed, err := sealSignal(bob.id(), stale, plain)
	if err != nil {
		t.Fatal(err)
	}
	later := make(chan outcome, 1)
	later <- outcome{f: found{rec: rec, nodes: alice.around(recordKey(bob.id()))}}
	c := newCourier(alice, bob.id(), sealed, 0)
	c.plain, c.key, c.later = plain, stale, later
	c.run(found{rec: rec, nodes: alice.around(recordKey(bob.id()))})
	if _, msg, err := bob.Receive(testContext(t)); err != nil || string(msg) != "hello" {
		t.Fatalf("%q, %v; dropped %v", msg, err, bob.Health().Dropped)
	}
}

// One of two nodes takes the record and never shows it: the device is ready as
// soon as the other one has.
//
// fault: E6
func TestASilentNodeDoesNotDelayReadiness(t *testing.T) {
	node := startNodes(t, 1)[0]
	hold := make(chan struct{})
	defer close(hold)
	startHostile(t, &hostile{get: func(string) *recpb.Record { <-hold; return nil }}, node)
	eventually(t, "the silent node is in the table", func() bool { return node.Health().Table == 1 })
	bob := start(t, Config{Identity: newIdentity(t, "bob"), Bootstrap: node.Addrs()})
	began := time.Now()
	ready(t, bob)
	if took := time.Since(began); took > requestTimeout/2 {
		t.Errorf("ready after %v", took)
	}
	if h := bob.Health().Holders; h != 1 {
		t.Errorf("held by %d", h)
	}
}

// One node never answers: a signal goes out as soon as another one has shown the
// record.
//
// fault: E4
func TestASilentNodeDoesNotDelayASignal(t *testing.T) {
	node := startNodes(t, 1)[0]
	hold := make(chan struct{})
	defer close(hold)
	var silent atomic.Bool
	startHostile(t, &hostile{get: func(string) *recpb.Record {
		if silent.Load() {
			<-hold
		}
		return nil
	}}, node)
	eventually(t, "the silent node is in the table", func() bool { return node.Health().Table == 1 })
	bob := device(t, "bob", node)
	var took []time.Duration
	for range 8 { // a busy machine adds to the time, but not each time
		silent.Store(false)
		alice := device(t, "alice", node)
		eventually(t, "alice knows both", func() bool { return alice.Health().Table == 2 })
		silent.Store(true)
		start := time.Now()
		exchange(t, alice, bob, "hello")
		if d := time.Since(start); d > maxGrace {
			took = append(took, d)
			continue
		}
		return
	}
	t.Errorf("the signal took %v", took)
}
