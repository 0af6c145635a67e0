package stream

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// held is how many bytes of blocks a buffer keeps.
func (q *buffer) held() (n int) {
	for b := q.head; b != nil; b = b.next {
		n += cap(b.b)
	}
	return n
}

func TestBufferIsAQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q buffer
		var want []byte
		next := byte(0)
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				p := make([]byte, rapid.IntRange(0, 40_000).Draw(t, "n"))
				for i := range p {
					next++
					p[i] = next
				}
				q.write(p)
				want = append(want, p...)
			},
			"read": func(t *rapid.T) {
				p := make([]byte, rapid.IntRange(0, 50_000).Draw(t, "n"))
				n := q.read(p)
				if n != min(len(p), len(want)) || !bytes.Equal(p[:n], want[:n]) {
					t.Fatalf("read %d of %d", n, len(want))
				}
				want = want[n:]
			},
			"reset": func(t *rapid.T) {
				if n := q.reset(); n != len(want) {
					t.Fatalf("dropped %d of %d", n, len(want))
				}
				want = nil
			},
			"": func(t *rapid.T) {
				if q.n != len(want) || q.n == 0 && (q.head != nil || q.tail != nil) {
					t.Fatalf("%d bytes, want %d, in %v", q.n, len(want), q.head)
				}
			},
		})
	})
}

// fault: C11
func TestSmallPiecesDoNotHoldLargeBlocks(t *testing.T) {
	for size, most := range map[int]int{1: smallBlock, 100: 2 * smallBlock, 1000: 3 * smallBlock, 5000: largeBlock} {
		var q buffer
		for range max(1000/size, 1) {
			q.write(make([]byte, size))
		}
		if n := q.held(); n > most {
			t.Errorf("pieces of %d bytes hold %d", size, n)
		}
		q.reset()
	}
	var q buffer // and long queues waste little
	for q.n < 1<<20 {
		q.write(make([]byte, 1+rand.IntN(16<<10)))
	}
	if n := q.held(); n > q.n+q.n/4 {
		t.Errorf("%d bytes hold %d", q.n, n)
	}
}
