package dht

import (
	"log/slog"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
	"peerlink/internal/quota"
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

// next takes what waits.
func next(t testing.TB, q *quota.Queue[signal]) signal {
	t.Helper()
	over := make(chan struct{})
	close(over)
	s, ok := q.Take(t.Context(), over)
	if !ok {
		t.Fatal("nothing waits")
	}
	return s
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
	if in.queue.Len() != 1 {
		t.Fatalf("%d signals were delivered, want the genuine one", in.queue.Len())
	}
	if s := next(t, in.queue); s.from.Device != alice.DeviceID() || string(s.body) != "\x09" {
		t.Errorf("delivered %+v", s)
	}
	// Who is banned is told so by whoever answers; a stranger is not.
	in.take(someNode, sealedFor(t, eve, to, bob.SealingKey(), 5, now))
	if s := next(t, in.queue); s.from.Device != eve.DeviceID() {
		t.Errorf("delivered %+v", s)
	}
	in.trust.SetPolicy(identity.RefuseUndecided)
	in.take(someNode, sealedFor(t, alice, to, bob.SealingKey(), 6, now))
	if n := in.drops[dropUntrusted].Load(); n != 1 || in.queue.Len() != 0 {
		t.Errorf("a stranger's signal: %d dropped, %d delivered", n, in.queue.Len())
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
	for i := range openShare * burstSeconds {
		node := peer.ID(rune(100 + i)) // one node may not have all opened
		if !opens(node, []byte{byte(i)}) {
			t.Fatalf("signal %d was not opened: %v", i, in.drops.byName())
		}
		if opens(node, []byte{byte(i)}) {
			t.Error("a duplicate was opened")
		}
	}
	if in.drops[dropDuplicate].Load() != openShare*burstSeconds {
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
	if got := in.drops[dropSenderRate].Load(); in.queue.Len() != 2*burstSeconds+1 || got != 20-2*burstSeconds {
		t.Errorf("%d delivered, %v", in.queue.Len(), in.drops.byName())
	}
}

func TestFullQueueDropsTheNewest(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	in := newTestInbox(t, bob, func(c *Config) { c.queueLen = 2 })
	for i := range 5 {
		in.take(someNode, sealedFor(t, alice, bob.DeviceID(), bob.SealingKey(), byte(i), in.now()))
	}
	if in.drops[dropQueue].Load() != 3 || next(t, in.queue).body[0] != 0 || next(t, in.queue).body[0] != 1 {
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
	for i := range openShare * (3*60 + 3*burstSeconds) {
		in.digests.Add(digestOf([]byte{byte(i), byte(i >> 8)}), struct{}{})
	}
	if !in.digests.Contains(first) {
		t.Error("forgotten while it may still be fresh")
	}
	for i := range 100000 {
		in.digests.Add(digestOf([]byte{byte(i), byte(i >> 8), byte(i >> 16), 1}), struct{}{})
	}
	if n := in.digests.Len(); n > openShare*300 {
		t.Errorf("%d remembered", n)
	}
}

// A hundred throw-away keys send more than twice what is taken of strangers, and
// letters, for ten seconds. Signals and letters of members all come through, while
// the honest stranger beside them shows what the flood does.
//
// case: S24
func TestStrangersDoNotKeepMembersFromTheInbox(t *testing.T) {
	allowed, contact, honest := newIdentity(t, "allowed"), newIdentity(t, "contact"), newIdentity(t, "honest")
	trust, bob := new(identity.Trust), newIdentity(t, "bob")
	if err := trust.Set(allowed.DeviceID(), identity.Allowed); err != nil {
		t.Fatal(err)
	}
	trust.SetMembers(func(p identity.Peer) bool { return p.Account == contact.AccountID() })
	const rate, seconds = 10, 10
	in := newTestInbox(t, bob, func(c *Config) { c.Trust, c.signalRate = trust, rate })
	now := in.now()
	in.now = func() time.Time { return now }
	var throwaway []*identity.Identity
	for range 100 {
		throwaway = append(throwaway, newIdentity(t, "throw-away"))
	}
	got, flood := make(map[identity.DeviceID]int), 0
	take := func() {
		for _, q := range []*quota.Queue[signal]{in.queue, in.letterQueue} {
			for q.Len() > 0 {
				got[next(t, q).from.Device]++
			}
		}
	}
	for second := range seconds {
		for i := range rate * 5 / 2 {
			if i%5 == 0 {
				now = now.Add(time.Second / (rate / 2))
			}
			flood++
			from, node := throwaway[flood%len(throwaway)], peer.ID(rune(100+flood%8))
			in.take(node, sealedFor(t, from, bob.DeviceID(), bob.SealingKey(), byte(second), now))
			in.take(node, sealedLetter(t, from, bob, byte(100+second), now, time.Minute))
		}
		for _, from := range []*identity.Identity{allowed, contact, honest} {
			in.take(someNode, sealedFor(t, from, bob.DeviceID(), bob.SealingKey(), byte(second), now))
			in.take(someNode, sealedLetter(t, from, bob, byte(100+second), now, time.Minute))
		}
		take()
	}
	t.Logf("of %d signals and letters each: %d of an allowed device, %d of a contact, %d of an honest stranger; %v", 2*seconds,
		got[allowed.DeviceID()], got[contact.DeviceID()], got[honest.DeviceID()], in.drops.byName())
	if got[allowed.DeviceID()] != 2*seconds || got[contact.DeviceID()] != 2*seconds {
		t.Error("the strangers have cost a member its signals")
	}
	if got[honest.DeviceID()] == 2*seconds {
		t.Error("it was no flood")
	}
	now = now.Add(burstSeconds * time.Second) // and all is given back
	for i := range burstSeconds * rate {
		in.take(someNode, sealedFor(t, throwaway[i%100], bob.DeviceID(), bob.SealingKey(), 99, now))
	}
	if n := in.queue.Len(); n != burstSeconds*rate {
		t.Errorf("%d of strangers are taken after the flood", n)
	}
}

// Only a signature makes a member: a stranger that shows a member's certificates, in
// any order, takes none of its room.
//
// case: S24
func TestAMembersCertificatesDoNotMakeAMember(t *testing.T) {
	alice, eve, bob := newIdentity(t, "alice"), newIdentity(t, "eve"), newIdentity(t, "bob")
	trust := new(identity.Trust)
	if err := trust.Set(alice.DeviceID(), identity.Allowed); err != nil {
		t.Fatal(err)
	}
	in := newTestInbox(t, bob, func(c *Config) { c.Trust, c.senderRate = trust, 1 })
	to, now := bob.DeviceID(), in.now()
	for i := range 100 {
		id := [signalIDLen]byte{byte(i)}
		in.take(someNode, resealed(t, eve, bob, signalPurpose, wireVersion, alice.Peer().Chain(), to[:], id[:], uint64(now.UnixMilli()), []byte("x")))
	}
	if n := in.drops[dropForged].Load(); n != 100 {
		t.Errorf("%d of 100 are forged: %v", n, in.drops.byName())
	}
	for i := range burstSeconds {
		in.take(someNode, sealedFor(t, alice, to, bob.SealingKey(), byte(i), now))
	}
	if n := in.queue.Len(); n != burstSeconds {
		t.Errorf("%d signals of the member: %v", n, in.drops.byName())
	}
}
