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
	"github.com/libp2p/go-libp2p/core/peer"
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
	if err := put(alice, 1); err != nil || s.written.peers["alice"] != 1 {
		t.Errorf("charged with eve's record: %d, %v", s.written.peers["alice"], err)
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
