package packed_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink/internal/packed"
)

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := msgpack.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func Example() {
	b, _ := msgpack.Marshal([]any{"file://photo.jpg", 7, true, "unknown"})
	r := packed.NewReader(b)
	n, _ := r.Array(8)
	name, _ := r.String(255)
	id, _ := r.Uint(0xffff)
	ok, _ := r.Bool()
	err := r.Skip()
	fmt.Println(n, name, id, ok, err, r.Len())
	// Output: 4 file://photo.jpg 7 true <nil> 0
}

// fault: A1
func TestAnnouncedLengthIsRefusedBeforeAllocation(t *testing.T) {
	for name, c := range map[string]struct {
		in   []byte
		read func(*packed.Reader) error
	}{
		"str32":   {[]byte{0xdb, 0xff, 0xff, 0xff, 0xff, 'x'}, func(r *packed.Reader) error { _, err := r.String(math.MaxInt); return err }},
		"bin32":   {[]byte{0xc6, 0xff, 0xff, 0xff, 0xff, 'x'}, func(r *packed.Reader) error { _, err := r.Bytes(math.MaxInt); return err }},
		"array32": {[]byte{0xdd, 0xff, 0xff, 0xff, 0xff, 1}, func(r *packed.Reader) error { _, err := r.Array(math.MaxInt); return err }},
		"map32":   {[]byte{0xdf, 0xff, 0xff, 0xff, 0xff, 1}, func(r *packed.Reader) error { _, err := r.Map(math.MaxInt); return err }},
		"skip":    {[]byte{0xc6, 0xff, 0xff, 0xff, 0xff, 'x'}, (*packed.Reader).Skip},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 100 {
			if err := c.read(packed.NewReader(c.in)); !errors.Is(err, packed.ErrMalformed) {
				t.Fatalf("%s: %v", name, err)
			}
		}
		runtime.ReadMemStats(&after)
		if per := (after.TotalAlloc - before.TotalAlloc) / 100; per > 4096 {
			t.Errorf("%s: %d bytes allocated for a refused header", name, per)
		}
	}
}

// fault: A2
func TestSkipIsBoundedInDepthAndCount(t *testing.T) {
	deep := append(bytes.Repeat([]byte{0x91}, packed.MaxDepth-1), 1)
	if err := packed.NewReader(deep).Skip(); err != nil {
		t.Errorf("nested %d deep: %v", packed.MaxDepth, err)
	}
	for name, in := range map[string][]byte{
		"too deep":  append(bytes.Repeat([]byte{0x91}, packed.MaxDepth), 1),
		"too many":  marshal(t, make([]int, packed.MaxCount+1)),
		"extension": {0xd4, 1, 1},
		"empty":     {},
		"cut":       {0x92, 1},
	} {
		if err := packed.NewReader(in).Skip(); !errors.Is(err, packed.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWrongTypesAreRefused(t *testing.T) {
	reads := map[string]func(*packed.Reader) error{
		"array":  func(r *packed.Reader) error { _, err := r.Array(9); return err },
		"map":    func(r *packed.Reader) error { _, err := r.Map(9); return err },
		"string": func(r *packed.Reader) error { _, err := r.String(9); return err },
		"bytes":  func(r *packed.Reader) error { _, err := r.Bytes(9); return err },
		"uint":   func(r *packed.Reader) error { _, err := r.Uint(9); return err },
		"bool":   func(r *packed.Reader) error { _, err := r.Bool(); return err },
	}
	values := map[string]any{"array": []int{1}, "map": map[string]int{"a": 1}, "string": "s", "bytes": []byte{1}, "uint": 3, "bool": true, "nil": nil, "float": 1.5, "negative": -4}
	for want, read := range reads {
		for got, v := range values {
			if err := read(packed.NewReader(marshal(t, v))); (err == nil) != (got == want) {
				t.Errorf("reading %s as %s: %v", got, want, err)
			}
		}
	}
}

func TestLimitsOfTheCallerHold(t *testing.T) {
	for name, err := range map[string]error{
		"string": func() error { _, err := packed.NewReader(marshal(t, strings.Repeat("a", 10))).String(9); return err }(),
		"utf-8":  func() error { _, err := packed.NewReader(marshal(t, "\xff")).String(9); return err }(),
		"bytes":  func() error { _, err := packed.NewReader(marshal(t, make([]byte, 10))).Bytes(9); return err }(),
		"uint":   func() error { _, err := packed.NewReader(marshal(t, 10)).Uint(9); return err }(),
		"array":  func() error { _, err := packed.NewReader(marshal(t, make([]int, 10))).Array(9); return err }(),
	} {
		if !errors.Is(err, packed.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := packed.NewReader([]byte{0xa3, 'a'}).String(9); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut string: %v", err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(marshal(f, []any{"a", 1, true, []byte("b"), map[string]any{"k": []int{1, 2}}}))
	f.Add([]byte{0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, read := range []func(*packed.Reader) error{
			(*packed.Reader).Skip,
			func(r *packed.Reader) error { _, err := r.String(1 << 20); return err },
			func(r *packed.Reader) error { _, err := r.Bytes(1 << 20); return err },
			func(r *packed.Reader) error { _, err := r.Uint(math.MaxUint64); return err },
			func(r *packed.Reader) error { _, err := r.Bool(); return err },
		} {
			r := packed.NewReader(b)
			if err := read(r); err != nil && !errors.Is(err, packed.ErrMalformed) {
				t.Fatalf("error of another kind: %v", err)
			}
			if r.Len() > len(b) {
				t.Fatal("grew")
			}
		}
	})
}
