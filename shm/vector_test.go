package shm

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// TestVectorsAreMetByteForByte compares with the golden bytes of
// docs/protocol.md, and reads them.
func TestVectorsAreMetByteForByte(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			Name, Wire, Reason string
			Size               int
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, v := range file.Vectors {
		seen[v.Name] = true
		wire, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(v.Wire), []byte(" "), nil)))
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if v.Name == "consent" || v.Name == "the caller refuses" {
			if want := append([]byte{byte(len(v.Reason))}, v.Reason...); !bytes.Equal(wire, want) {
				t.Errorf("%s: %x is written, want %x", v.Name, want, wire)
			}
			continue
		}
		if got := append(head{reason: len(v.Reason), size: v.Size}.encode(), v.Reason...); !bytes.Equal(got, wire) {
			t.Errorf("%s: %x is written, want %x", v.Name, got, wire)
		}
		h, err := decodeHead(wire[:headLen])
		if err != nil || h.size != v.Size || h.reason != len(v.Reason) {
			t.Errorf("%s: read as %+v, %v", v.Name, h, err)
		}
		if h.reason > 0 {
			if err := readReason(bytes.NewReader(wire[headLen:]), h.reason); err.Error() != errRefused(v.Reason).Error() {
				t.Errorf("%s: %v", v.Name, err)
			}
		}
	}
	for _, name := range []string{"request", "answer", "the callee refuses", "consent", "the caller refuses"} {
		if !seen[name] {
			t.Errorf("no vector %q", name)
		}
	}
}
