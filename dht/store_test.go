package dht

import (
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	kbucket "github.com/libp2p/go-libp2p-kbucket"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"peerlink/identity"
)

// dsKey names a DHT key as the library does.
func dsKey(key string) datastore.Key {
	return datastore.NewKey(strings.Split(key, "/")[1] + "/" + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(key)))
}

// The writer of a record is noted under the name that the library will put it by.
// go-libp2p-kad-dht v0.42 (records/value_store.go, valueDsKey) has the namespace in
// that name, v0.41 had not; with another name every record would be nobody's, and
// no quota would count it.
func TestLibraryNamesRecordsAsTheStoreDoes(t *testing.T) {
	s := newStore()
	s.place("me")
	key, env := enveloped(t, newIdentity(t, "alice"), 1, time.Now())
	writer := origin{peer: "writer"}
	s.writing([]byte(key), writer)
	if err := records.NewValueStore(s, validators(), maxRecordLife).Put(t.Context(), key, envelopeOf(env)); err != nil {
		t.Fatal(err)
	}
	r, ok := s.records[storeKey([]byte(key))]
	if !ok || r.writer != writer || !slices.Equal(r.at, kbucket.ConvertKey(key)) {
		t.Errorf("%+v, %v", r, ok)
	}
}

func TestStoreForgetsWhatIsOver(t *testing.T) {
	s, ctx := newStore(), context.Background()
	s.place("me")
	now := t0
	s.now = func() time.Time { return now }
	k := dsKey("/peerlink/a")
	if err := s.Put(ctx, k, []byte("v")); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get(ctx, k); err != nil || string(v) != "v" {
		t.Errorf("%q, %v", v, err)
	}
	if n, err := s.GetSize(ctx, k); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	now = now.Add(maxRecordLife + 1)
	if has, _ := s.Has(ctx, k); has {
		t.Error("still there")
	}
	if _, err := s.Get(ctx, k); !errors.Is(err, datastore.ErrNotFound) {
		t.Error(err)
	}
	s.sweep(now)
	if len(s.records) != 0 {
		t.Error("not swept")
	}
}

