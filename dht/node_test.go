package dht

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	kbucket "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
	"peerlink/internal/trace"
)

const loopback = "/ip4/127.0.0.1/tcp/0"

// deadline is for what must happen: it is only waited for when a test fails.
const deadline = time.Minute

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func testLogger(t testing.TB) *slog.Logger {
	if os.Getenv("DHT_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("test", t.Name())
}

// start starts a node that ends with the test.
func start(t testing.TB, cfg Config) *Node {
	t.Helper()
	if cfg.Mode == Server && len(cfg.Listen) == 0 {
		cfg.Listen = []string{loopback}
	}
	if cfg.Logger == nil {
		cfg.Logger = testLogger(t)
	}
	n, err := Start(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// startNodes starts so many bare nodes, all joined.
func startNodes(t testing.TB, size int) []*Node {
	t.Helper()
	nodes := []*Node{start(t, Config{Mode: Server})}
	for len(nodes) < size {
		nodes = append(nodes, start(t, Config{Mode: Server, Bootstrap: nodes[0].Addrs()}))
	}
	for _, n := range nodes {
		ready(t, n)
	}
	return nodes
}

func ready(t testing.TB, n *Node) {
	t.Helper()
	if err := n.Ready(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

func newIdentity(t testing.TB, name string) *identity.Identity {
	t.Helper()
	id, err := identity.Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// device starts a client and waits until it can be called.
func device(t testing.TB, name string, boot *Node) *Node {
	t.Helper()
	n := start(t, Config{Identity: newIdentity(t, name), Bootstrap: boot.Addrs()})
	ready(t, n)
	return n
}

func (n *Node) id() identity.DeviceID { return n.cfg.Identity.DeviceID() }

// exchange sends a signal from a to b and checks what arrives.
func exchange(t testing.TB, a, b *Node, text string) {
	t.Helper()
	ctx := testContext(t)
	if err := a.Send(ctx, b.id(), []byte(text)); err != nil {
		t.Fatal(err)
	}
	from, msg, err := b.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if from.Device != a.id() || string(msg) != text {
		t.Fatalf("received %q from %v, want %q from %s", msg, from, text, a.id())
	}
}

func TestSignalIsPushedToADeviceKnownByItsIDAlone(t *testing.T) {
	for _, size := range []int{1, 3, 12} {
		t.Run(fmt.Sprintf("%d nodes", size), func(t *testing.T) {
			nodes := startNodes(t, size)
			alice, bob := device(t, "alice", nodes[0]), device(t, "bob", nodes[size-1])
			rec, err := alice.Lookup(testContext(t), bob.id())
			if err != nil {
				t.Fatal(err)
			}
			if rec.Peer.Device != bob.id() || rec.Peer.Name != "bob" || string(rec.SealingKey) != string(bob.cfg.Identity.SealingKey()) {
				t.Errorf("record %v", rec)
			}
			exchange(t, alice, bob, "offer")
			exchange(t, bob, alice, "answer")
			eventually(t, "all that should hold the record do, and push to its device", func() bool { // ready says: the first do
				h := bob.Health()
				return h.Holders == min(size, bucketSize) && h.Subscriptions > 0 && h.Wanted == min(size, replication)
			})
		})
	}
}

// fault: E1
func TestEachSignalIsDeliveredOnceThoughEightNodesPushIt(t *testing.T) {
	nodes := startNodes(t, 12)
	alice, bob := device(t, "alice", nodes[0]), device(t, "bob", nodes[1])
	const signals = 10
	eventually(t, "eight subscriptions", func() bool { return bob.Health().Subscriptions == replication })
	for i := range signals {
		exchange(t, alice, bob, fmt.Sprint("signal ", i))
	}
	eventually(t, "all copies", func() bool { return bob.drops[dropDuplicate].Load() == signals*(replication-1) })
	if h := bob.Health(); h.Queued != 0 || len(h.Dropped) != 1 {
		t.Errorf("health %+v", h)
	}
	eventually(t, "all answers", func() bool {
		return alice.Health().LastSent == Delivery{Asked: replication, Took: replication, Pushed: replication}
	})
}

func TestSignalWaitsForADeviceThatIsAway(t *testing.T) {
	nodes := startNodes(t, 3)
	alice, bob := device(t, "alice", nodes[0]), device(t, "bob", nodes[1])
	id := bob.cfg.Identity
	if err := bob.Close(); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		eventually(t, "bob's streams are gone", func() bool { l, _ := n.hub.size(); return l == 1 })
	}
	if err := alice.Send(testContext(t), id.DeviceID(), []byte("are you there?")); err != nil {
		t.Fatal(err)
	}
	if d := alice.Health().LastSent; d.Took != 3 || d.Pushed != 0 {
		t.Errorf("delivery: %v", d)
	}
	again := start(t, Config{Identity: id, Bootstrap: nodes[2].Addrs()})
	from, msg, err := again.Receive(testContext(t))
	if err != nil || from.Device != alice.id() || string(msg) != "are you there?" {
		t.Errorf("%v, %q, %v", from, msg, err)
	}
}

// fault: E5
func TestDeviceJoinsWhenItsBootstrapNodeComesUpLater(t *testing.T) {
	dir := t.TempDir()
	first := start(t, Config{Mode: Server, DataDir: dir})
	addrs := first.Addrs()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	alice := start(t, Config{Identity: newIdentity(t, "alice"), Bootstrap: addrs})
	bob := start(t, Config{Identity: newIdentity(t, "bob"), Bootstrap: addrs})
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := alice.Ready(short); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("ready without a network: %v", err)
	}
	sent := make(chan error, 1)
	go func() { sent <- alice.Send(testContext(t), newIdentity(t, "nobody").DeviceID(), nil) }()
	again := start(t, Config{Mode: Server, DataDir: dir, Listen: []string{strings.Split(addrs[0], "/p2p/")[0]}})
	if again.Addrs()[0] != addrs[0] {
		t.Fatalf("address %v became %v", addrs, again.Addrs())
	}
	ready(t, alice)
	ready(t, bob)
	exchange(t, alice, bob, "hello")
	if err := <-sent; !errors.Is(err, ErrNotFound) {
		t.Errorf("what was sent before the network was there: %v", err)
	}
}

// fault: E5, E6
func TestDeviceComesBackWhenTheOnlyNodeRestartsEmpty(t *testing.T) {
	dir := t.TempDir()
	node := start(t, Config{Mode: Server, DataDir: dir})
	addr := strings.Split(node.Addrs()[0], "/p2p/")[0]
	alice, bob := device(t, "alice", node), device(t, "bob", node)
	exchange(t, alice, bob, "before")
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	again := start(t, Config{Mode: Server, DataDir: dir, Listen: []string{addr}})
	eventually(t, "both listen again", func() bool { l, _ := again.hub.size(); return l == 2 })
	alice.cache.Purge()
	eventually(t, "bob's record is back", func() bool {
		has, _ := again.records.Has(context.Background(), dsKey(recordKey(bob.id())))
		return has
	})
	exchange(t, alice, bob, "after")
}

// fault: E4
func TestSignalArrivesThoughNodesWereKilled(t *testing.T) {
	nodes := startNodes(t, 12)
	alice, bob := device(t, "alice", nodes[0]), device(t, "bob", nodes[0])
	exchange(t, alice, bob, "before")
	near := kbucket.ConvertKey(recordKey(bob.id()))
	slices.SortFunc(nodes, func(a, b *Node) int {
		if kbucket.SortClosestPeers([]peer.ID{a.host.ID(), b.host.ID()}, near)[0] == a.host.ID() {
			return -1
		}
		return 1
	})
	eventually(t, "eight subscriptions", func() bool { return bob.Health().Subscriptions == replication })
	for _, n := range nodes[:replication] { // all that bob listens to, and that alice knows for him
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "bob listens to those that are left", func() bool { return bob.Health().Subscriptions == len(nodes)-replication })
	exchange(t, alice, bob, "after")
	alice.cache.Purge()
	exchange(t, alice, bob, "after, with nothing remembered")
}

// fault: E9, I4, I5
func TestRecordOvertakesOneFromAClockThatWasAhead(t *testing.T) {
	node := startNodes(t, 1)[0]
	id := newIdentity(t, "alice")
	m, err := newMessenger(bareHost(t, node))
	if err != nil {
		t.Fatal(err)
	}
	ahead := uint64(time.Now().Add(time.Hour).UnixMilli())
	if _, err := m.put(testContext(t), node.host.ID(), recordKey(id.DeviceID()), mustRecord(t, id, ahead, time.Now())); err != nil {
		t.Fatal(err)
	}
	if newer, err := m.put(testContext(t), node.host.ID(), recordKey(id.DeviceID()), mustRecord(t, id, ahead-1, time.Now())); err == nil || newer == nil {
		t.Errorf("an older record was taken: %v", err)
	}
	alice := start(t, Config{Identity: id, Bootstrap: node.Addrs()})
	ready(t, alice)
	rec, err := device(t, "bob", node).Lookup(testContext(t), id.DeviceID())
	if err != nil || rec.Seq != ahead+1 {
		t.Errorf("sequence number %d, want %d; %v", rec.Seq, ahead+1, err)
	}
}

func TestServerDevicesServeThemselvesAndEachOther(t *testing.T) {
	alice := start(t, Config{Identity: newIdentity(t, "alice"), Mode: Server})
	ready(t, alice) // alone in the world
	exchange(t, alice, alice, "to myself")
	bob := start(t, Config{Identity: newIdentity(t, "bob"), Mode: Server, Bootstrap: alice.Addrs()})
	ready(t, bob)
	exchange(t, bob, alice, "offer")
	exchange(t, alice, bob, "answer")
	carol := device(t, "carol", bob)
	exchange(t, carol, alice, "offer")
	exchange(t, alice, carol, "answer")
}

func TestLookupTellsWhatIsNotThere(t *testing.T) {
	node := startNodes(t, 1)[0]
	alice := device(t, "alice", node)
	nobody := newIdentity(t, "nobody").DeviceID()
	if _, err := alice.Lookup(testContext(t), nobody); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), nobody.String()) {
		t.Errorf("%v", err)
	}
	if err := alice.Send(testContext(t), nobody, []byte("x")); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "(1 node asked)") {
		t.Errorf("%v", err)
	}
	if err := alice.Send(testContext(t), alice.id(), make([]byte, MaxMessageLen+1)); err == nil {
		t.Error("an oversized message was sent")
	}
	for _, f := range []func() error{
		func() error { return node.Send(testContext(t), nobody, nil) },
		func() error { _, _, err := node.Receive(testContext(t)); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "no identity") {
			t.Errorf("%v", err)
		}
	}
}

func TestLookupIsNotedAndCached(t *testing.T) {
	node := startNodes(t, 1)[0]
	alice, bob := device(t, "alice", node), device(t, "bob", node)
	var notes []string
	ctx := trace.With(testContext(t), func(e trace.Event) { notes = append(notes, fmt.Sprint(e.Step, ": ", e.Detail)) })
	for range 2 {
		if _, err := alice.Lookup(ctx, bob.id()); err != nil {
			t.Fatal(err)
		}
	}
	if len(notes) != 2 || !strings.Contains(notes[0], "record found: seq") || !strings.Contains(notes[0], "nodes asked: 1") || !strings.Contains(notes[1], "known for") {
		t.Errorf("%q", notes)
	}
}

// fault: C10
func TestCloseWakesEverybodyAndLeavesNothing(t *testing.T) {
	node := startNodes(t, 1)[0]
	alice := device(t, "alice", node)
	lost := start(t, Config{Identity: newIdentity(t, "lost"), Bootstrap: []string{"/ip4/127.0.0.1/tcp/1/p2p/" + node.host.ID().String()}})
	ctx := testContext(t)
	waits := map[string]func() error{
		"receive": func() error { _, _, err := alice.Receive(ctx); return err },
		"ready":   func() error { return lost.Ready(ctx) },
		"lookup":  func() error { _, err := lost.Lookup(ctx, node.randomID()); return err },
		"send":    func() error { return lost.Send(ctx, node.randomID(), nil) },
	}
	type outcome struct {
		name string
		err  error
	}
	outcomes := make(chan outcome)
	for name, f := range waits {
		go func() { outcomes <- outcome{name, f()} }()
	}
	for range 2 {
		if err := errors.Join(alice.Close(), lost.Close()); err != nil {
			t.Error(err)
		}
	}
	for range waits {
		if o := <-outcomes; !errors.Is(o.err, net.ErrClosed) {
			t.Errorf("%s: %v", o.name, o.err)
		}
	}
	for name, f := range waits {
		if err := f(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s afterwards: %v", name, err)
		}
	}
}

func (n *Node) randomID() (id identity.DeviceID) {
	_, _ = rand.Read(id[:])
	return id
}

func TestReceiveEndsWithItsContext(t *testing.T) {
	alice := start(t, Config{Identity: newIdentity(t, "alice")})
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, _, err := alice.Receive(ctx); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	cancel()
	if _, _, err := alice.Receive(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if _, err := Start(ctx, Config{Identity: newIdentity(t, "bob")}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Whoever calls hears how the signal fares: whom it was put to, and whether the
// device listens there.
func TestSendTalliesWhoTookTheSignal(t *testing.T) {
	nodes := startNodes(t, 3)
	alice, bob := device(t, "alice", nodes[0]), device(t, "bob", nodes[1])
	eventually(t, "bob listens at all nodes", func() bool { return bob.Health().Subscriptions == 3 })
	send := func(want string) {
		t.Helper()
		var tally trace.Tally
		if err := alice.Send(trace.WithTally(testContext(t), &tally), bob.id(), []byte("x")); err != nil {
			t.Fatal(err)
		}
		eventually(t, want, func() bool { return tally.Through() == throughDHT && tally.String() == want })
	}
	send("3 nodes asked, 3 took the call, 3 passed it on to the device")
	if err := bob.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the nodes know that bob is gone", func() bool {
		for _, n := range nodes {
			if listeners, _ := n.hub.size(); listeners > 1 { // alice
				return false
			}
		}
		return true
	})
	send("3 nodes asked, 3 took the call, but the device listens at none of them: it is offline, or has just moved")
}
