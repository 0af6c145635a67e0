package dht

import (
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/ipfs/go-datastore"
	kbucket "github.com/libp2p/go-libp2p-kbucket"
	record "github.com/libp2p/go-libp2p-record"
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"peerlink/internal/quota"
)

// Bounds of a store.
const (
	maxRecords           = 4096 // of 8 KiB at most: 32 MiB
	maxRecordsPerWriter  = 64   // a device writes one, and corrects others that it looked up
	maxRecordsPerNetwork = 1024
	maxWriters           = 4096 // writers of puts that are on their way into the store
)

// store keeps other devices' records in memory. The Kademlia library neither
// bounds nor removes what it stores, so this does: when it is full it drops what
// is over first, and else whatever lies farthest from the node, for that is what
// the node is least needed for; flooding a node out of a record it is responsible
// for takes keys found by search, not just many keys.
// Its methods may be called concurrently.
type store struct {
	datastore.NullDatastore // for Query, Sync and Close, which nothing that we switched on calls

	self    kbucket.ID // where the node is in the key space; set before use
	now     func() time.Time
	writers *lru.Cache[datastore.Key, origin] // who is putting a key, told by guard

	mu      sync.Mutex
	records map[datastore.Key]stored
	written ledger                 // records by who wrote them first
	invited ledger                 // invites alike, which have a smaller quota
	changed map[datastore.Key]bool // since they were last taken to disk; nil: there is none
}

type stored struct {
	value  []byte
	at     kbucket.ID // where it is in the key space
	until  time.Time
	writer origin // zero: this node, or read from disk
	invite bool
}

func newStore() *store {
	return &store{
		now: time.Now, writers: quota.NewLRU[datastore.Key, origin](maxWriters),
		records: make(map[datastore.Key]stored), written: newLedger(maxRecordsPerWriter, maxRecordsPerNetwork),
		invited: newLedger(maxInvites, maxInvitesNetwork),
	}
}

func (s *store) place(self peer.ID) { s.self = kbucket.ConvertPeerID(self) }

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

// writing notes who is about to put key (a DHT key, not the library's name of it).
func (s *store) writing(key []byte, o origin) { s.writers.Add(storeKey(key), o) }

// Put implements datastore.Write. A record stays on the account of who wrote it
// first, so that nobody can be charged with a record but for bringing it.
func (s *store) Put(_ context.Context, key datastore.Key, value []byte) error {
	writer, _ := s.writers.Get(key)
	s.writers.Remove(key)
	return s.put(key, value, writer)
}

func (s *store) put(key datastore.Key, value []byte, writer origin) error {
	now := s.now()
	env := envelopeOf(value)
	r := stored{value: value, at: position(key), until: lifeOf(env, now), invite: isInvite(env), writer: writer}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, had := s.records[key]; had {
		r.writer = old.writer
	} else {
		if r.invite && !isFresh(env, now) {
			return fmt.Errorf("dht: the invite says another time than this node's clock, by more than %v", inviteSkew)
		}
		if len(s.records) >= maxRecords && !s.makeRoom(r, now) {
			return errors.New("dht: the record store is full of records nearer to this node")
		}
		if l := s.ledgerOf(r); !l.take(r.writer, 1) {
			return fmt.Errorf("dht: the writer or its network has %d or %d records here already", l.perPeer, l.perNetwork)
		}
	}
	s.records[key] = r
	s.touch(key)
	return nil
}

// putOwn stores this node's own record or invite in the library's envelope, unless
// a better one is held.
func (s *store) putOwn(key string, value []byte) error {
	env := record.MakePutRecord(key, value)
	env.TimeReceived = s.now().UTC().Format(time.RFC3339Nano)
	b, err := proto.Marshal(env)
	if err != nil {
		return err
	}
	name := storeKey([]byte(key))
	if held, err := s.Get(context.Background(), name); err == nil {
		if i, err := validators().Select(key, [][]byte{value, envelopeOf(held).GetValue()}); err == nil && i == 1 {
			return nil
		}
	}
	return s.put(name, b, origin{})
}

// ledgerOf is where a record is on account. The caller holds mu.
func (s *store) ledgerOf(r stored) *ledger {
	if r.invite {
		return &s.invited
	}
	return &s.written
}

// lifeOf is until when a value in the library's envelope is kept: as long as the
// record says, within what any record may say.
func lifeOf(env *recpb.Record, now time.Time) time.Time {
	until := now.Add(maxRecordLife)
	if isInvite(env) {
		if inv, _, _, err := parseInvite(env.GetValue()); err == nil && inv.expires.Before(until) {
			return inv.expires
		}
		return now.Add(MaxInviteLife)
	}
	if rec, _, _, err := parseRecord(env.GetValue()); err == nil && rec.Expires.Before(until) {
		return rec.Expires
	}
	return until
}

// isFresh reports whether a new invite was published about now, by this node's
// clock. What it says of its time decides nothing else.
func isFresh(env *recpb.Record, now time.Time) bool {
	inv, _, _, err := parseInvite(env.GetValue())
	return err == nil && inv.published.Sub(now).Abs() <= inviteSkew
}

// touch notes that key changed. The caller holds mu.
func (s *store) touch(key datastore.Key) {
	if s.changed != nil {
		s.changed[key] = true
	}
}

// drop deletes a record. The caller holds mu.
func (s *store) drop(key datastore.Key) {
	if r, had := s.records[key]; had {
		s.ledgerOf(r).give(r.writer, 1)
		delete(s.records, key)
		s.touch(key)
	}
}

// makeRoom deletes what is over, or the record farthest away unless r is farther
// still. The caller holds mu.
func (s *store) makeRoom(r stored, now time.Time) bool {
	far, farKey := r, datastore.Key{}
	for k, o := range s.records {
		if now.After(o.until) {
			s.drop(k)
		} else if s.nearer(far.at, o.at) {
			far, farKey = o, k
		}
	}
	if len(s.records) < maxRecords {
		return true
	}
	s.drop(farKey)
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
	s.drop(key)
	return nil
}

// Batch implements datastore.BatchingFeature.
func (s *store) Batch(context.Context) (datastore.Batch, error) {
	return datastore.NewBasicBatch(s), nil
}

func (s *store) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, r := range s.records {
		if now.After(r.until) {
			s.drop(k)
		}
	}
}

// storeKey is the library's name of a DHT key: its namespace and its base32.
func storeKey(key []byte) datastore.Key {
	namespace, _, _ := record.SplitKey(string(key))
	return datastore.NewKey(namespace + "/" + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(key))
}

// position is where a record lies in the key space. A record whose key has no
// such name lies nowhere near.
func position(key datastore.Key) kbucket.ID {
	name := key.BaseNamespace()
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(name)
	if err != nil {
		raw = []byte(name)
	}
	return kbucket.ConvertKey(string(raw))
}