// fault: J3
func TestStoreHoldsWritersToTheirQuota(t *testing.T) {
	s, ctx := newStore(), context.Background()
	s.place("me")
	put := func(o origin, i int) error {
		key := fmt.Sprint("/peerlink/", i)
		s.writing([]byte(key), o)
		return s.Put(ctx, dsKey(key), []byte{1})
	}
	eve := origin{peer: "eve", network: networkOf(netip.MustParseAddr("192.0.2.1"))}
	for i := range maxRecordsPerWriter {
		if err := put(eve, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(eve, 1000); err == nil {
		t.Error("one writer has more than its quota")
	}
	if err := put(eve, 0); err != nil {
		t.Errorf("a record cannot be renewed: %v", err)
	}
	for i := range 2 * maxRecordsPerNetwork { // with ever new keys, from one network
		_ = put(origin{peer: peer.ID(fmt.Sprint(i)), network: eve.network}, 2000+i)
	}
	if len(s.records) != maxRecordsPerNetwork {
		t.Errorf("one network has %d records, want %d", len(s.records), maxRecordsPerNetwork)
	}
	alice := origin{peer: "alice", network: networkOf(netip.MustParseAddr("198.51.100.1"))}
	if err := put(alice, 10_000); err != nil {
		t.Errorf("another network: %v", err)
	}
	if err := put(alice, 1); err != nil || s.written.count("alice") != 2 {
		t.Errorf("a record that a writer of fewer brings is on account of %v, %v", s.written.peers, err)
	}
	if err := put(eve, 10_000); err != nil || s.written.count("alice") != 2 {
		t.Errorf("a record that a writer of more brings is on account of %v, %v", s.written.peers, err)
	}
	s.sweep(time.Now().Add(2 * maxRecordLife))
	if len(s.records) != 0 || !s.written.empty() {
		t.Errorf("%d records, %v", len(s.records), s.written)
	}
}

func TestStoredRecordEndsWhenItSaysSo(t *testing.T) {
	s := newStore()
	s.place("me")
	k, v := enveloped(t, newIdentity(t, "alice"), 1, time.Now())
	if err := s.Put(context.Background(), dsKey(k), v); err != nil {
		t.Fatal(err)
	}
	if until := time.Until(s.records[dsKey(k)].until); until <= 0 || until > 2*time.Hour {
		t.Errorf("kept for %v", until)
	}
}

// fault: E4, J1
func TestFullStoreKeepsWhatIsNearest(t *testing.T) {
	s, ctx := newStore(), context.Background()
	s.place("me")
	const more = 500
	refused := 0
	for i := range maxRecords + more {
		if err := s.Put(ctx, dsKey(fmt.Sprint("/peerlink/", i)), []byte{1}); err != nil {
			refused++
		}
	}
	if len(s.records) != maxRecords {
		t.Fatalf("%d records", len(s.records))
	}
	if refused == 0 || refused >= more {
		t.Errorf("%d of %d were refused, want those that lie farther off than what is there", refused, more)
	}
	var farthest kbucket.ID
	for _, r := range s.records {
		if farthest == nil || s.nearer(farthest, r.at) {
			farthest = r.at
		}
	}
	for i := range maxRecords + more {
		k := dsKey(fmt.Sprint("/peerlink/", i))
		if _, kept := s.records[k]; kept != !s.nearer(farthest, position(k)) {
			t.Fatalf("record %d: kept %v", i, kept)
		}
	}
	for k := range s.records { // one that is there can be replaced
		if err := s.Put(ctx, k, []byte("newer")); err != nil {
			t.Error(err)
		}
		break
	}
}

// flood puts so many records of made-up keys, 64 of each writer.
func flood(s *store, network string, records int) {
	o := origin{}
	if network != "" {
		o.network = networkOf(netip.MustParseAddr(network))
	}
	for i := range records {
		o.peer = peer.ID(fmt.Sprint("eve", network, i/maxRecordsPerWriter))
		key := fmt.Sprint("/peerlink/", network, "/", i)
		s.writing([]byte(key), o)
		_ = s.Put(context.Background(), dsKey(key), []byte{1})
	}
}

// putRecord has a writer put the record of a device, as Kademlia would store it.
func putRecord(t *testing.T, s *store, id *identity.Identity, seq uint64, o origin) error {
	t.Helper()
	key, env := enveloped(t, id, seq, time.Now())
	s.writing([]byte(key), o)
	return s.Put(t.Context(), dsKey(key), env)
}

func (s *store) holds(id *identity.Identity) bool {
	has, _ := s.Has(context.Background(), dsKey(recordKey(id.DeviceID())))
	return has
}

// Of forty devices half listen at the node. All records are those that were there
// before a flood of many libp2p ids, from addresses of one network, of many, and from this
// machine, of which no network is known.
// case: S26
func TestAFloodDisplacesItself(t *testing.T) {
	for name, networks := range map[string][]string{
		"this machine":  {""},
		"one network":   {"192.0.2.1"},
		"many networks": {"192.0.2.1", "198.51.100.1", "203.0.113.1", "192.0.3.1", "198.51.101.1", "2001:db8::1", "2001:db8:1::1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore()
			s.place("me")
			var honest []*identity.Identity
			for i := range 40 {
				id := newIdentity(t, fmt.Sprint("honest", i))
				if i%2 == 0 {
					s.enter(id.DeviceID())
				}
				if err := putRecord(t, s, id, 1, origin{peer: peer.ID(id.Name())}); err != nil {
					t.Fatal(err)
				}
				honest = append(honest, id)
			}
			for _, n := range networks {
				flood(s, n, (maxRecords+1000)/len(networks)) // 80 writers
			}
			for i, id := range honest {
				if !s.holds(id) {
					t.Errorf("the record of device %d is gone", i)
				}
				if err := putRecord(t, s, id, 2, origin{peer: peer.ID(id.Name())}); err != nil {
					t.Errorf("device %d cannot publish anew: %v", i, err)
				}
			}
			late := newIdentity(t, "late")
			if err := putRecord(t, s, late, 1, origin{peer: "late"}); err != nil || !s.holds(late) {
				t.Errorf("a device that comes while the store is full: %v", err)
			}
			if n := len(s.records); n > maxRecords {
				t.Errorf("%d records", n)
			}
			s.sweep(time.Now().Add(2 * maxRecordLife))
			for i := range honest {
				if i%2 == 0 {
					s.leave(honest[i].DeviceID())
				}
			}
			if len(s.records)+len(s.here) != 0 || !s.written.empty() {
				t.Errorf("left: %d records, %d devices, %v", len(s.records), len(s.here), s.written)
			}
		})
	}
}

// case: S26
func TestARecordHasItsDevicesRoomWhileTheDeviceListens(t *testing.T) {
	node := startNodes(t, 1)[0]
	bob := device(t, "bob", node)
	used := func() [rooms]int {
		node.records.mu.Lock()
		defer node.records.mu.Unlock()
		return node.records.used
	}
	eventually(t, "the record is a present device's", func() bool { return used() == [rooms]int{present: 1} })
	if err := bob.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the record is an absent device's", func() bool { return used() == [rooms]int{absent: 1} })
}

// A flood of devices that do prove themselves takes its half, and no more.
// case: S26
func TestPresentAndAbsentDevicesHaveHalfOfTheStoreEach(t *testing.T) {
	s := newStore()
	s.place("me")
	put := func(i int, here bool) {
		id := identity.DeviceID{0: 1, 1: byte(i >> 8), 2: byte(i)}
		if here {
			s.enter(id)
		}
		value, err := proto.Marshal(record.MakePutRecord(recordKey(id), nil))
		if err != nil {
			t.Fatal(err)
		}
		_ = s.put(storeKey([]byte(recordKey(id))), value, origin{peer: peer.ID(fmt.Sprint(i))})
	}
	count := func() (n [rooms]int) {
		for _, r := range s.records {
			n[r.in]++
		}
		if n != s.used {
			t.Errorf("%v records in the rooms, counted %v", n, s.used)
		}
		return n
	}
	for i := range maxRecords + 100 {
		put(i, false)
	}
	if n := count(); n != [rooms]int{absent: maxRecords} {
		t.Errorf("while no device listens: %v", n)
	}
	for i := range maxRecords/2 + 100 {
		put(2*maxRecords+i, true)
	}
	if n := count(); n != [rooms]int{present: maxRecords / 2, absent: maxRecords / 2} {
		t.Errorf("while many listen: %v", n)
	}
}

// A flood that was read from disk after a restart makes room for devices that are there.
// case: S26
func TestWhatAFloodLeftOnDiskMakesRoom(t *testing.T) {
	s := newStore()
	s.place("me")
	old := newIdentity(t, "old")
	key, env := enveloped(t, old, 1, time.Now())
	if !s.restore(dsKey(key), env) {
		t.Fatal("not restored")
	}
	for i := range maxRecords - 1 {
		s.records[dsKey(fmt.Sprint("/peerlink/", i))] = &stored{in: absent, at: kbucket.ConvertKey(fmt.Sprint(i)), until: time.Now().Add(time.Hour), writer: fromDisk, charge: s.written.add(fromDisk, 1)}
		s.used[absent]++
	}
	if err := putRecord(t, s, old, 2, origin{peer: "old"}); err != nil || s.written.count("old") != 1 {
		t.Errorf("a device's record stays on the disk's account: %v, %v", s.written.peers, err)
	}
	for i := range 100 {
		if err := putRecord(t, s, newIdentity(t, "new"), 1, origin{peer: peer.ID(fmt.Sprint("new", i))}); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.written.count("disk"); n != maxRecords-101 || !s.holds(old) {
		t.Errorf("%d are left of the disk's, want %d", n, maxRecords-101)
	}
}

func BenchmarkPutInAFullStore(b *testing.B) {
	s := newStore()
	s.place("me")
	flood(s, "", maxRecords)
	i := 0
	for b.Loop() {
		key := fmt.Sprint("/peerlink/more/", i)
		i++
		s.writing([]byte(key), origin{peer: peer.ID(key)})
		_ = s.Put(context.Background(), dsKey(key), []byte{1})
	}
}
