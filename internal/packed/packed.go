// Package packed reads MessagePack that a stranger sent. It is the library's
// decoder behind one rule: a length, a count or a depth is checked against
// what was received and what the caller allows before anything is allocated
// for it, so a header that announces 4 GiB costs nothing.
//
//	r := packed.NewReader(frame)
//	n, err := r.Array(8)        // at most 8 elements
//	name, err := r.String(255)  // at most 255 bytes of UTF-8
//	err = r.Skip()              // an element this version does not know
package packed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// Bounds of a skipped value: how deep it may nest and how many elements one
// of its arrays or maps may have.
const (
	MaxDepth = 8
	MaxCount = 64
)

// ErrMalformed is matched by every error of a Reader.
var ErrMalformed = errors.New("malformed msgpack")

// Reader reads values from a slice, one after another. It must not be used
// concurrently. After an error it must not be used again.
type Reader struct {
	src bytes.Reader
	dec *msgpack.Decoder
}

// NewReader returns a Reader of b, which it does not copy or change.
func NewReader(b []byte) *Reader {
	r := &Reader{}
	r.src.Reset(b)
	r.dec = msgpack.NewDecoder(&r.src)
	return r
}

// Reset makes the Reader read b, so that one can serve many messages.
func (r *Reader) Reset(b []byte) {
	r.src.Reset(b)
	r.dec.ResetReader(&r.src)
}

// Len returns the number of bytes not yet read.
func (r *Reader) Len() int { return r.src.Len() }

// fail wraps err once; running out of bytes is io.ErrUnexpectedEOF.
func fail(what string, err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %s: %w", ErrMalformed, what, err)
}

// count checks an announced number of elements, each at least one byte long.
func (r *Reader) count(what string, n int, err error, most int) (int, error) {
	switch {
	case err != nil:
		return 0, fail(what, err)
	case n < 0:
		return 0, fmt.Errorf("%w: %s: nil", ErrMalformed, what)
	case n > most:
		return 0, fmt.Errorf("%w: %s of %d elements, at most %d are taken", ErrMalformed, what, n, most)
	case n > r.Len():
		return 0, fmt.Errorf("%w: %s of %d elements in %d bytes", ErrMalformed, what, n, r.Len())
	}
	return n, nil
}

// Array reads an array's header and returns its length, at most most.
func (r *Reader) Array(most int) (int, error) {
	n, err := r.dec.DecodeArrayLen()
	return r.count("array", n, err, most)
}

// Map reads a map's header and returns its number of pairs, at most most.
func (r *Reader) Map(most int) (int, error) {
	n, err := r.dec.DecodeMapLen()
	return r.count("map", n, err, most)
}

// String reads valid UTF-8 of at most most bytes. nil is not a string.
func (r *Reader) String(most int) (string, error) {
	b, err := r.raw("string", most, msgpcode.IsString)
	if err != nil {
		return "", err
	}
	if !utf8.Valid(b) {
		return "", fmt.Errorf("%w: string: not UTF-8", ErrMalformed)
	}
	return string(b), nil
}

// Bytes reads a byte string of at most most bytes and returns a copy.
func (r *Reader) Bytes(most int) ([]byte, error) { return r.raw("bytes", most, msgpcode.IsBin) }

// Exactly reads as many bytes as into has. On an error into stays as it was.
func (r *Reader) Exactly(into []byte) error {
	b, err := r.Bytes(len(into))
	if err == nil && len(b) != len(into) {
		err = fmt.Errorf("%w: bytes: %d, want %d", ErrMalformed, len(b), len(into))
	}
	if err == nil {
		copy(into, b)
	}
	return err
}

// Keyed reads a map with keys of at most size bytes, no key twice. read takes each
// key's value. The result has the keys that were there.
func (r *Reader) Keyed(size int, read func(key string) error) (map[string]bool, error) {
	n, err := r.Map(MaxCount)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, min(n, 8))
	for range n {
		key, err := r.String(size)
		if err != nil {
			return nil, err
		}
		if seen[key] {
			return nil, fmt.Errorf("%w: key %q given twice", ErrMalformed, key)
		}
		seen[key] = true
		if err := read(key); err != nil {
			return nil, fmt.Errorf("%q: %w", key, err)
		}
	}
	return seen, nil
}

