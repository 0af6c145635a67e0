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

// Fields reads the elements of an array, one after another. After the first error
// its methods return zero values; End returns that error. Make it with NewFields.
// It must not be used concurrently.
type Fields struct {
	r    *Reader
	left int
	err  error
}

// NewFields begins to read the array that b is. It may have MaxMore elements more
// than the known ones. An element that is missing is an error when it is read.
func NewFields(b []byte, known int) *Fields {
	r := NewReader(b)
	n, err := r.Array(known + MaxMore)
	return &Fields{r, n, err}
}

func field[T any](f *Fields, read func() (T, error)) (v T) {
	if f.err == nil && f.left == 0 {
		f.err = fmt.Errorf("%w: array of too few elements", ErrMalformed)
	}
	if f.err != nil {
		return v
	}
	f.left--
	got, err := read()
	if err != nil {
		f.err = err
		return v
	}
	return got
}

// Uint reads an integer from 0 to most.
func (f *Fields) Uint(most uint64) uint64 {
	return field(f, func() (uint64, error) { return f.r.Uint(most) })
}

// Bool reads a truth value.
func (f *Fields) Bool() bool { return field(f, f.r.Bool) }

// String reads valid UTF-8 of at most most bytes.
func (f *Fields) String(most int) string {
	return field(f, func() (string, error) { return f.r.String(most) })
}

// Bytes reads at most most bytes.
func (f *Fields) Bytes(most int) []byte {
	return field(f, func() ([]byte, error) { return f.r.Bytes(most) })
}

// Exactly reads as many bytes as into has. On an error into stays as it was.
func (f *Fields) Exactly(into []byte) {
	field(f, func() (struct{}, error) { return struct{}{}, f.r.Exactly(into) })
}

// Blobs reads an array of at most most byte strings of at most size bytes each.
func (f *Fields) Blobs(most, size int) [][]byte {
	return list(f, most, func() ([]byte, error) { return f.r.Bytes(size) })
}

// Strings reads an array of at most most strings of at most size bytes each.
func (f *Fields) Strings(most, size int) []string {
	return list(f, most, func() (string, error) { return f.r.String(size) })
}

func list[T any](f *Fields, most int, read func() (T, error)) []T {
	return field(f, func() ([]T, error) {
		n, err := f.r.Array(most)
		if err != nil {
			return nil, err
		}
		out := make([]T, n)
		for i := range out {
			if out[i], err = read(); err != nil {
				return nil, err
			}
		}
		return out, nil
	})
}

// More reports whether another element is there.
func (f *Fields) More() bool { return f.err == nil && f.left > 0 }

// Fail ends the reading with the caller's own error, unless it has ended already;
// nil is no error.
func (f *Fields) Fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

// Err returns the first error so far.
func (f *Fields) Err() error { return f.err }

// End passes over the elements that were not read, which a later version has
// added, and returns the first error. Nothing may follow them.
func (f *Fields) End() error {
	for ; f.More(); f.left-- {
		f.err = f.r.Skip()
	}
	if f.err == nil && f.r.Len() != 0 {
		f.err = fmt.Errorf("%w: %d bytes follow the end", ErrMalformed, f.r.Len())
	}
	return f.err
}

// Signed reads [statement, signature], which is how signed messages travel: the
// signature is over the statement's bytes as they came. Each has a length that it
// has at most.
func Signed(b []byte, mostStatement, mostSignature int) (statement, signature []byte, err error) {
	f := NewFields(b, 2)
	statement, signature = f.Bytes(mostStatement), f.Bytes(mostSignature)
	if f.More() {
		f.Fail(fmt.Errorf("%w: more than a statement and its signature", ErrMalformed))
	}
	if err := f.End(); err != nil {
		return nil, nil, err
	}
	return statement, signature, nil
}
