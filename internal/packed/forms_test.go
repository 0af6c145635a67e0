package packed

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// pack makes an array that must come about.
func pack(t testing.TB, values ...any) []byte {
	t.Helper()
	b, err := Pack(values...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPackIsCompact(t *testing.T) {
	want := []byte{0x95, 0x01, 0xcd, 0x01, 0x00, 0xa1, 'x', 0xc4, 0x02, 1, 2, 0xc3}
	if b := pack(t, uint64(1), 256, "x", []byte{1, 2}, true); !bytes.Equal(b, want) {
		t.Errorf("% x, want % x", b, want)
	}
	if _, err := Pack(make(chan int)); err == nil {
		t.Error("a channel was packed")
	}
}

func TestKnownElementsMustBeThereAndLaterOnesArePassedOver(t *testing.T) {
	for n := range 4 + MaxMore {
		values := make([]any, n)
		for i := range values {
			values[i] = i
		}
		f := NewFields(pack(t, values...), 2)
		a, b := f.Uint(9), f.Uint(9)
		more := f.More()
		err := f.End()
		if ok := n >= 2 && n <= 2+MaxMore; ok != (err == nil) || !ok && !errors.Is(err, ErrMalformed) {
			t.Errorf("%d elements: %v", n, err)
		} else if ok && (a != 0 || b != 1 || more != (n > 2)) {
			t.Errorf("%d elements: %d, %d, more %v", n, a, b, more)
		}
	}
	if err := NewFields(append(pack(t, 1), 2), 1).End(); !errors.Is(err, ErrMalformed) {
		t.Errorf("a byte follows: %v", err)
	}
	if err := NewFields(nil, 1).End(); !errors.Is(err, ErrMalformed) {
		t.Errorf("nothing: %v", err)
	}
}

func TestAfterTheFirstErrorFieldsAreZero(t *testing.T) {
	first := errors.New("the caller's")
	f := NewFields(pack(t, "a", "b", 3), 3)
	if s := f.String(1); s != "a" {
		t.Errorf("%q", s)
	}
	f.Fail(nil)
	f.Fail(first)
	f.Fail(errors.New("a later one"))
	into := [1]byte{7}
	f.Exactly(into[:])
	if f.String(1) != "" || f.Uint(9) != 0 || f.Bytes(1) != nil || f.Blobs(1, 1) != nil || f.Strings(1, 1) != nil || f.More() || into[0] != 7 {
		t.Error("something was read after an error")
	}
	if f.Err() != first || f.End() != first {
		t.Errorf("%v, want the first", f.Err())
	}
}

func TestKeysComeOnceEach(t *testing.T) {
	for name, c := range map[string]struct {
		in  string
		err bool
	}{
		"two keys":    {"\x82\xa1k\x01\xa1i\x02", false},
		"none":        {"\x80", false},
		"one twice":   {"\x82\xa1k\x01\xa1k\x02", true},
		"a long key":  {"\x81\xa5abcde\x01", true},
		"a number":    {"\x01", true},
		"a bad value": {"\x81\xa1k\xa1x", true},
		"cut":         {"\x82\xa1k\x01", true},
	} {
		r, sum := NewReader([]byte(c.in)), uint64(0)
		seen, err := r.Keyed(4, func(string) error {
			v, err := r.Uint(9)
			sum += v
			return err
		})
		if (err != nil) != c.err || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		if name == "two keys" && (!seen["k"] || !seen["i"] || len(seen) != 2 || sum != 3) {
			t.Errorf("%v, %d", seen, sum)
		}
	}
}

func TestExactlyTakesNoOtherLength(t *testing.T) {
	for n := range 6 {
		var into [4]byte
		f := NewFields(pack(t, bytes.Repeat([]byte{7}, n)), 1)
		f.Exactly(into[:])
		if err := f.End(); (n == 4) != (err == nil) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if want := map[bool][4]byte{true: {7, 7, 7, 7}}[n == 4]; into != want {
			t.Errorf("%d bytes: %x", n, into)
		}
	}
}

func TestListsAreBounded(t *testing.T) {
	blobs, strs := [][]byte{{1}, {}, {2, 3}}, []string{"", "ab"}
	b := pack(t, blobs, strs)
	f := NewFields(b, 2)
	if got := fmt.Sprint(f.Blobs(3, 2), f.Strings(2, 2)); f.End() != nil || got != fmt.Sprint(blobs, strs) {
		t.Errorf("%s, %v", got, f.Err())
	}
	for _, bound := range [][4]int{{2, 2, 2, 2}, {3, 1, 2, 2}, {3, 2, 1, 2}, {3, 2, 2, 1}} {
		f := NewFields(b, 2)
		f.Blobs(bound[0], bound[1])
		f.Strings(bound[2], bound[3])
		if err := f.End(); !errors.Is(err, ErrMalformed) {
			t.Errorf("within %v: %v", bound, err)
		}
	}
}

func FuzzSigned(f *testing.F) {
	f.Add(pack(f, []byte("statement"), []byte("sig")))
	f.Add(pack(f, []byte("statement")))
	f.Add(append(pack(f, []byte("statement"), []byte("sig")), 0))
	f.Add(pack(f, []byte("statement"), []byte("sig"), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		statement, signature, err := Signed(b, 16, 8)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%v", err)
			}
			return
		}
		if len(statement) > 16 || len(signature) > 8 {
			t.Errorf("%d and %d bytes", len(statement), len(signature))
		}
		s2, sig2, err := Signed(pack(t, statement, signature), 16, 8)
		if err != nil || !bytes.Equal(s2, statement) || !bytes.Equal(sig2, signature) {
			t.Errorf("packed again: %x, %x, %v", s2, sig2, err)
		}
	})
}
