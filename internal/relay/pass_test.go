package relay

import (
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// fault: A1, A2
func FuzzPass(f *testing.F) {
	b, err := msgpack.Marshal([]any{uint8(1), "1:01", "password", uint64(1000)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePass(b)
		if err == nil && (p.Username == "" || len(p.Username) > MaxUsername || len(p.Password) > MaxUsername) {
			t.Errorf("pass %+v", p)
		}
	})
}
