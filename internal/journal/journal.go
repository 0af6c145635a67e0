// Package journal keeps a map of small values in one file that survives a kill
// at any instant: each entry carries a checksum, entries are only appended, and
// a file that has grown too long is replaced by a short one as a whole. It is
// for what can be fetched again: nothing is synced to the disk, so a power cut
// may cost the last seconds.
//
//	j, err := journal.Open(path, journal.Config{}, func(key string, value []byte) { … })
//	if err != nil { … }
//	err = j.Write([]journal.Entry{{Key: "a", Value: []byte("1")}, {Key: "b"}}) // b is deleted
//	err = j.Close()
//
// A journal has one owner: its methods must not run concurrently, and no other
// process may have the file open; nothing here locks it.
package journal

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2/maybe"
)

// The file, big-endian: the magic, then entries of
//
//	length:uint32 | crc32c(body):uint32 | body[length]
//	body = flags:uint8 | keyLen:uint16 | key | value
//
// where flag 1 says that the key is deleted. The last entry of a key counts.
const (
	magic   = "peerlink journal 1\n"
	headLen = 8
	bodyMin = 3
	flagDel = 1
	slack   = 1 << 20 // a file may be so much longer than twice what it holds
)

// Bounds of one entry in bytes.
const (
	MaxKeyLen   = 1 << 10
	MaxValueLen = 64 << 10
)

// Config bounds a journal.
type Config struct {
	// MaxSize is how many bytes the live entries may have in all; a file longer
	// than twice that and 1 MiB is taken for damaged. 0: 64 MiB.
	MaxSize int64
}

// Entry is a key with its value; without one (nil) the key is deleted.
type Entry struct {
	Key   string
	Value []byte
}

// Damage tells what Open found wrong and left out. It is no error: the journal
// works, with what could be read.
type Damage struct {
	// Lost is how many bytes were not understood. A torn last entry is not
	// counted: a kill leaves one.
	Lost int64
	// Aside is where a file went that was no journal at all.
	Aside string
}

// String says it in words; it is empty if nothing was wrong.
func (d Damage) String() string {
	switch {
	case d.Aside != "":
		return "it was no journal, or far too long, and was moved to " + d.Aside
	case d.Lost > 0:
		return fmt.Sprintf("%d bytes of it were damaged and left out", d.Lost)
	}
	return ""
}

// Journal is an open file of entries.
type Journal struct {
	path string
	max  int64
	f    *os.File // nil after Close, or when it could not be opened again
	size int64
	at   map[string]place // of each live key
	live int64
}

// place is where an entry lies in the file, header included.
type place struct{ offset, length int64 }

var (
	table      = crc32.MakeTable(crc32.Castagnoli)
	errClosed  = fmt.Errorf("journal: %w", fs.ErrClosed)
	errDamaged = errors.New("damaged")
)

// Open opens a journal, or makes an empty one (mode 0600, its folder too), and
// calls each for every live entry; value is not kept. What is damaged is left
// out and told. An error means that the file cannot be used.
func Open(path string, cfg Config, each func(key string, value []byte)) (*Journal, Damage, error) {
	cfg.MaxSize = cmp.Or(cfg.MaxSize, 64<<20)
	j := &Journal{path: path, max: cfg.MaxSize, at: make(map[string]place)}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, Damage{}, fmt.Errorf("journal: make its folder: %w", err)
	}
	d, err := j.load(each)
	if err != nil {
		return nil, d, fmt.Errorf("journal: open %s: %w", path, err)
	}
	return j, d, nil
}

// load opens the file and reads it.
func (j *Journal) load(each func(string, []byte)) (d Damage, err error) {
	st, err := os.Lstat(j.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d, j.create()
	case err != nil:
		return d, err
	case !st.Mode().IsRegular():
		return d, fmt.Errorf("it is not a regular file (%v)", st.Mode().Type())
	case st.Size() > 2*j.max+2*slack:
		return j.setAside()
	}
	b, err := os.ReadFile(j.path)
	if err != nil {
		return d, err
	}
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		if len(b) == 0 {
			return d, j.create()
		}
		return j.setAside()
	}
	end := j.scan(b, &d)
	if err := j.open(end); err != nil {
		return d, err
	}
	for key, p := range j.at {
		_, _, value, err := parse(b[p.offset+headLen : p.offset+p.length])
		if err != nil {
			return d, err
		}
		each(key, value)
	}
	return d, nil
}

// scan finds the live entries and where they end. After a damaged entry it goes
// on where the next one should begin, as long as lengths make sense.
func (j *Journal) scan(b []byte, d *Damage) (end int64) {
	at := int64(len(magic))
	total := int64(len(b))
	for at < total {
		if total-at < headLen {
			break // torn
		}
		n := int64(binary.BigEndian.Uint32(b[at:]))
		if n < bodyMin || n > bodyMin+MaxKeyLen+MaxValueLen {
			d.Lost += total - at
			break
		}
		if total-at-headLen < n {
			break // torn
		}
		body := b[at+headLen : at+headLen+n]
		key, deleted, value, err := parse(body)
		if crc32.Checksum(body, table) != binary.BigEndian.Uint32(b[at+4:]) {
			err = errDamaged
		}
		switch {
		case err != nil:
			d.Lost += headLen + n
		case deleted:
			j.forget(key)
		case j.room(key, headLen+n) != nil:
			d.Lost += headLen + int64(len(value))
		default:
			j.note(key, place{at, headLen + n})
		}
		at += headLen + n
	}
	return at
}

