// Package reach remembers, in one small file, under which addresses others were
// reached, so that they can be tried first and without asking anybody.
//
//	b, err := reach.Open(path)
//	if err != nil { … }                       // b is empty and works all the same
//	b.Worked("alice", reach.Via{ID: node, Addrs: addrs}, time.Now())
//	for _, v := range b.Known("alice", time.Now()) { … } // the latest first
//	err = b.Save()
//
// What it returns is a place to try, never a proof of who is there.
package reach

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"peerlink/internal/atomicfile"
)

// Bounds of a book.
const (
	maxFile   = 2 << 20
	maxNames  = 256 // of others; the one that was reached longest ago goes first
	maxVias   = 16  // of one name, likewise
	maxAddrs  = 8
	maxText   = 512                 // bytes of a name, an id or an address
	life      = 30 * 24 * time.Hour // of an address after it worked last
	maxAhead  = time.Hour           // what is from farther in the future is from a wrong clock
	precision = time.Hour           // how exactly times are kept: not every success is news
)

// Via is one way that worked.
type Via struct {
	// ID says who answers there, where one knows.
	ID string `json:"id,omitempty"`
	// Addrs are where; at most 8, the others are dropped.
	Addrs []string `json:"addrs"`
	// Worked is when it did last, to the hour.
	Worked time.Time `json:"worked"`
}

// Book is what is remembered. Its methods may be called concurrently; none but
// Save blocks.
type Book struct {
	path string

	saving sync.Mutex // one Save at a time; taken before mu

	mu    sync.Mutex
	names map[string][]Via // the latest first
	dirty bool
}

// Open reads a book. A file that is not there is an empty book. With an error,
// which says what is wrong with the file, the book is empty too, and Save will
// replace the file.
func Open(path string) (*Book, error) {
	b := &Book{path: path, names: make(map[string][]Via)}
	names, err := read(path)
	if err != nil {
		return b, fmt.Errorf("what is remembered in %s cannot be read and is forgotten: %w", path, err)
	}
	now := time.Now()
	for name, vias := range names {
		for _, v := range slices.Backward(vias) {
			if v.check() == nil && checkText(name) == nil && v.fresh(now) {
				b.put(name, v)
			}
		}
	}
	b.dirty = false
	return b, nil
}

// read reads the file and believes nothing but its shape.
func read(path string) (map[string][]Via, error) {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("it is not a regular file (%v)", st.Mode().Type())
	case st.Size() > maxFile:
		return nil, fmt.Errorf("it has %d bytes, at most %d are read", st.Size(), maxFile)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parse(raw)
}

func parse(raw []byte) (names map[string][]Via, err error) {
	if len(raw) > maxFile {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(raw), maxFile)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&names); err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, errors.New("something follows the end")
	}
	return names, nil
}

// check refuses what cannot be an address.
func (v Via) check() error {
	if len(v.Addrs) == 0 || len(v.Addrs) > maxAddrs {
		return fmt.Errorf("%d addresses", len(v.Addrs))
	}
	for _, s := range append([]string{v.ID}, v.Addrs...) {
		if err := checkText(s); err != nil {
			return err
		}
	}
	return nil
}

func checkText(s string) error {
	if len(s) > maxText || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%.80q", s)
	}
	return nil
}

func (v Via) fresh(now time.Time) bool {
	age := now.Sub(v.Worked)
	return age <= life && age >= -maxAhead
}

// Worked notes that name was reached by v at that time. A way with the same id,
// or without one the same address, takes the place of the old one. What is no
// address is left out.
func (b *Book) Worked(name string, v Via, now time.Time) {
	v.Addrs = slices.Clone(v.Addrs[:min(len(v.Addrs), maxAddrs)])
	v.Worked = now.Truncate(precision)
	if v.check() != nil || checkText(name) != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.put(name, v)
}

// put adds v as the latest of name. The caller holds mu.
func (b *Book) put(name string, v Via) {
	vias := b.names[name]
	i := slices.IndexFunc(vias, v.same)
	if i == 0 && vias[0].Worked.Equal(v.Worked) && slices.Equal(vias[0].Addrs, v.Addrs) {
		return
	}
	if i >= 0 {
		vias = slices.Delete(vias, i, i+1)
	}
	vias = slices.Insert(vias, 0, v)
	b.names[name] = vias[:min(len(vias), maxVias)]
	b.dirty = true
	if len(b.names) > maxNames {
		b.forgetOldest(name)
	}
}

func (v Via) same(o Via) bool {
	if v.ID != "" || o.ID != "" {
		return v.ID == o.ID
	}
	return slices.Equal(v.Addrs, o.Addrs)
}

// forgetOldest drops the name, but not this one, that was reached longest ago.
func (b *Book) forgetOldest(but string) {
	oldest, found := "", false
	for name, vias := range b.names {
		if name != but && (!found || vias[0].Worked.Before(b.names[oldest][0].Worked)) {
			oldest, found = name, true
		}
	}
	delete(b.names, oldest)
}

// Failed forgets a way that does not work any more.
func (b *Book) Failed(name string, v Via) {
	b.mu.Lock()
	defer b.mu.Unlock()
	vias := slices.DeleteFunc(b.names[name], v.same)
	if len(vias) == len(b.names[name]) {
		return
	}
	b.dirty = true
	if b.names[name] = vias; len(vias) == 0 {
		delete(b.names, name)
	}
}

// Known returns the ways to name that worked within the book's life, the latest
// first.
func (b *Book) Known(name string, now time.Time) []Via {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Via
	for _, v := range b.names[name] {
		if v.fresh(now) {
			v.Addrs = slices.Clone(v.Addrs)
			out = append(out, v)
		}
	}
	return out
}

// Names returns whom the book knows.
func (b *Book) Names() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Keys(b.names))
}

// Save writes the book, whole or not at all, mode 0600, if it has changed. It
// blocks for the disk.
func (b *Book) Save() error {
	b.saving.Lock()
	defer b.saving.Unlock()
	raw, err := b.encode(time.Now())
	if err != nil || raw == nil {
		return err
	}
	if err := atomicfile.Write(b.path, raw); err != nil {
		b.mu.Lock()
		b.dirty = true
		b.mu.Unlock()
		return fmt.Errorf("remember addresses: %w", err)
	}
	return nil
}

// encode writes what is fresh; nil if nothing has changed.
func (b *Book) encode(now time.Time) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.dirty {
		return nil, nil
	}
	for name, vias := range b.names {
		vias = slices.DeleteFunc(vias, func(v Via) bool { return !v.fresh(now) })
		if b.names[name] = vias; len(vias) == 0 {
			delete(b.names, name)
		}
	}
	raw, err := json.MarshalIndent(b.names, "", " ")
	if err == nil && len(raw) > maxFile {
		err = fmt.Errorf("remember addresses: %d bytes, at most %d can be read back", len(raw), maxFile)
	}
	b.dirty = err != nil
	return append(raw, '\n'), err
}
