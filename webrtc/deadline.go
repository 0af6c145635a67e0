package webrtc

import (
	"sync"
	"time"
)

// deadline is a moment that can be moved while others wait for it.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	donec chan struct{} // closed when the moment has come
}

func newDeadline() *deadline { return &deadline{donec: make(chan struct{})} }

// set moves the deadline; a zero time takes it away.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if closed(d.donec) {
		d.donec = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	donec := d.donec
	left := time.Until(t)
	if left <= 0 {
		close(donec)
		return
	}
	d.timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.donec == donec && !closed(donec) {
			close(donec)
		}
	})
}

// passed returns a channel that is closed once the deadline, as it is now, has
// passed. A waiter asks again after it was woken by something else.
func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.donec
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
