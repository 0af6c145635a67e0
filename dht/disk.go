package dht

import (
	"bytes"
	"context"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"github.com/ipfs/go-datastore"
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"google.golang.org/protobuf/proto"

	"peerlink/internal/pause"
)

// What stands in DataDir beside the node's key. A record's file is named by the
// base32 of its key; it has a CRC-32C of that name and the value, big-endian, and
// the value, which is the library's envelope.
const (
	recordsDir = "records"
	unfinished = "unfinished" // in recordsDir: the file that is being written
	lockFile   = "lock"
)

// Bounds of what is on disk.
const (
	maxFileLen = maxRecordLen + 256 // with the library's envelope and the checksum
	flushEvery = time.Second
	flushLogs  = 10 * time.Minute // between complaints about the disk
)

// disk keeps a server's records over a restart. What changed is written a second
// later, off the path of requests; a kill costs that second, and those records
// are at other nodes too. Nothing is synced: a power cut may cost the last seconds.
// run owns it.
type disk struct {
	lock   *flock.Flock
	dir    string // of the records
	values *store
	log    *slog.Logger
	nagged time.Time
}

// openDisk takes the folder for this process, and reads its records into values.
func openDisk(dir string, values *store, log *slog.Logger) (*disk, error) {
	d := &disk{dir: filepath.Join(dir, recordsDir), values: values, log: log}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, fmt.Errorf("dht: make data folder: %w", err)
	}
	d.lock = flock.New(filepath.Join(dir, lockFile), flock.SetPermissions(0o600))
	switch ok, err := d.lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("dht: lock data folder %s: %w", dir, err)
	case !ok:
		return nil, fmt.Errorf("dht: another node runs with data folder %s: stop it, or give this one a folder of its own", dir)
	}
	if err := d.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("dht: read stored records: %w", err), d.lock.Unlock())
	}
	return d, nil
}

// load reads the records. The next flush deletes the files that are of no use:
// records that are over, and damaged ones. What is no record's file is left alone.
func (d *disk) load() error {
	if err := os.Remove(filepath.Join(d.dir, unfinished)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // what a kill left, or a link that a write would follow
	}
	folder, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	var read, damaged, foreign int
	over := make(map[datastore.Key]bool)
	for {
		files, err := folder.ReadDir(256) // the whole folder may be of any length
		for _, f := range files {
			key, ok := keyOf(f.Name())
			if !ok || !f.Type().IsRegular() {
				foreign++
				continue
			}
			value, err := d.read(f.Name())
			if err != nil {
				damaged++
				d.log.Debug("dht: a stored record is damaged", "file", f.Name(), "err", err)
			}
			if (err != nil || !d.values.restore(key, value)) && len(over) < maxRecords {
				over[key] = true // more of them wait for the next start
			}
			read++
		}
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	if damaged+foreign > 0 {
		d.log.Warn("dht: stored records: some were damaged and left out, or are no records", "folder", d.dir, "damaged", damaged, "foreign", foreign)
	}
	d.log.Debug("dht: records read", "folder", d.dir, "records", read, "over", len(over))
	d.values.mu.Lock()
	defer d.values.mu.Unlock()
	d.values.changed = over
	return nil
}

func keyOf(name string) (datastore.Key, bool) {
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(name)
	key := storeKey(raw)
	return key, err == nil && key.BaseNamespace() == name
}

var errDamaged = errors.New("its checksum does not fit")

func (d *disk) read(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(d.dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileLen+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) < crc32.Size || len(b) > maxFileLen || !bytes.Equal(b[:crc32.Size], checksum(name, b[crc32.Size:])):
		return nil, errDamaged
	}
	return b[crc32.Size:], nil
}

func checksum(name string, value []byte) []byte {
	sum := crc32.Checksum([]byte(name), castagnoli)
	return binary.BigEndian.AppendUint32(nil, crc32.Update(sum, castagnoli, value))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// write makes or replaces the file of a record, or deletes it where value is nil.
// A kill leaves the old file or the new one.
func (d *disk) write(key datastore.Key, value []byte) error {
	path, half := filepath.Join(d.dir, key.BaseNamespace()), filepath.Join(d.dir, unfinished)
	if value == nil {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.WriteFile(half, append(checksum(key.BaseNamespace(), value), value...), 0o600); err != nil {
		return err
	}
	return os.Rename(half, path)
}

// run writes what changed until ctx is done.
func (d *disk) run(ctx context.Context) {
	for pause.For(ctx, flushEvery) == nil {
		d.flush()
	}
}

// flush writes what changed since the last time. What cannot be written is tried
// again the next time, and costs the others nothing.
func (d *disk) flush() {
	changes := d.values.takeChanges()
	var failed error
	for key, value := range changes {
		if err := d.write(key, value); err != nil {
			failed = err
		} else {
			delete(changes, key)
		}
	}
	if failed == nil {
		return
	}
	d.values.keepChanges(changes)
	if now := time.Now(); now.Sub(d.nagged) > flushLogs {
		d.nagged = now
		d.log.Warn("dht: records are kept in memory only", "records", len(changes), "err", failed)
	}
}

// close writes what is left and gives the folder free. run must have ended.
func (d *disk) close() error {
	d.flush()
	return d.lock.Unlock()
}

// restore puts back a record from disk and reports whether it is still good. Its
// signatures are not checked again: the peer that is given it does that.
func (s *store) restore(key datastore.Key, value []byte) bool {
	var env recpb.Record
	if proto.Unmarshal(value, &env) != nil || storeKey(env.GetKey()) != key {
		return false
	}
	rec, _, _, err := parseRecord(env.GetValue())
	id, kerr := parseRecordKey(string(env.GetKey()))
	if err != nil || kerr != nil || checkLife("record", rec.Published, rec.Expires, maxRecordLife, s.now()) != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.records) >= maxRecords {
		return false
	}
	s.records[key] = &stored{
		value: append([]byte(nil), value...), at: position(key), until: rec.Expires,
		writer: fromDisk, charge: s.written.add(fromDisk, 1), in: absent, device: id,
	}
	s.used[absent]++
	return true
}

// takeChanges returns what changed since the last call; nil was deleted.
func (s *store) takeChanges() map[datastore.Key][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	changes := make(map[datastore.Key][]byte, len(s.changed))
	for key := range s.changed {
		changes[key] = nil
		if r := s.records[key]; r != nil {
			changes[key] = r.value
		}
	}
	clear(s.changed)
	return changes
}

// keepChanges takes back what could not be written. A flood while the disk is full
// would lengthen the list for ever: files that stay too long are found at the next start.
func (s *store) keepChanges(changes map[datastore.Key][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range changes {
		if len(s.changed) < 2*maxRecords {
			s.changed[key] = true
		}
	}
}
