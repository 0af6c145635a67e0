package dht

import (
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	kbucket "github.com/libp2p/go-libp2p-kbucket"
)

// dsKey names a DHT key as the library does.
func dsKey(key string) datastore.Key {
	return datastore.NewKey(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(key)))
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