func (r *Reader) raw(what string, most int, is func(byte) bool) ([]byte, error) {
	code, err := r.dec.PeekCode()
	if err != nil {
		return nil, fail(what, err)
	}
	if !is(code) {
		return nil, fmt.Errorf("%w: %s: found type code 0x%02x", ErrMalformed, what, code)
	}
	n, err := r.dec.DecodeBytesLen()
	switch {
	case err != nil:
		return nil, fail(what, err)
	case n < 0 || n > most:
		return nil, fmt.Errorf("%w: %s of %d bytes, at most %d are taken", ErrMalformed, what, n, most)
	case n > r.Len():
		return nil, fmt.Errorf("%w: %s of %d bytes, %d were received: %w", ErrMalformed, what, n, r.Len(), io.ErrUnexpectedEOF)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(&r.src, b); err != nil {
		return nil, fail(what, err)
	}
	return b, nil
}

// Uint reads a non-negative integer of at most most.
func (r *Reader) Uint(most uint64) (uint64, error) {
	code, err := r.dec.PeekCode()
	if err != nil {
		return 0, fail("integer", err)
	}
	if !msgpcode.IsFixedNum(code) && (code < msgpcode.Uint8 || code > msgpcode.Int64) {
		return 0, fmt.Errorf("%w: integer: found type code 0x%02x", ErrMalformed, code)
	}
	v, err := r.dec.DecodeUint64() // of a negative one, which only signed forms have, its two's complement
	signed := msgpcode.IsFixedNum(code) || code >= msgpcode.Int8
	switch {
	case err != nil:
		return 0, fail("integer", err)
	case signed && int64(v) < 0:
		return 0, fmt.Errorf("%w: integer %d is negative", ErrMalformed, int64(v))
	case v > most:
		return 0, fmt.Errorf("%w: integer %d, at most %d is taken", ErrMalformed, v, most)
	}
	return v, nil
}

// Bool reads true or false.
func (r *Reader) Bool() (bool, error) {
	code, err := r.dec.PeekCode()
	if err != nil {
		return false, fail("bool", err)
	}
	if code != msgpcode.True && code != msgpcode.False {
		return false, fmt.Errorf("%w: bool: found type code 0x%02x", ErrMalformed, code)
	}
	return r.dec.DecodeBool()
}

// Skip passes over one value of any kind but extensions, within MaxDepth and
// MaxCount.
func (r *Reader) Skip() error { return r.skip(MaxDepth) }

func (r *Reader) skip(depth int) error {
	if depth == 0 {
		return fmt.Errorf("%w: nested deeper than %d", ErrMalformed, MaxDepth)
	}
	code, err := r.dec.PeekCode()
	if err != nil {
		return fail("value", err)
	}
	switch {
	case msgpcode.IsFixedArray(code), code == msgpcode.Array16, code == msgpcode.Array32:
		n, err := r.Array(MaxCount)
		return r.skipMany(n, err, depth)
	case msgpcode.IsFixedMap(code), code == msgpcode.Map16, code == msgpcode.Map32:
		n, err := r.Map(MaxCount)
		return r.skipMany(2*n, err, depth)
	case msgpcode.IsString(code):
		_, err := r.raw("string", math.MaxInt, msgpcode.IsString)
		return err
	case msgpcode.IsBin(code):
		_, err := r.raw("bytes", math.MaxInt, msgpcode.IsBin)
		return err
	case msgpcode.IsExt(code):
		return fmt.Errorf("%w: extension types are not taken", ErrMalformed)
	default:
		if err := r.dec.Skip(); err != nil {
			return fail("value", err)
		}
		return nil
	}
}

func (r *Reader) skipMany(n int, err error, depth int) error {
	for ; err == nil && n > 0; n-- {
		err = r.skip(depth - 1)
	}
	return err
}
