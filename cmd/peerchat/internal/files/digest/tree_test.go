package digest

import (
	"math/rand/v2"
	"testing"

	"lukechampine.com/blake3"
)

// Trees of all heights, as on processors where one core would be too slow, come to
// the same sum, and a copy is not disturbed by what follows.
func TestTreesOfAnyHeightComeToTheSameSum(t *testing.T) {
	b := make([]byte, 3<<20+5)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(b)
	rng := rand.New(rand.NewPCG(1, 2))
	for most := range 9 {
		var d Digest
		for at := 0; at < len(b); {
			n := min(groupLen*rng.IntN(40)+5*rng.IntN(2), len(b)-at) // now and then it ends within a group
			fork := d
			_, _ = fork.Write(b[at : at+n])
			if len(d.rest) > 0 {
				d = fork
			} else {
				d.rest = append(d.rest, d.full(b[at:at+n], most)...)
				d.n += int64(n)
			}
			at += n
			want := Sum(blake3.Sum256(b[:at]))
			if d.Sum() != want || fork.Sum() != want || d.Len() != int64(at) {
				t.Fatalf("height %d, at %d: %x and %x, want %x", most, at, d.Sum(), fork.Sum(), want)
			}
			other := d // it goes its own way
			_, _ = other.Write([]byte("another end"))
			if d.Sum() != want {
				t.Fatalf("height %d, at %d: a copy has changed it", most, at)
			}
		}
	}
}
