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

	"peerlink/identity"
	"peerlink/internal/quota"
)

// Bounds of a store.
const (
	maxRecords           = 4096 // of 8 KiB at most: 32 MiB
	maxRecordsPerWriter  = 64   // a device writes one, and corrects others that it looked up
	maxRecordsPerNetwork = 1024
	maxInvitesKept       = 1024 // of 1 KiB at most, beside the records
	maxWriters           = 4096 // writers of puts that are on their way into the store
)

// store keeps other devices' records in memory. The Kademlia library neither
// bounds nor removes what it stores, so this does. A device that listens at this
// node has proven that it is there: such devices and the others each have half of
// the room, and as much of the other half as is free. Where a half is full, what is
// over goes first, and then a record of the network, and in it of the writer, with
// most records, so that a flood displaces itself. Among equals the record goes
// that lies farthest from the node, for which the node is least needed.
// Its methods may be called concurrently.
type store struct {
	datastore.NullDatastore // for Query, Sync and Close, which nothing that we switched on calls

	self    kbucket.ID // where the node is in the key space; set before use
	now     func() time.Time
	writers *lru.Cache[datastore.Key, origin] // who is putting a key, told by guard

	mu      sync.Mutex
	records map[datastore.Key]*stored
	used    [rooms]int                // records
	here    map[identity.DeviceID]int // listening streams at this node
	written ledger                    // records by who wrote them first
	invited ledger                    // invites alike, which have a smaller quota
	changed map[datastore.Key]bool    // records, since they were last taken to disk; nil: there is none
}

type stored struct {
	value  []byte
	at     kbucket.ID // where it is in the key space
	until  time.Time
	writer origin // zero: this node
	charge account
	in     room
	device identity.DeviceID // of a record; zero: of an invite
}

// room is a part of a store. Present and absent share maxRecords.
type room int

const (
	present room = iota
	absent
	invites
	rooms
)

// fromDisk stands for the forgotten writers of the records that were read from disk.
var fromDisk = origin{peer: "disk"}

func newStore() *store {
	return &store{
		now: time.Now, writers: quota.NewLRU[datastore.Key, origin](maxWriters),
		records: make(map[datastore.Key]*stored), here: make(map[identity.DeviceID]int),
		written: newLedger(maxRecordsPerWriter, maxRecordsPerNetwork), invited: newLedger(maxInvites, maxInvitesNetwork),
	}
}

// enter notes one more stream on which a device listens that has proven itself, and
// leave that it has ended.
func (s *store) enter(id identity.DeviceID) { s.listens(id, 1) }
func (s *store) leave(id identity.DeviceID) { s.listens(id, -1) }

func (s *store) listens(id identity.DeviceID, more int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.here[id] += more; s.here[id] <= 0 {
		delete(s.here, id)
	}
	if r := s.records[storeKey([]byte(recordKey(id)))]; r != nil {
		s.used[r.in]--
		r.in = s.roomOf(id)
		s.used[r.in]++
	}
}

// roomOf is where the record of a device has its place. The caller holds mu.
func (s *store) roomOf(id identity.DeviceID) room {
	if s.here[id] > 0 {
		return present
	}
	return absent
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
// first, so that nobody can be charged with a record but for bringing it, unless a
// writer of fewer records brings it: it must not go with another's flood.
func (s *store) Put(_ context.Context, key datastore.Key, value []byte) error {
	writer, _ := s.writers.Get(key)
	s.writers.Remove(key)
	return s.put(key, value, writer)
}

func (s *store) put(key datastore.Key, value []byte, writer origin) error {
	now := s.now()
	env := envelopeOf(value)
	r := &stored{value: value, at: position(key), until: lifeOf(env, now), writer: writer, in: invites}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !isInvite(env) {
		r.device, _ = parseRecordKey(string(env.GetKey())) // zero with an error
		r.in = s.roomOf(r.device)
	}
	old, had := s.records[key]
	l := s.ledgerOf(r)
	switch {
	case had:
	case r.in == invites && !isFresh(env, now):
		return fmt.Errorf("dht: the invite says another time than this node's clock, by more than %v", inviteSkew)
	case writer != (origin{}) && *l.of(writer).peer >= l.perPeer:
		return fmt.Errorf("dht: the writer has %d records here already", l.perPeer)
	}
	r.charge = l.add(writer, 1)
	switch {
	case had && *r.charge.peer < min(*old.charge.peer, l.perPeer+1) && !l.crowded(writer):
		l.give(old.writer, 1)
	case had:
		l.give(writer, 1)
		r.writer, r.charge = old.writer, old.charge
	case !s.makeRoom(r, now):
		l.give(writer, 1)
		return errors.New("dht: the store, or what of it is for the writer's network, is full of records of writers with fewer, or nearer to this node")
	}
	if had {
		s.used[old.in]--
	}
	s.used[r.in]++
	s.records[key] = r
	s.touch(key, r)
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
func (s *store) ledgerOf(r *stored) *ledger {
	if r.in == invites {
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

// touch notes that a record changed; invites, which live for minutes, are not kept
// on disk. The caller holds mu.
func (s *store) touch(key datastore.Key, r *stored) {
	if s.changed != nil && r.in != invites {
		s.changed[key] = true
	}
}

// drop deletes a record. The caller holds mu.
func (s *store) drop(key datastore.Key) {
	if r, had := s.records[key]; had {
		s.ledgerOf(r).give(r.writer, 1)
		s.used[r.in]--
		delete(s.records, key)
		s.touch(key, r)
	}
}

// makeRoom makes room for r, which its writer is charged with already, and reports
// whether there is some. The caller holds mu.
func (s *store) makeRoom(r *stored, now time.Time) bool {
	crowded := s.ledgerOf(r).crowded(r.writer) // then only its own network makes room
	full := s.fullRoom(r.in)
	if !crowded && full == rooms {
		return true
	}
	var worst *stored
	var key datastore.Key
	if crowded || full == r.in {
		worst = r
	}
	for k, o := range s.records {
		if crowded && (o.charge.network != r.charge.network || (o.in == invites) != (r.in == invites)) || !crowded && o.in != full {
			continue
		}
		if now.After(o.until) {
			s.drop(k)
			return true
		}
		if worst == nil || s.goesBefore(o, worst) {
			worst, key = o, k
		}
	}
	s.drop(key)
	return worst != r
}

// goesBefore reports whether a, which is held, has to make room before b. Of the
// invites the one that was seen first stays.
func (s *store) goesBefore(a, b *stored) bool {
	c := a.charge.compare(b.charge)
	return c > 0 || c == 0 && a.in != invites && s.nearer(b.at, a.at)
}

// fullRoom is the room that is too full for one more record in another room or the
// same; rooms: none is. The caller holds mu.
func (s *store) fullRoom(in room) room {
	switch used := s.used[present] + s.used[absent]; {
	case in == invites && s.used[invites] >= maxInvitesKept:
		return invites
	case in == invites || used < maxRecords:
		return rooms
	}
	if s.used[present] > maxRecords/2 || in == present && s.used[present] == maxRecords/2 {
		return present
	}
	return absent
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
