package digest_test

import (
	"fmt"
	"testing"

	"lukechampine.com/blake3"

	"peerlink/cmd/peerchat/internal/files/digest"
)

// BenchmarkWrite hashes pieces of a file, with the sum after each, and the same
// with the library's own Hasher.
func BenchmarkWrite(b *testing.B) {
	for _, n := range []int{64 << 10, 256 << 10, 1 << 20} {
		piece := make([]byte, n)
		b.Run(fmt.Sprintf("digest/%dKiB", n>>10), func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			var d digest.Digest
			for b.Loop() {
				_, _ = d.Write(piece)
				d.Sum()
			}
		})
		b.Run(fmt.Sprintf("library/%dKiB", n>>10), func(b *testing.B) {
			b.SetBytes(int64(n))
			h := blake3.New(digest.Size, nil)
			for b.Loop() {
				_, _ = h.Write(piece)
				h.Sum(nil)
			}
		})
	}
}
