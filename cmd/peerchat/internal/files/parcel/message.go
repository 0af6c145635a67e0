package parcel

import (
	"fmt"
	"math"

	"peerlink/cmd/peerchat/internal/files/digest"
	"peerlink/cmd/peerchat/internal/files/inbox"
	"peerlink/internal/packed"
)

// maxSize is the largest size on the wire, in bytes.
const maxSize = 1 << 62

// fields reads a message's elements one after another; after the first that is
// wrong all are zero.
type fields struct {
	p   *packed.Reader
	err error
}

func (w *wire) fields(n, want int) *fields {
	p, err := w.message(n, want)
	return &fields{p, err}
}

// done returns what was wrong.
func (f *fields) done() error {
	if f.err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, f.err)
	}
	return nil
}

func (f *fields) uint(most uint64) (v uint64) {
	if f.err == nil {
		v, f.err = f.p.Uint(most)
	}
	return v
}

func (f *fields) bool() (v bool) {
	if f.err == nil {
		v, f.err = f.p.Bool()
	}
	return v
}

func (f *fields) string(most int) (v string) {
	if f.err == nil {
		v, f.err = f.p.String(most)
	}
	return v
}

func (f *fields) strings(most, each int) (v []string) {
	if f.err != nil {
		return nil
	}
	n, err := f.p.Array(most)
	f.err = err
	for range n {
		v = append(v, f.string(each))
	}
	return v
}

// bytes reads exactly n bytes, or none.
func (f *fields) bytes(n int) (v []byte) {
	if f.err == nil {
		v, f.err = f.p.Bytes(n)
	}
	if f.err == nil && len(v) != 0 && len(v) != n {
		f.err = fmt.Errorf("%d bytes, want %d", len(v), n)
	}
	return v
}

func (f *fields) sum() (s digest.Sum, there bool) {
	b := f.bytes(digest.Size)
	return digest.Sum(append(b, s[len(b):]...)), len(b) > 0
}

// offer is the sender's first message.
type offer struct {
	version uint64
	id      [16]byte
	entries uint64
	bytes   uint64
	names   []string
}

func (o offer) elems() []any {
	return []any{uint64(version), o.id[:], o.entries, o.bytes, append([]string{}, o.names...)}
}

func (w *wire) readOffer(n int) (o offer, err error) {
	f := w.fields(n, 5)
	o.version = f.uint(math.MaxUint32)
	copy(o.id[:], f.bytes(len(o.id)))
	o.entries = f.uint(maxSize)
	o.bytes = f.uint(maxSize)
	o.names = f.strings(maxNames, inbox.MaxNameLen)
	return o, f.done()
}

// entry announces a file or folder.
type entry struct {
	index      uint64
	path       []string
	folder     bool
	size       uint64
	modified   uint64 // ms since 1970; 0: not known
	executable bool
}

func (e entry) elems() []any {
	return []any{e.index, e.path, e.folder, e.size, e.modified, e.executable}
}

func (w *wire) readEntry(n int) (e entry, err error) {
	f := w.fields(n, 6)
	e.index = f.uint(maxSize)
	e.path = f.strings(inbox.MaxDepth, maxMessage) // what is too long fails alone
	e.folder = f.bool()
	e.size = f.uint(maxSize)
	e.modified = f.uint(maxSize)
	e.executable = f.bool()
	return e, f.done()
}

// want is what a receiver has of an entry, and wants the rest of.
type want struct {
	index  uint64
	offset uint64
	sum    digest.Sum
}

func (m want) elems() []any {
	if m.offset == 0 {
		return []any{m.index, uint64(0), []byte{}}
	}
	return []any{m.index, m.offset, m.sum[:]}
}

func (w *wire) readWant(n int) (m want, err error) {
	f := w.fields(n, 3)
	m.index = f.uint(maxSize)
	m.offset = f.uint(maxSize)
	var there bool
	m.sum, there = f.sum()
	if f.err == nil && there != (m.offset > 0) {
		f.err = fmt.Errorf("offset %d and a sum: %v", m.offset, there)
	}
	return m, f.done()
}

// readIndex reads a message of an index and, if it has one, a text.
func (w *wire) readIndex(n int) (index uint64, err error) {
	f := w.fields(n, 1)
	return f.uint(maxSize), f.done()
}

func (w *wire) readReason(n int) (index uint64, reason string, err error) {
	f := w.fields(n, 2)
	return f.uint(maxSize), f.string(maxReason), f.done()
}