// parse takes a body apart.
func parse(body []byte) (key string, deleted bool, value []byte, err error) {
	if len(body) < bodyMin {
		return "", false, nil, errDamaged
	}
	n := int(binary.BigEndian.Uint16(body[1:]))
	if n > MaxKeyLen || bodyMin+n > len(body) || body[0]&^flagDel != 0 {
		return "", false, nil, errDamaged
	}
	return string(body[bodyMin : bodyMin+n]), body[0] == flagDel, body[bodyMin+n:], nil
}

func (j *Journal) note(key string, p place) {
	j.forget(key)
	j.at[key] = p
	j.live += p.length
}

func (j *Journal) forget(key string) {
	j.live -= j.at[key].length
	delete(j.at, key)
}

// room refuses an entry that would make the live ones too long.
func (j *Journal) room(key string, length int64) error {
	if j.live-j.at[key].length+length > j.max {
		return fmt.Errorf("the entries have %d bytes, at most %d are kept", j.live, j.max)
	}
	return nil
}

// setAside renames a file that is no journal, and begins a new one.
func (j *Journal) setAside() (Damage, error) {
	aside := j.path + ".bad"
	if err := os.Rename(j.path, aside); err != nil {
		return Damage{}, err
	}
	return Damage{Aside: aside}, j.create()
}

// create makes an empty file, whole or not at all.
func (j *Journal) create() error {
	if err := maybe.WriteFile(j.path, []byte(magic), 0o600); err != nil {
		return err
	}
	return j.open(int64(len(magic)))
}

// open opens the file for writing and cuts off what lies behind end.
func (j *Journal) open(end int64) error {
	f, err := os.OpenFile(j.path, os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Truncate(end); err != nil {
		return errors.Join(err, f.Close())
	}
	j.f, j.size = f, end
	return nil
}

// Write appends entries. It blocks for the disk. Either all of them are there
// afterwards or, with an error, the file is as it was before.
func (j *Journal) Write(entries []Entry) error {
	if j.f == nil {
		return errClosed
	}
	var b []byte
	places := make([]place, len(entries))
	live := j.live
	for i, e := range entries {
		if len(e.Key) > MaxKeyLen || len(e.Value) > MaxValueLen {
			return fmt.Errorf("journal: an entry of %d and %d bytes, at most %d and %d are kept", len(e.Key), len(e.Value), MaxKeyLen, MaxValueLen)
		}
		start := int64(len(b))
		b = appendEntry(b, e)
		places[i] = place{j.size + start, int64(len(b)) - start}
		if e.Value != nil {
			live += places[i].length // not less for what it replaces: an upper bound
		}
	}
	if live > j.max+slack {
		return fmt.Errorf("journal: %s: the entries would have %d bytes, at most %d are kept", j.path, live, j.max)
	}
	if _, err := j.f.WriteAt(b, j.size); err != nil {
		return fmt.Errorf("journal: %w", errors.Join(err, j.f.Truncate(j.size)))
	}
	j.size += int64(len(b))
	for i, e := range entries {
		if e.Value == nil {
			j.forget(e.Key)
		} else {
			j.note(e.Key, places[i])
		}
	}
	if j.size > 2*j.live+slack {
		return j.compact()
	}
	return nil
}

func appendEntry(b []byte, e Entry) []byte {
	head := len(b)
	b = append(b, make([]byte, headLen)...)
	flags := byte(0)
	if e.Value == nil {
		flags = flagDel
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(len(e.Key)))
	b = append(append(b, e.Key...), e.Value...)
	body := b[head+headLen:]
	binary.BigEndian.PutUint32(b[head:], uint32(len(body)))
	binary.BigEndian.PutUint32(b[head+4:], crc32.Checksum(body, table))
	return b
}

// compact replaces the file by one with the live entries only.
func (j *Journal) compact() error {
	b := make([]byte, 0, int64(len(magic))+j.live)
	b = append(b, magic...)
	at := make(map[string]place, len(j.at))
	for key, p := range j.at {
		start := len(b)
		b = b[:start+int(p.length)]
		if _, err := j.f.ReadAt(b[start:], p.offset); err != nil && err != io.EOF {
			return fmt.Errorf("journal: %w", err)
		}
		at[key] = place{int64(start), p.length}
	}
	_ = j.f.Close() // Windows replaces no open file
	j.f = nil
	err := maybe.WriteFile(j.path, b, 0o600)
	if err != nil { // the old file is still there
		return fmt.Errorf("journal: shorten: %w", errors.Join(err, j.open(j.size)))
	}
	j.at = at
	if err := j.open(int64(len(b))); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// Len is how many live entries there are.
func (j *Journal) Len() int { return len(j.at) }

// Close closes the file. It may be called more than once.
func (j *Journal) Close() error {
	if j.f == nil {
		return nil
	}
	f := j.f
	j.f = nil
	return f.Close()
}
