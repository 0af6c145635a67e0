package multiplex

import (
	"errors"
	"strings"
	"testing"

	"peerlink/internal/packed"
)

func TestReasonsAreCutOnTheEdgeOfARune(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{strings.Repeat("x", 255), strings.Repeat("x", 255)},
		{strings.Repeat("x", 256), strings.Repeat("x", 255)},
		{strings.Repeat("é", 128), strings.Repeat("é", 127)},
		{strings.Repeat("x", 253) + "𝄞", strings.Repeat("x", 253)},
		{"\xff", "\ufffd"},
		{strings.Repeat("\xff", 300), "\ufffd"},
	} {
		m, err := decodeMessage(packed.NewReader(encodeGoingAway(1, c.in)))
		if err != nil || m.reason != c.want {
			t.Errorf("%.20q… is told as %q, %v", c.in, m.reason, err)
		}
	}
}

func TestNamesAreChecked(t *testing.T) {
	for name, ok := range map[string]bool{
		"chat://bob": true, "日本": true, strings.Repeat("x", 255): true, "../x": true,
		"": false, strings.Repeat("x", 256): false, "\xff": false, "a\x00": false, "a\u0085": false, "a\u200f": false, "\u2067": false,
	} {
		if err := CheckName(name); (err == nil) != ok || err != nil && !errors.Is(err, ErrBadName) {
			t.Errorf("%.20q: %v", name, err)
		}
	}
}

// fault: A1, A2, A5, B6
func FuzzControl(f *testing.F) {
	for _, v := range vectors(f) {
		if v.Channel == controlID {
			f.Add(v.wire(f)[headerLen:])
		}
	}
	f.Add([]byte{0x93, 0xdb, 0xff, 0xff, 0xff, 0xff, 'x'})
	f.Add([]byte{0x98, 0xa1, 'x', 1, 0xc2, 0xc2, 1, 0xa0, 0x91, 1, 0xc0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := packed.NewReader(b)
		for r.Len() > 0 {
			q, err := decodeRequest(r)
			if err != nil {
				if !errors.Is(err, packed.ErrMalformed) {
					t.Fatalf("error of another kind: %v", err)
				}
				return
			}
			if q.window < 0 || len(q.reason) > MaxReasonLen || len(q.name) > len(b) {
				t.Fatalf("out of bounds: %+v", q)
			}
			if again, err := decodeRequest(packed.NewReader(q.encode())); err != nil || again != q {
				t.Fatalf("%+v is written and read as %+v, %v", q, again, err)
			}
			_ = CheckName(q.name)
		}
	})
}
