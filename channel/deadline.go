package channel

import (
	"sync"
	"time"
)

// deadline wakes a condition when its time comes. The condition's lock guards
// it, and expired is only ever read and written under that lock.
type deadline struct {
	timer   *time.Timer
	expired bool
	gen     uint64 // tells a timer that was stopped too late from the one that counts
}

// set replaces the deadline; the zero time removes it. wake's lock is held.
func (d *deadline) set(t time.Time, wake *sync.Cond) {
	d.gen++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.expired = false
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.expired = true
		wake.Broadcast()
		return
	}
	gen := d.gen
	d.timer = time.AfterFunc(wait, func() {
		wake.L.Lock()
		defer wake.L.Unlock()
		if d.gen == gen {
			d.expired = true
			wake.Broadcast()
		}
	})
}
