package relay

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peerlink/internal/packed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// case: S25
func TestANodesNoHasItsReason(t *testing.T) {
	answer := func(values ...any) []byte {
		b, err := packed.Pack(values...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	full, err := Full.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"full":                    {full, ErrFull},
		"members only":            {answer(0, 2), ErrNoRelay},
		"busy":                    {answer(0, 3), ErrFull},
		"with more":               {answer(0, 1, "and so on"), ErrFull},
		"a later version's":       {answer(0, 77), ErrNoRelay},
		"nothing":                 {nil, ErrNoRelay},
		"without a reason":        {answer(0), packed.ErrMalformed},
		"with a reason in words":  {answer(0, "full"), packed.ErrMalformed},
		"an array that is broken": {[]byte{0xdd, 0xff, 0xff, 0xff, 0xff}, packed.ErrMalformed},
	} {
		if _, err := decodePass(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// fault: A1, A2
func FuzzPass(f *testing.F) {
	b, err := Pass{"1:a", "b", time.Unix(1, 0)}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for reason := range Reason(5) {
		no, err := reason.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(no)
	}
	f.Add([]byte{0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePass(b)
		if err == nil && (p.Username == "" || len(p.Username) > MaxUsername || len(p.Password) > MaxUsername) {
			t.Errorf("pass %+v", p)
		}
	})
}
