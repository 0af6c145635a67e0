package digest_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"lukechampine.com/blake3"

	"peerlink/cmd/peerchat/internal/files/digest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The BLAKE3 authors' vectors: the input repeats 0, 1, … 250.
func TestSumIsBLAKE3(t *testing.T) {
	for n, want := range map[int]string{
		0:    "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
		1:    "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
		1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
	} {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i % 251)
		}
		var d digest.Digest
		_, _ = d.Write(b)
		if got := d.Sum(); hex.EncodeToString(got[:]) != want {
			t.Errorf("%d bytes: %x, want %s", n, got, want)
		}
	}
}

func TestEachPrefixHasItsSum(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 5<<20)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	var d digest.Digest
	for at := 0; at < len(b); {
		n := min(1+rng.IntN(700_000), len(b)-at)
		fork := d
		if err := d.Advance(context.Background(), bytes.NewReader(b[at:]), int64(n)); err != nil {
			t.Fatal(err)
		}
		_, _ = fork.Write(b[at : at+n])
		at += n
		want := digest.Sum(blake3.Sum256(b[:at]))
		if d.Sum() != want || fork.Sum() != want || d.Len() != int64(at) {
			t.Fatalf("at %d of %d: %x and %x, want %x", d.Len(), at, d.Sum(), fork.Sum(), want)
		}
	}
}

func TestAdvanceEndsWithItsReaderAndItsContext(t *testing.T) {
	var d digest.Digest
	if err := d.Advance(context.Background(), strings.NewReader("short"), 6); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short reader: %v", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("enough")
	cancel(cause)
	if err := d.Advance(ctx, bytes.NewReader(make([]byte, 9<<20)), 9<<20); !errors.Is(err, cause) {
		t.Errorf("an ended context: %v", err)
	}
}

func Example() {
	var d digest.Digest
	fmt.Fprint(&d, "hello ")
	fork := d
	fmt.Fprint(&d, "world")
	fmt.Printf("%.4x %d, %.4x %d\n", d.Sum(), d.Len(), fork.Sum(), fork.Len())
	// Output: d74981ef 11, 955ddfbf 6
}
