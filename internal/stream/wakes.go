package stream

import (
	"sync"
	"time"
)

// wakes is where Reads and Writes wait. It takes no room while none does, as
// most channels of a link are idle. The channel's lock guards it.
type wakes struct{ *waiters }

type waiters struct {
	read, write sync.Cond
	n           int // goroutines that wait
}

func (w *wakes) enter(mu *sync.Mutex) *waiters {
	if w.waiters == nil {
		w.waiters = &waiters{read: sync.Cond{L: mu}, write: sync.Cond{L: mu}}
	}
	w.n++
	return w.waiters
}

func (w *wakes) leave() {
	if w.n--; w.n == 0 {
		w.waiters = nil
	}
}

// waitRead waits until readers is called. mu is the channel's lock.
func (w *wakes) waitRead(mu *sync.Mutex) {
	w.enter(mu).read.Wait()
	w.leave()
}

// waitWrite waits until writers is called. mu is the channel's lock.
func (w *wakes) waitWrite(mu *sync.Mutex) {
	w.enter(mu).write.Wait()
	w.leave()
}

// readers wakes all Reads.
func (w *wakes) readers() {
	if w.waiters != nil {
		w.read.Broadcast()
	}
}

// writers wakes all Writes.
func (w *wakes) writers() {
	if w.waiters != nil {
		w.write.Broadcast()
	}
}

// now is the time as Unix nanoseconds: a third of the size of a time.Time.
func now() int64 { return time.Now().UnixNano() }
