package peerlink

import (
	"context"
	"runtime/debug"
	"sync"

	"peerlink/identity"
)

const (
	// maxCallbacks is how many callbacks of the application run at once.
	maxCallbacks = 4096
	// maxCallbacksPerDevice is how many of them may be about one device: what
	// its openers ask at once.
	maxCallbacksPerDevice = 256
)

// workers bound the callbacks of the application that run at once. One that
// never returns keeps its place for ever, which is its device's in the end.
type workers struct {
	all chan struct{}

	mu      sync.Mutex
	devices map[identity.DeviceID]*places
}

// places are those of one device; they exist while somebody uses them.
type places struct {
	c     chan struct{}
	users int
}

func newWorkers() *workers {
	return &workers{all: make(chan struct{}, maxCallbacks), devices: make(map[identity.DeviceID]*places)}
}

// enter waits for a place, until ctx ends. leave must be called once.
func (w *workers) enter(ctx context.Context, device identity.DeviceID) (leave func(), err error) {
	p := w.use(device)
	select {
	case p.c <- struct{}{}:
	case <-ctx.Done():
		w.unuse(device, p)
		return nil, context.Cause(ctx)
	}
	select {
	case w.all <- struct{}{}:
	case <-ctx.Done():
		<-p.c
		w.unuse(device, p)
		return nil, context.Cause(ctx)
	}
	return func() {
		<-w.all
		<-p.c
		w.unuse(device, p)
	}, nil
}

func (w *workers) use(device identity.DeviceID) *places {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.devices[device]
	if p == nil {
		p = &places{c: make(chan struct{}, maxCallbacksPerDevice)}
		w.devices[device] = p
	}
	p.users++
	return p
}

func (w *workers) unuse(device identity.DeviceID, p *places) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.users--; p.users == 0 {
		delete(w.devices, device)
	}
}

// guard runs a callback of the application and survives its panic.
func (m *ConnectionManager) guard(name string, f func()) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			m.count(func(t *Metrics) { t.Panics++ })
			m.cfg.Logger.Error("callback panicked", "callback", name, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	f()
	return true
}
