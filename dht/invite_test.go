package dht

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	record "github.com/libp2p/go-libp2p-record"
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"peerlink/identity"
	"peerlink/internal/packed"
)

func mustInvite(t testing.TB, id *identity.Identity, number int, published, expires time.Time) []byte {
	t.Helper()
	b, err := encodeInvite(id, number, published, expires)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestInviteSurvivesTheRoundTripAndIsSmall(t *testing.T) {
	id, now := newIdentity(t, "alice"), time.Now()
	b := mustInvite(t, id, 7, now, now.Add(MaxInviteLife))
	inv, err := decodeInvite(b, inviteKey(7), now)
	if err != nil {
		t.Fatal(err)
	}
	if inv.device != id.DeviceID() || inv.number != 7 || inv.published.UnixMilli() != now.UnixMilli() || inv.expires.Sub(inv.published) != MaxInviteLife {
		t.Errorf("%+v", inv)
	}
	if len(b) > maxInviteLen/4 || len(inviteKey(7)) > maxKeyLen {
		t.Errorf("%d bytes under a key of %d", len(b), len(inviteKey(7)))
	}
	if bytes.Contains(b, []byte("alice")) {
		t.Error("whoever tries numbers learns the device's name")
	}
}

// inviteVector is the vector of docs/protocol.md, "Invite codes".
type inviteVector struct {
	UnixMilli int64  `json:"unix_milli"` // when it was published
	Number    int    `json:"number"`
	Key       string `json:"key"`
	Device    string `json:"device"`
	Invite    string `json:"invite"` // in hex
}

func TestInviteVector(t *testing.T) {
	path := filepath.Join("testdata", "invite.json")
	if *update {
		id, now := newIdentity(t, "alice"), time.UnixMilli(1_790_000_000_000)
		b, err := json.MarshalIndent(inviteVector{
			now.UnixMilli(), 7, inviteKey(7), id.DeviceID().String(), hex.EncodeToString(mustInvite(t, id, 7, now, now.Add(MaxInviteLife))),
		}, "", "  ")
		if err == nil {
			err = os.WriteFile(path, append(b, '\n'), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var v inviteVector
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(v.Invite)
	if err != nil {
		t.Fatal(err)
	}
	now := time.UnixMilli(v.UnixMilli)
	inv, err := decodeInvite(raw, v.Key, now)
	if err != nil || v.Key != inviteKey(v.Number) || inv.number != v.Number || inv.device.String() != v.Device || !inv.published.Equal(now) || !inv.expires.Equal(now.Add(MaxInviteLife)) {
		t.Errorf("%+v, %v; want %+v", inv, err, v)
	}
	_, spki, s, err := parseInvite(raw)
	if err != nil {
		t.Fatal(err)
	}
	again, err := packed.Pack(wireVersion, spki, uint64(v.Number), uint64(v.UnixMilli), uint64(now.Add(MaxInviteLife).UnixMilli()))
	if err != nil || !bytes.Equal(again, s.statement) {
		t.Errorf("the statement is packed as %x, %v; want %x", again, err, s.statement)
	}
}

// fault: A1, A3, E4
func TestInviteIsRefused(t *testing.T) {
	id, eve, now := newIdentity(t, "alice"), newIdentity(t, "eve"), time.Now()
	good := mustInvite(t, id, 7, now, now.Add(time.Minute))
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	ms := func(d time.Duration) uint64 { return uint64(now.Add(d).UnixMilli()) }
	forge := func(purpose string, values ...any) []byte {
		b, err := sign(eve, purpose, values...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	cases := map[string][]byte{
		"empty":           nil,
		"not msgpack":     []byte("garbage garbage garbage"),
		"4 GiB announced": {0x92, 0xc6, 0xff, 0xff, 0xff, 0xff},
		"too long":        append(bytes.Clone(good), make([]byte, maxInviteLen)...),
		"trailing byte":   append(bytes.Clone(good), 0),
		"flipped bit":     flipped,
		"another number":  mustInvite(t, id, 8, now, now.Add(time.Minute)),
		"no number":       forge(invitePurpose, wireVersion, eve.PublicKey(), uint64(0), ms(0), ms(time.Minute)),
		"large number":    forge(invitePurpose, wireVersion, eve.PublicKey(), uint64(1<<40), ms(0), ms(time.Minute)),
		"another's key":   forge(invitePurpose, wireVersion, id.PublicKey(), uint64(7), ms(0), ms(time.Minute)),
		"other purpose":   forge(recordPurpose, wireVersion, eve.PublicKey(), uint64(7), ms(0), ms(time.Minute)),
		"other version":   forge(invitePurpose, 2, eve.PublicKey(), uint64(7), ms(0), ms(time.Minute)),
		"giant key":       forge(invitePurpose, wireVersion, make([]byte, 500), uint64(7), ms(0), ms(time.Minute)),
		"no key":          forge(invitePurpose, wireVersion, []byte(nil), uint64(7), ms(0), ms(time.Minute)),
		"expired":         mustInvite(t, id, 7, now.Add(-2*time.Minute), now.Add(-time.Minute)),
		"from the future": mustInvite(t, id, 7, now.Add(6*time.Minute), now.Add(7*time.Minute)),
		"lives too long":  mustInvite(t, id, 7, now, now.Add(MaxInviteLife+time.Second)),
		"lives backwards": mustInvite(t, id, 7, now.Add(time.Minute), now),
	}
	for n := range good {
		cases[fmt.Sprintf("cut at %d", n)] = good[:n]
	}
	for name, b := range cases {
		if _, err := decodeInvite(b, inviteKey(7), now); err == nil {
			t.Errorf("%s: was taken", name)
		}
		if err := inviteValidator.Validate(inviteKey(7), b); err == nil {
			t.Errorf("%s: was validated", name)
		}
	}
	if _, err := decodeInvite(good, inviteKey(7), now); err != nil {
		t.Error(err)
	}
}

// case: S14
func TestTheNumberStaysWithTheInviteThatIsThere(t *testing.T) {
	alice, bob, now := newIdentity(t, "alice"), newIdentity(t, "bob"), time.Now()
	first := mustInvite(t, alice, 7, now, now.Add(time.Minute))
	again := mustInvite(t, alice, 7, now.Add(time.Second), now.Add(time.Minute))
	longer := mustInvite(t, alice, 7, now.Add(time.Second), now.Add(2*time.Minute))
	late := mustInvite(t, bob, 7, now.Add(time.Second), now.Add(5*time.Minute))
	backdated := mustInvite(t, bob, 7, now.Add(-time.Minute), now.Add(time.Minute))
	same := mustInvite(t, bob, 7, now, now.Add(time.Minute))
	for i, c := range []struct {
		fresh, held []byte
		stays       bool
	}{
		{late, first, true},
		{backdated, first, true},
		{same, first, true},
		{first, same, true},
		{again, first, true},
		{longer, first, false},
		{first, first, false},
		{late, []byte("x"), false},
		{[]byte("x"), late, true},
	} {
		if got, err := inviteValidator.Select(inviteKey(7), [][]byte{c.fresh, c.held}); err != nil || (got == 1) != c.stays {
			t.Errorf("%d: %d, %v; want stays=%v", i, got, err, c.stays)
		}
	}
	if _, err := inviteValidator.Select(inviteKey(7), [][]byte{nil}); err == nil {
		t.Error("nothing was selected")
	}
}

// The library asks Select, so it is asked here as a node is asked over the network.
// case: S14
func TestANodeKeepsTheInviteThatItSawFirst(t *testing.T) {
	node := startNodes(t, 1)[0]
	alice, eve := newIdentity(t, "alice"), newIdentity(t, "eve")
	m, err := newMessenger(bareHost(t, node))
	if err != nil {
		t.Fatal(err)
	}
	ctx, now := testContext(t), time.Now()
	put := func(id *identity.Identity, number int, published time.Duration) error {
		_, err := m.put(ctx, node.host.ID(), inviteKey(number), mustInvite(t, id, number, now.Add(published), now.Add(5*time.Minute)))
		return err
	}
	if err := put(alice, 7, 0); err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Duration{-4 * time.Minute, -30 * time.Second, -time.Millisecond, 0, time.Second} {
		if err := put(eve, 7, at); err == nil {
			t.Errorf("published %v from the first one: it was taken over", at)
		}
	}
	for i, at := range []time.Duration{-2 * time.Minute, 2 * time.Minute} {
		if err := put(eve, 20+i, at); err == nil {
			t.Errorf("an invite of another time, by %v, was taken", at)
		}
	}
	if err := put(eve, 30, -30*time.Second); err != nil {
		t.Errorf("a clock that is 30 s off: %v", err)
	}
	if b, err := node.holds(ctx, node.host.ID(), inviteKey(7)); err != nil {
		t.Error(err)
	} else if inv, err := decodeInvite(b, inviteKey(7), now); err != nil || inv.device != alice.DeviceID() {
		t.Errorf("%+v, %v", inv, err)
	}
}

// One node of four lies about the number: who has it keeps it, and is found.
// case: S14
func TestALyingNodeCannotTakeANumberOver(t *testing.T) {
	nodes := startNodes(t, 3)
	eve := newIdentity(t, "eve")
	startHostile(t, &hostile{get: func(key string) *recpb.Record {
		if key != inviteKey(7) {
			return nil
		}
		return record.MakePutRecord(key, mustInvite(t, eve, 7, time.Now().Add(-MaxInviteLife/2), time.Now().Add(MaxInviteLife/2)))
	}}, nodes[0])
	eventually(t, "the liar is in the table", func() bool { return nodes[0].Health().Table == 3 })
	alice, bob := device(t, "alice", nodes[0]), device(t, "bob", nodes[1])
	ctx, until := testContext(t), time.Now().Add(MaxInviteLife)
	for range 3 {
		if err := alice.PublishInvite(ctx, 7, until); err != nil {
			t.Fatal(err)
		}
		if got, err := bob.FindInvite(ctx, 7); err != nil || got != alice.id() {
			t.Fatalf("%v, %v; want %v", got, err, alice.id())
		}
	}
}

// fault: J3
func TestStoreHoldsInvitersToASmallerQuotaAndForgetsInTime(t *testing.T) {
	now := time.Now()
	s := newStore()
	s.place("me")
	s.now = func() time.Time { return now }
	ctx, id := context.Background(), newIdentity(t, "eve")
	put := func(o origin, number int) error {
		key := inviteKey(number)
		env, err := proto.Marshal(record.MakePutRecord(key, mustInvite(t, id, number, now, now.Add(time.Minute))))
		if err != nil {
			t.Fatal(err)
		}
		s.writing([]byte(key), o)
		return s.Put(ctx, storeKey([]byte(key)), env)
	}
	net1 := networkOf(netip.MustParseAddr("192.0.2.1"))
	number := 0
	for i := range maxInvitesNetwork / maxInvites {
		o := origin{peer: peer.ID(fmt.Sprint("eve", i)), network: net1}
		for range maxInvites {
			number++
			if err := put(o, number); err != nil {
				t.Fatal(err)
			}
		}
		number++
		if err := put(o, number); err == nil {
			t.Fatal("one writer has more than its quota")
		}
	}
	if err := put(origin{peer: "another", network: net1}, 9000); err != nil {
		t.Errorf("a writer of fewer invites than the others of its network: %v", err)
	}
	if n := *s.invited.networks[net1]; n != maxInvitesNetwork {
		t.Errorf("one network has %d invites, want %d", n, maxInvitesNetwork)
	}
	if err := put(origin{peer: "yet another", network: networkOf(netip.MustParseAddr("198.51.100.1"))}, 9001); err != nil {
		t.Errorf("another network: %v", err)
	}
	now = now.Add(time.Minute + time.Millisecond)
	if _, err := s.Get(ctx, storeKey([]byte(inviteKey(1)))); err == nil {
		t.Error("an invite outlives its time")
	}
	s.sweep(now)
	if len(s.records) != 0 || !s.invited.empty() || !s.written.empty() {
		t.Errorf("%d records are left, ledgers %+v, %+v", len(s.records), s.invited, s.written)
	}
}

func TestAnInviteIsFoundByItsNumber(t *testing.T) {
	nodes := startNodes(t, 3)
	alice, bob := device(t, "alice", nodes[0]), device(t, "bob", nodes[2])
	ctx, until := testContext(t), time.Now().Add(MaxInviteLife)
	if _, err := bob.FindInvite(ctx, 7); !errors.Is(err, ErrNoInvite) {
		t.Errorf("before: %v", err)
	}
	for range 2 { // the second time as it is refreshed
		if err := alice.PublishInvite(ctx, 7, until); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []*Node{bob, alice, nodes[1]} {
		if got, err := n.FindInvite(ctx, 7); err != nil || got != alice.id() {
			t.Errorf("%v, %v; want %v", got, err, alice.id())
		}
	}
	if err := bob.PublishInvite(ctx, 7, until.Add(time.Millisecond)); !errors.Is(err, ErrInviteTaken) {
		t.Errorf("a number that is another's: %v", err)
	}
	if got, err := bob.FindInvite(ctx, 7); err != nil || got != alice.id() {
		t.Errorf("%v, %v; want still %v", got, err, alice.id())
	}
	if _, err := bob.FindInvite(ctx, 8); !errors.Is(err, ErrNoInvite) {
		t.Errorf("another number: %v", err)
	}
}

// Where the nodes have forgotten the first invite, as after a restart, the device
// hears of the next one when it publishes again.
func TestAnInviterWhoseNumberWasTakenOverHearsOfIt(t *testing.T) {
	node := start(t, Config{Mode: Server})
	ready(t, node)
	alice, eve := device(t, "alice", node), device(t, "eve", node)
	ctx, until := testContext(t), time.Now().Add(MaxInviteLife)
	if err := alice.PublishInvite(ctx, 7, until); err != nil {
		t.Fatal(err)
	}
	if err := eve.PublishInvite(ctx, 7, until.Add(-time.Minute)); !errors.Is(err, ErrInviteTaken) {
		t.Errorf("a number that is another's: %v", err)
	}
	if err := node.records.Delete(ctx, storeKey([]byte(inviteKey(7)))); err != nil {
		t.Fatal(err)
	}
	if err := eve.PublishInvite(ctx, 7, until.Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := alice.PublishInvite(ctx, 7, until); !errors.Is(err, ErrInviteTaken) {
		t.Errorf("%v", err)
	}
	if got, err := alice.FindInvite(ctx, 7); err != nil || got != eve.id() {
		t.Errorf("%v, %v", got, err)
	}
}

// A device that serves the network is its first node, perhaps its only one.
func TestADeviceThatServesKeepsInvitesItself(t *testing.T) {
	alice := start(t, Config{Identity: newIdentity(t, "alice"), Mode: Server})
	ready(t, alice)
	ctx, until := testContext(t), time.Now().Add(MaxInviteLife)
	if err := alice.PublishInvite(ctx, 7, until); err != nil {
		t.Fatal(err)
	}
	bob := device(t, "bob", alice)
	if got, err := bob.FindInvite(ctx, 7); err != nil || got != alice.id() {
		t.Errorf("%v, %v; want %v", got, err, alice.id())
	}
	if err := bob.PublishInvite(ctx, 8, until); err != nil {
		t.Fatal(err)
	}
	if got, err := alice.FindInvite(ctx, 8); err != nil || got != bob.id() {
		t.Errorf("%v, %v; want %v", got, err, bob.id())
	}
}

func TestInvitesThatCannotBeAreRefusedHere(t *testing.T) {
	node := start(t, Config{Mode: Server})
	alice := start(t, Config{Identity: newIdentity(t, "alice"), Bootstrap: []string{"/ip4/127.0.0.1/tcp/1/p2p/12D3KooWEkk8BzaeW1wNnxyvVsbNvKZNbxYXGqpGWDzQqT7Ln1Zk"}})
	ctx, until := testContext(t), time.Now().Add(time.Minute)
	if err := node.PublishInvite(ctx, 7, until); err == nil {
		t.Error("a node without an identity invites")
	}
	for _, number := range []int{-1, 0, MaxInviteNumber + 1} {
		if err := alice.PublishInvite(ctx, number, until); err == nil {
			t.Errorf("number %d was published", number)
		}
		if _, err := alice.FindInvite(ctx, number); err == nil || errors.Is(err, ErrNoInvite) {
			t.Errorf("number %d: %v", number, err)
		}
	}
	for _, life := range []time.Duration{-time.Second, MaxInviteLife + time.Minute} {
		if err := alice.PublishInvite(ctx, 7, time.Now().Add(life)); err == nil {
			t.Errorf("a life of %v was published", life)
		}
	}
	// fault: E5
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := alice.PublishInvite(short, 7, until); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("without a network: %v", err)
	}
	if _, err := alice.FindInvite(short, 7); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("without a network: %v", err)
	}
}

func FuzzDecodeInvite(f *testing.F) {
	now := time.Unix(1_790_000_000, 0)
	id := newIdentity(f, "alice")
	f.Add(mustInvite(f, id, 7, now, now.Add(time.Minute)))
	f.Add([]byte{0x92, 0xc6, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		inv, err := decodeInvite(b, inviteKey(7), now)
		if err == nil && (inv.number != 7 || inv.device.IsZero() || len(b) > maxInviteLen) {
			t.Errorf("%x was taken as %+v", b, inv)
		}
	})
}
