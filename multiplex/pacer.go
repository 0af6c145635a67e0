package multiplex

import "time"

// slowWrite is how long a write may take: a beacon or a small frame that
// is queued then waits for it. On a path of 40 kB/s a whole batch would take
// more than six seconds, and a peer that is well would count as dead.
const slowWrite = 100 * time.Millisecond

// pacer bounds the data of a batch by what the conn takes within slowWrite.
type pacer struct {
	limit int // minCap to lineCap; line.mu guards it, and only the writing goroutine changes it
}

// took notes how long a write of n bytes took. Only the writing goroutine may call it.
func (l *line) took(n int, d time.Duration) {
	limit := l.pacer.after(n, d)
	if limit == l.pacer.limit {
		return
	}
	l.mu.Lock()
	l.pacer.limit = limit
	l.mu.Unlock()
}

// after returns the limit after a write of n bytes that took so long.
func (p pacer) after(n int, d time.Duration) int {
	switch {
	case d > slowWrite:
		fits := float64(n) * float64(slowWrite) / float64(d)
		return min(p.limit, max(int(fits), minCap))
	case d < slowWrite/4 && n >= p.limit/2:
		return min(2*p.limit, lineCap)
	}
	return p.limit
}
