package parcel

import (
	"fmt"
	"io"
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
	*packed.Fields
	cut error // the channel ended in the middle
}

// fields begins to read the body of n bytes of a message of so many elements or
// more.
func (w *wire) fields(n, known int) *fields {
	body := make([]byte, n)
	_, err := io.ReadFull(w.br, body)
	if err != nil {
		body, err = nil, unexpected(err)
	}
	return &fields{packed.NewFields(body, known), err}
}

// done returns what was wrong.
func (f *fields) done() error {
	if f.cut != nil {
		return f.cut
	}
	if err := f.End(); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

// sum reads a sum, or no bytes.
func (f *fields) sum() (s digest.Sum, there bool) {
	b := f.Bytes(digest.Size)
	if len(b) != 0 && len(b) != digest.Size {
		f.Fail(fmt.Errorf("%d bytes, want %d", len(b), digest.Size))
		b = nil
	}
	return digest.Sum(append(b, s[len(b):]...)), len(b) > 0
}

// offer is the sender's first message.
type offer struct {
	version uint64
	id      [16]byte
	entries uint64
	bytes   uint64
	names   []string
	lists   bool // it tells its entries before an answer
}

func (o offer) elems() []any {
	e := []any{uint64(version), o.id[:], o.entries, o.bytes, append([]string{}, o.names...)}
	if o.lists {
		e = append(e, true)
	}
	return e
}

func (w *wire) readOffer(n int) (o offer, err error) {
	f := w.fields(n, 5)
	o.version = f.Uint(math.MaxUint32)
	f.Exactly(o.id[:])
	o.entries = f.Uint(maxSize)
	o.bytes = f.Uint(maxSize)
	o.names = f.Strings(maxNames, inbox.MaxNameLen)
	o.lists = f.More() && f.Bool()
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
	e.index = f.Uint(maxSize)
	e.path = f.Strings(inbox.MaxDepth, maxMessage) // what is too long fails alone
	e.folder = f.Bool()
	e.size = f.Uint(maxSize)
	e.modified = f.Uint(maxSize)
	e.executable = f.Bool()
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
	m.index = f.Uint(maxSize)
	m.offset = f.Uint(maxSize)
	var there bool
	m.sum, there = f.sum()
	if f.Err() == nil && there != (m.offset > 0) {
		f.Fail(fmt.Errorf("offset %d and a sum: %v", m.offset, there))
	}
	return m, f.done()
}

// readIndex reads a message of an index and, if it has one, a text.
func (w *wire) readIndex(n int) (index uint64, err error) {
	f := w.fields(n, 1)
	return f.Uint(maxSize), f.done()
}

func (w *wire) readReason(n int) (index uint64, reason string, err error) {
	f := w.fields(n, 2)
	return f.Uint(maxSize), f.String(maxReason), f.done()
}
