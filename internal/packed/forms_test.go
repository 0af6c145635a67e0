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
	for n := range 3 + MaxMore {
		r := NewReader(pack(t, make([]any, n)...))
		more, err := r.Known(2)
		if ok := n >= 2 && n <= 2+MaxMore; ok != (err == nil) || !ok && !errors.Is(err, ErrMalformed) {
			t.Errorf("%d elements: %v", n, err)
		} else if ok {
			if more != n-2 {
				t.Errorf("%d elements: %d more", n, more)
			}
			if err := r.End(n); err != nil {
				t.Errorf("%d elements: %v", n, err)
			}
		}
	}
	r := NewReader(append(pack(t, 1), 2))
	if _, err := r.Known(1); err != nil {
		t.Fatal(err)
	}
	if err := r.End(1); !errors.Is(err, ErrMalformed) {
		t.Errorf("a byte follows: %v", err)
	}
	if err := NewReader(nil).End(1); !errors.Is(err, ErrMalformed) {
		t.Errorf("an element is missing: %v", err)
	}
}

func TestExactlyTakesNoOtherLength(t *testing.T) {
	for n := range 6 {
		var into [4]byte
		r := NewReader(pack(t, bytes.Repeat([]byte{7}, n)))
		if _, err := r.Array(1); err != nil {
			t.Fatal(err)
		}
		err := r.Exactly(into[:])
		if (n == 4) != (err == nil) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if n == 4 && into != [4]byte{7, 7, 7, 7} {
			t.Errorf("%x", into)
		}
	}
}

func TestBlobsAreBounded(t *testing.T) {
	blobs := [][]byte{{1}, {}, {2, 3}}
	got, err := NewReader(pack(t, []byte{1}, []byte{}, []byte{2, 3})).Blobs(3, 2)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(blobs) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bound := range [][2]int{{2, 2}, {3, 1}} {
		if _, err := NewReader(pack(t, []byte{1}, []byte{}, []byte{2, 3})).Blobs(bound[0], bound[1]); !errors.Is(err, ErrMalformed) {
			t.Errorf("within %v: %v", bound, err)
		}
	}
}

func FuzzSigned(f *testing.F) {
	f.Add(pack(f, []byte("statement"), []byte("sig")))
	f.Add(pack(f, []byte("statement")))
	f.Add(append(pack(f, []byte("statement"), []byte("sig")), 0))
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
