package dht

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"github.com/ipfs/go-datastore"
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"google.golang.org/protobuf/proto"

	"peerlink/internal/journal"
)

// Files of DataDir beside the node's key.
const (
	recordsFile = "records.journal"
	lockFile    = "lock"
)

// Bounds of what is on disk.
const (
	maxEntryLen  = maxRecordLen + 256 // with the library's envelope and the journal's own
	maxDiskBytes = maxRecords * maxEntryLen
	flushEvery   = time.Second
	flushLogs    = 10 * time.Minute // between complaints about the disk
)

// disk keeps a server's records over a restart. What changed is written a second
// later, off the path of requests; a kill costs that second, and those records
// are at other nodes too. run owns it.
type disk struct {
	lock   *flock.Flock
	j      *journal.Journal
	values *store
	log    *slog.Logger
	nagged time.Time
}

// openDisk takes the folder for this process, and reads its records into values.
func openDisk(dir string, values *store, log *slog.Logger) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("dht: make data folder: %w", err)
	}
	d := &disk{lock: flock.New(filepath.Join(dir, lockFile), flock.SetPermissions(0o600)), values: values, log: log}
	switch ok, err := d.lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("dht: lock data folder %s: %w", dir, err)
	case !ok:
		return nil, fmt.Errorf("dht: another node runs with data folder %s: stop it, or give this one a folder of its own", dir)
	}
	path := filepath.Join(dir, recordsFile)
	var read int
	over := make(map[datastore.Key]bool) // and what has another name than the library's
	j, damage, err := journal.Open(path, journal.Config{MaxSize: maxDiskBytes}, func(key string, value []byte) {
		read++
		if !values.restore(datastore.RawKey(key), value) {
			over[datastore.RawKey(key)] = true
		}
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dht: %w", err), d.lock.Unlock())
	}
	if s := damage.String(); s != "" {
		log.Warn("dht: stored records: "+s, "file", path)
	}
	log.Debug("dht: records read", "file", path, "records", read, "over", len(over))
	values.mu.Lock()
	values.changed = over // the next flush deletes them
	values.mu.Unlock()
	d.j = j
	return d, nil
}

// run writes what changed until ctx is done, and once more.
func (d *disk) run(ctx context.Context) {
	t := time.NewTicker(flushEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			d.flush()
		case <-ctx.Done():
			return
		}
	}
}

// flush writes what changed since the last time.
func (d *disk) flush() {
	entries := d.values.takeChanges()
	if len(entries) == 0 {
		return
	}
	if err := d.j.Write(entries); err != nil {
		d.values.keepChanges(entries)
		if now := time.Now(); now.Sub(d.nagged) > flushLogs {
			d.nagged = now
			d.log.Warn("dht: records are kept in memory only", "err", err)
		}
	}
}

// close writes what is left and gives the folder free. run must have ended.
func (d *disk) close() error {
	d.flush()
	return errors.Join(d.j.Close(), d.lock.Unlock())
}

// restore puts back a record from disk and reports whether it is still good. Its
// signatures are not checked again: whoever is shown it does that.
func (s *store) restore(key datastore.Key, value []byte) bool {
	var env recpb.Record
	if proto.Unmarshal(value, &env) != nil || storeKey(env.GetKey()) != key {
		return false
	}
	rec, _, _, err := parseRecord(env.GetValue())
	if _, kerr := parseRecordKey(string(env.GetKey())); err != nil || kerr != nil || rec.checkLife(s.now()) != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.records) >= maxRecords {
		return false
	}
	s.records[key] = stored{value: append([]byte(nil), value...), at: position(key), until: rec.Expires}
	return true
}

// takeChanges returns what changed since the last call.
func (s *store) takeChanges() []journal.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := make([]journal.Entry, 0, len(s.changed))
	for key := range s.changed {
		entries = append(entries, journal.Entry{Key: key.String(), Value: s.records[key].value})
	}
	clear(s.changed)
	return entries
}

// keepChanges takes back what could not be written.
func (s *store) keepChanges(entries []journal.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		s.touch(datastore.RawKey(e.Key))
	}
}
