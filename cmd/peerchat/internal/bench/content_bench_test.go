package bench

import "testing"

// BenchmarkChecker is what the verification costs: the figures hold it, those
// of raw TLS as well as ours.
func BenchmarkChecker(b *testing.B) {
	p := blocks(2)[:blockLen]
	b.SetBytes(blockLen)
	b.ReportAllocs()
	c := checker{want: newBlock()}
	for b.Loop() {
		c.number = 0
		if _, err := c.take(p); err != nil {
			b.Fatal(err)
		}
	}
}
