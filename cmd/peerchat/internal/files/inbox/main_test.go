package inbox

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"peerlink/cmd/peerchat/internal/files/digest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder returns a folder and where it is.
func folder(t testing.TB) (*Folder, string) {
	t.Helper()
	dir := t.TempDir()
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, dir
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func sumOf(b []byte) digest.Sum {
	var d digest.Digest
	_, _ = d.Write(b)
	return d.Sum()
}

func resume(t testing.TB, f *Folder, name string, size int) *Part {
	t.Helper()
	p, err := f.Resume(context.Background(), Claim{Owner: "alice", Session: 1}, name, int64(size))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// feed writes content from where the part is to an offset, in pieces.
func feed(t testing.TB, p *Part, content []byte, to, piece int) {
	t.Helper()
	for at := int(p.Len()); at < to || at == 0 && to == 0; {
		n := min(piece, to-at)
		if err := p.Write(content[at:at+n], sumOf(content[:at+n])); err != nil {
			t.Fatalf("at %d: %v", at, err)
		}
		if at += n; n == 0 {
			return
		}
	}
}

func holds(t testing.TB, dir, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%s has %d bytes (%v), want %d others", name, len(got), err, len(want))
	}
}

func entries(t testing.TB, dir string) (names []string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}
