package stream

import (
	"sync"
	"time"
)

// deadline wakes those who wait when its time comes. All of it is guarded by
// the lock that set is given.
type deadline struct {
	timer   *time.Timer
	gen     uint32 // tells a timer that was stopped too late from the one that counts
	expired bool
}

// set replaces the deadline; the zero time removes it. mu is held, now and when
// wake is called.
func (d *deadline) set(t time.Time, mu *sync.Mutex, wake func()) {
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
		wake()
		return
	}
	gen := d.gen
	d.timer = time.AfterFunc(wait, func() {
		mu.Lock()
		defer mu.Unlock()
		if d.gen == gen {
			d.expired = true
			wake()
		}
	})
}
