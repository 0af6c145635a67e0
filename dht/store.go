package dht

import (
	"bytes"
	"context"
	"encoding/base32"
	"errors"
	"sync"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	kbucket "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"
)

// maxRecords bounds how many records a node stores: at most 32 MiB of them.
const maxRecords = 4096

// store keeps other devices' records in memory. The Kademlia library neither
// bounds nor removes what it stores, so this does: when it is full it drops what
// is oldest-than-alive first, and else whatever lies farthest from the node, for
// that is what the node is least needed for; flooding a node out of a record it
// is responsible for takes keys found by search, not just many keys.
// Its methods may be called concurrently.
type store struct {
	self kbucket.ID // where the node is in the key space; set before use
	now  func() time.Time

	mu      sync.Mutex
	records map[datastore.Key]stored
}

type stored struct {
	value []byte
	at    kbucket.ID // where it is in the key space
	until time.Time
}

func newStore() *store {
	return &store{now: time.Now, records: make(map[datastore.Key]stored)}
}

// place sets where the node is in the key space.
func (s *store) place(self peer.ID) { s.self = kbucket.ConvertPeerID(self) }

var errStoreQuery = errors.New("dht: the record store answers no queries")

// Get implements datastore.Read.
func (s *store) Get(_ context.Context, key datastore.Key) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[key]
	if !ok || s.now().After(r.until) {
		return nil, datastore.ErrNotFound
	}
	return r.value, nil
}

// Has implements datastore.Read.
func (s *store) Has(ctx context.Context, key datastore.Key) (bool, error) {
	_, err := s.Get(ctx, key)
	return err == nil, nil
}

// GetSize implements datastore.Read.
func (s *store) GetSize(ctx context.Context, key datastore.Key) (int, error) {
	v, err := s.Get(ctx, key)
	return len(v), err
}

// Query implements datastore.Read; nothing that we switched on asks.
func (s *store) Query(context.Context, query.Query) (query.Results, error) {
	return nil, errStoreQuery
}

// Put implements datastore.Write.
func (s *store) Put(_ context.Context, key datastore.Key, value []byte) error {
	now := s.now()
	r := stored{value: value, at: position(key), until: now.Add(maxRecordLife)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, had := s.records[key]; !had && len(s.records) >= maxRecords && !s.makeRoom(r, now) {
		return errors.New("dht: the record store is full of records nearer to this node")
	}
	s.records[key] = r
	return nil
}

// makeRoom deletes what is over, or the record farthest away unless r is farther
// still. The caller holds mu.
func (s *store) makeRoom(r stored, now time.Time) bool {
	far, farKey := r, datastore.Key{}
	for k, o := range s.records {
		if now.After(o.until) {
			delete(s.records, k)
		} else if s.nearer(far.at, o.at) {
			far, farKey = o, k
		}
	}
	if len(s.records) < maxRecords {
		return true
	}
	delete(s.records, farKey)
	return farKey != datastore.Key{}
}

// nearer reports whether a is nearer to the node than b, by XOR.
func (s *store) nearer(a, b kbucket.ID) bool {
	for i := range s.self {
		if da, db := a[i]^s.self[i], b[i]^s.self[i]; da != db {
			return da < db
		}
	}
	return false
}

// Delete implements datastore.Write.
func (s *store) Delete(_ context.Context, key datastore.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.records, key)
	return nil
}

// Sync implements datastore.Datastore.
func (s *store) Sync(context.Context, datastore.Key) error { return nil }

// Close implements io.Closer.
func (s *store) Close() error { return nil }

// Batch implements datastore.BatchingFeature.
func (s *store) Batch(context.Context) (datastore.Batch, error) {
	return datastore.NewBasicBatch(s), nil
}

// sweep deletes what is over.
func (s *store) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, r := range s.records {
		if now.After(r.until) {
			delete(s.records, k)
		}
	}
}

// position is where a record lies in the key space. The library names records
// by their key in base32; anything else lies nowhere near.
func position(key datastore.Key) kbucket.ID {
	name := bytes.TrimPrefix(key.Bytes(), []byte("/"))
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(string(name))
	if err != nil {
		raw = name
	}
	return kbucket.ConvertKey(string(raw))
}

// noProviders takes the place of the library's provider store, whose goroutine
// and cache a network without providers does not need.
type noProviders struct{}

// AddProvider implements records.ProviderStore.
func (noProviders) AddProvider(context.Context, []byte, peer.AddrInfo) error {
	return errors.New("dht: this network has no providers")
}

// GetProviders implements records.ProviderStore.
func (noProviders) GetProviders(context.Context, []byte) ([]peer.AddrInfo, error) { return nil, nil }

// Close implements io.Closer.
func (noProviders) Close() error { return nil }
