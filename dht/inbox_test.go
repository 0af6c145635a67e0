package dht

import (
	"log/slog"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
)

const someNode = peer.ID("some node")

// newTestInbox makes an inbox whose clock stands still.
func newTestInbox(t testing.TB, me *identity.Identity, change func(*Config)) *inbox {
	t.Helper()
	cfg := Config{Identity: me, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	if _, err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	in := newInbox(cfg, new(drops))
	now := time.Now()
	in.now = func() time.Time { return now }
	return in
}

// sealedFor makes a genuine signal with number n.
func sealedFor(t testing.TB, from *identity.Identity, to identity.DeviceID, key []byte, n byte, at time.Time) []byte {
	t.Helper()
	plain, err := encodeSignal(from, to, [signalIDLen]byte{n}, at, 0, []byte{n}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := sealSignal(to, key, plain)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// resealed signs as encodeSignal does, with any field made up, and seals for bob.
func resealed(t testing.TB, signer, bob *identity.Identity, purpose string, values ...any) []byte {
	t.Helper()
	plain, err := sign(signer, purpose, values...)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := sealSignal(bob.DeviceID(), bob.SealingKey(), plain)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// fault: E1, E2
func TestEverySignalThatIsNotGenuineIsDroppedByItsCause(t *testing.T) {
	alice, bob, eve := newIdentity(t, "alice"), newIdentity(t, "bob"), newIdentity(t, "eve")
	trust := new(identity.Trust)
	if err := trust.Set(eve.DeviceID(), identity.Banned); err != nil {
		t.Fatal(err)
	}
	in := newTestInbox(t, bob, func(c *Config) { c.Trust = trust })
	now := in.now()
	to, other := bob.DeviceID(), alice.DeviceID()
	ms := func(d time.Duration) uint64 { return uint64(now.Add(d).UnixMilli()) }
	id := make([]byte, signalIDLen)
	chain := alice.Peer().Chain()
	genuine := sealedFor(t, alice, to, bob.SealingKey(), 9, now)
	again, err := sealSignal(to, bob.SealingKey(), mustOpen(t, bob, genuine))
	if err != nil {
		t.Fatal(err)
	}
	in.take(someNode, genuine)
	for _, c := range []struct {
		name   string
		sealed []byte
		want   cause
	}{
		{"a second copy", genuine, dropDuplicate},
		{"sealed anew by an eavesdropper within", again, dropDuplicate},
		{"longer than any signal", make([]byte, maxSealedLen+1), dropOversize},
		{"random bytes", make([]byte, 2000), dropSealed},
		{"empty", nil, dropSealed},
		{"sealed for another", sealedFor(t, alice, other, alice.SealingKey(), 1, now), dropSealed},
		{"not a signal", resealed(t, alice, bob, signalPurpose, "hello"), dropMalformed},
		{"no signature", mustSeal(t, bob, []byte{0x91, 0xc0}), dropMalformed},
		{"short id", resealed(t, alice, bob, signalPurpose, wireVersion, chain, to[:], id[:15], ms(0), []byte("x")), dropMalformed},
		{"made for another and sealed again", resealed(t, alice, bob, signalPurpose, wireVersion, chain, other[:], id, ms(0), []byte("x")), dropRedirected},
		{"an hour old", sealedFor(t, alice, to, bob.SealingKey(), 2, now.Add(-time.Hour)), dropStale},
		{"31 s old", sealedFor(t, alice, to, bob.SealingKey(), 3, now.Add(-31*time.Second)), dropStale},
		{"from the future", sealedFor(t, alice, to, bob.SealingKey(), 4, now.Add(31*time.Second)), dropStale},
		{"signed by another key", resealed(t, eve, bob, signalPurpose, wireVersion, chain, to[:], id, ms(0), []byte("x")), dropForged},
		{"signed for another purpose", resealed(t, alice, bob, recordPurpose, wireVersion, chain, to[:], id, ms(0), []byte("x")), dropForged},
		{"half a chain", resealed(t, alice, bob, signalPurpose, wireVersion, chain[:1], to[:], id, ms(0), []byte("x")), dropForged},
	} {
		before := in.drops[c.want].Load()
		in.take(someNode, c.sealed)
		if got := in.drops[c.want].Load(); got != before+1 {
			t.Errorf("%s: %q counted %d times; all: %v", c.name, c.want, got-before, in.drops.byName())
		}
	}
	if len(in.queue) != 1 {
		t.Fatalf("%d signals were delivered, want the genuine one", len(in.queue))
	}
	if s := <-in.queue; s.from.Device != alice.DeviceID() || string(s.body) != "\x09" {
		t.Errorf("delivered %+v", s)
	}
	// Who is banned is told so by whoever answers; a stranger is not.
	in.take(someNode, sealedFor(t, eve, to, bob.SealingKey(), 5, now))
	if s := <-in.queue; s.from.Device != eve.DeviceID() {
		t.Errorf("delivered %+v", s)
	}
	in.trust.SetPolicy(identity.RefuseUndecided)
	in.take(someNode, sealedFor(t, alice, to, bob.SealingKey(), 6, now))
	if n := in.drops[dropUntrusted].Load(); n != 1 || len(in.queue) != 0 {
		t.Errorf("a stranger's signal: %d dropped, %d delivered", n, len(in.queue))
	}
}

func mustOpen(t testing.TB, me *identity.Identity, sealed []byte) []byte {
	t.Helper()
	plain, err := openSignal(me, sealed)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func mustSeal(t testing.TB, to *identity.Identity, plain []byte) []byte {
	t.Helper()
	sealed, err := sealSignal(to.DeviceID(), to.SealingKey(), plain)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// An inbox without an identity panics as soon as it opens anything, so whatever
// this one drops was dropped before any decryption.
//
// fault: E2
func TestSizeRateAndDuplicatesAreCheckedBeforeAnyCryptography(t *testing.T) {
	in := newTestInbox(t, nil, func(c *Config) { c.Mode, c.signalRate = Server, 1 })
	opens := func(source peer.ID, sealed []byte) (opened bool) {
		defer func() { opened = recover() != nil }()
		in.take(source, sealed)
		return
	}
	if opens(someNode, make([]byte, maxSealedLen+1)) || in.drops[dropOversize].Load() != 1 {
		t.Error("an oversized signal was opened")
	}
	for i := range burstSeconds {
		if !opens(someNode, []byte{byte(i)}) {
			t.Fatalf("signal %d was not opened: %v", i, in.drops.byName())
		}
		if opens(someNode, []byte{byte(i)}) {
			t.Error("a duplicate was opened")
		}
	}
	if in.drops[dropDuplicate].Load() != burstSeconds {
		t.Errorf("duplicates: %v", in.drops.byName())
	}
	for i := range 100 { // from a hundred nodes: the rate in all counts
		if opens(peer.ID(rune(1000+i)), []byte{1, byte(i)}) {
			t.Fatal("opened beyond the rate in all")
		}
	}
	if in.drops[dropRate].Load() != 100 {
		t.Errorf("rate: %v", in.drops.byName())
	}
	for i := range 1000 { // from one node: its own rate counts first
		if opens(someNode, []byte{2, byte(i), byte(i >> 8)}) {
			t.Fatal("opened beyond the node's rate")
		}
	}
	if in.drops[dropSourceRate].Load() < 900 {
		t.Errorf("source rate: %v", in.drops.byName())
	}
}

func TestOneSenderCannotTakeTheWholeRate(t *testing.T) {
	alice, bob, carol := newIdentity(t, "alice"), newIdentity(t, "bob"), newIdentity(t, "carol")
	in := newTestInbox(t, bob, func(c *Config) { c.senderRate = 2 })
	for i := range 20 {
		in.take(someNode, sealedFor(t, alice, bob.DeviceID(), bob.SealingKey(), byte(i), in.now()))
	}
	in.take(someNode, sealedFor(t, carol, bob.DeviceID(), bob.SealingKey(), 0, in.now()))
	if got := in.drops[dropSenderRate].Load(); len(in.queue) != 2*burstSeconds+1 || got != 20-2*burstSeconds {
		t.Errorf("%d delivered, %v", len(in.queue), in.drops.byName())
	}
}

func TestFullQueueDropsTheNewest(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	in := newTestInbox(t, bob, func(c *Config) { c.queueLen = 2 })
	for i := range 5 {
		in.take(someNode, sealedFor(t, alice, bob.DeviceID(), bob.SealingKey(), byte(i), in.now()))
	}
	if in.drops[dropQueue].Load() != 3 || (<-in.queue).body[0] != 0 || (<-in.queue).body[0] != 1 {
		t.Errorf("%v", in.drops.byName())
	}
}

// What the seen-lists forget must be stale by then: as many as the rate lets
// through in both freshness windows fit.
//
// fault: E1
func TestSeenListOutlivesFreshness(t *testing.T) {
	in := newTestInbox(t, nil, func(c *Config) { c.Mode, c.signalRate = Server, 3 })
	first := digestOf([]byte("first"))
	in.digests.Add(first, struct{}{})
	for i := range 3*60 + 3*burstSeconds {
		in.digests.Add(digestOf([]byte{byte(i), byte(i >> 8)}), struct{}{})
	}
	if !in.digests.Contains(first) {
		t.Error("forgotten while it may still be fresh")
	}
	for i := range 100000 {
		in.digests.Add(digestOf([]byte{byte(i), byte(i >> 8), byte(i >> 16), 1}), struct{}{})
	}
	if n := in.digests.Len(); n > 300 {
		t.Errorf("%d remembered", n)
	}
}
