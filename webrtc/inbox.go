package webrtc

import (
	"sync"

	"peerlink/internal/pause"
)

// inbox keeps the bytes that have arrived and were not read.
type inbox struct {
	filled  chan struct{} // holds 1: there may be something to take
	emptied chan struct{} // holds 1: there may be room

	mu     sync.Mutex
	chunks [][]byte
	size   int
	over   error // what comes after the bytes
}

// put adds a copy of p and then waits until less than inboxLimit is unread. It
// gives up waiting, and what comes later is dropped, once quit is closed. After
// the end nothing is added.
func (b *inbox) put(p []byte, quit <-chan struct{}) {
	b.mu.Lock()
	if b.over == nil && len(p) > 0 && !closed(quit) {
		b.chunks = append(b.chunks, append([]byte(nil), p...))
		b.size += len(p)
	}
	full := b.size >= inboxLimit
	b.mu.Unlock()
	pause.Tell(b.filled, struct{}{})
	for full {
		select {
		case <-b.emptied:
		case <-quit:
			return
		}
		b.mu.Lock()
		full = b.size >= inboxLimit
		b.mu.Unlock()
	}
}

// end sets what is returned after the bytes. Only the first call counts.
func (b *inbox) end(err error) {
	b.mu.Lock()
	if b.over == nil {
		b.over = err
	}
	b.mu.Unlock()
	pause.Tell(b.filled, struct{}{})
}

// take moves bytes to p. Without bytes it returns 0 and the end, if it has come.
func (b *inbox) take(p []byte) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.chunks) == 0 {
		return 0, b.over
	}
	for n < len(p) && len(b.chunks) > 0 {
		m := copy(p[n:], b.chunks[0])
		n += m
		if b.chunks[0] = b.chunks[0][m:]; len(b.chunks[0]) == 0 {
			b.chunks[0] = nil
			b.chunks = b.chunks[1:]
		}
	}
	b.size -= n
	if b.size < inboxLimit {
		pause.Tell(b.emptied, struct{}{})
	}
	return n, nil
}
