package packed

import (
	"bytes"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
)

// MaxMore is how many elements an array may have beyond the known ones.
const MaxMore = 8

// Pack writes its arguments as one array, integers as short as possible. It fails
// for values that msgpack has no form for.
func Pack(values ...any) ([]byte, error) {
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	enc.UseCompactInts(true)
	if err := enc.EncodeArrayLen(len(values)); err != nil {
		return nil, err
	}
	for _, v := range values {
		if err := enc.Encode(v); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// Known reads the header of an array that has at least known elements. It returns
// how many a later version has added, at most MaxMore: what End passes over.
func (r *Reader) Known(known int) (more int, err error) {
	n, err := r.Array(known + MaxMore)
	if err == nil && n < known {
		err = fmt.Errorf("%w: array of %d elements, want %d", ErrMalformed, n, known)
	}
	return n - known, err
}

// End passes over more elements. Nothing may follow them.
func (r *Reader) End(more int) error {
	for ; more > 0; more-- {
		if err := r.Skip(); err != nil {
			return err
		}
	}
	if r.Len() != 0 {
		return fmt.Errorf("%w: %d bytes follow the end", ErrMalformed, r.Len())
	}
	return nil
}

// Exactly reads as many bytes as into has.
func (r *Reader) Exactly(into []byte) error {
	b, err := r.Bytes(len(into))
	if err == nil && len(b) != len(into) {
		err = fmt.Errorf("%w: bytes: %d, want %d", ErrMalformed, len(b), len(into))
	}
	copy(into, b)
	return err
}

// Blobs reads an array of at most most byte strings of at most size bytes each.
func (r *Reader) Blobs(most, size int) ([][]byte, error) {
	n, err := r.Array(most)
	if err != nil {
		return nil, err
	}
	blobs := make([][]byte, n)
	for i := range blobs {
		if blobs[i], err = r.Bytes(size); err != nil {
			return nil, err
		}
	}
	return blobs, nil
}

// Signed reads [statement, signature], which is how signed messages travel: the
// signature is over the statement's bytes as they came. Each has a length that it
// has at most.
func Signed(b []byte, mostStatement, mostSignature int) (statement, signature []byte, err error) {
	r := NewReader(b)
	n, err := r.Array(2)
	if err == nil && n != 2 {
		err = fmt.Errorf("%w: %d elements instead of a statement and its signature", ErrMalformed, n)
	}
	if err == nil {
		statement, err = r.Bytes(mostStatement)
	}
	if err == nil {
		signature, err = r.Bytes(mostSignature)
	}
	if err == nil {
		err = r.End(0)
	}
	return statement, signature, err
}
