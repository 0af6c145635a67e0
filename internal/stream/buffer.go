package stream

import "sync"

// Block sizes: the smallest that fits what arrived is taken, so that a byte
// nobody reads holds one kilobyte and not sixteen. A frame from our own
// senders (16 380 bytes at most) fits the largest.
const (
	smallBlock  = 1 << 10
	mediumBlock = 4 << 10
	largeBlock  = 16 << 10
)

type block struct {
	b    []byte // its capacity is one of the block sizes
	off  int    // read so far
	next *block
}

var (
	smallPool  = sync.Pool{New: func() any { return &block{b: make([]byte, 0, smallBlock)} }}
	mediumPool = sync.Pool{New: func() any { return &block{b: make([]byte, 0, mediumBlock)} }}
	largePool  = sync.Pool{New: func() any { return &block{b: make([]byte, 0, largeBlock)} }}
)

func poolFor(size int) *sync.Pool {
	switch {
	case size <= smallBlock:
		return &smallPool
	case size <= mediumBlock:
		return &mediumPool
	default:
		return &largePool
	}
}

// buffer is a queue of bytes in pooled blocks. Its owner locks.
type buffer struct {
	head, tail *block
	n          int
}

// write appends a copy of p.
func (q *buffer) write(p []byte) {
	q.n += len(p)
	for len(p) > 0 {
		if q.tail == nil || len(q.tail.b) == cap(q.tail.b) {
			nb := poolFor(len(p)).Get().(*block)
			if q.tail == nil {
				q.head = nb
			} else {
				q.tail.next = nb
			}
			q.tail = nb
		}
		t := q.tail
		k := min(len(p), cap(t.b)-len(t.b))
		t.b = append(t.b, p[:k]...)
		p = p[k:]
	}
}

// read moves up to len(p) bytes out.
func (q *buffer) read(p []byte) int {
	total := 0
	for len(p) > 0 && q.head != nil {
		h := q.head
		k := copy(p, h.b[h.off:])
		h.off += k
		p = p[k:]
		total += k
		if h.off == len(h.b) {
			q.drop()
		}
	}
	q.n -= total
	return total
}

// drop gives the head block back to its pool.
func (q *buffer) drop() {
	h := q.head
	q.head = h.next
	if q.head == nil {
		q.tail = nil
	}
	pool := poolFor(cap(h.b))
	h.b, h.off, h.next = h.b[:0], 0, nil
	pool.Put(h)
}

// reset drops everything and returns how many bytes that were.
func (q *buffer) reset() int {
	n := q.n
	for q.head != nil {
		q.drop()
	}
	q.n = 0
	return n
}
