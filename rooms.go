package peerlink

import (
	"context"
	"sync"

	"peerlink/identity"
	"peerlink/internal/quota"
)

// asker is a device that wants a place. Members have room of their own, which
// strangers cannot take (identity.Trust.Member).
type asker struct {
	device identity.DeviceID
	member bool
}

// rooms are places that members wait for, and places that strangers wait for: so
// many in all, and so many of them for each device. Make them with newRooms.
type rooms struct {
	members, strangers room
	now                chan struct{} // is closed: for those that do not wait

	mu      sync.Mutex // taken alone
	devices map[asker]*places
}

// room has a place in all for each taken one.
type room struct {
	all  chan struct{}
	each int
}

// places are the places of one device; they exist while they are used.
type places struct {
	c     chan struct{}
	users int
}

func newRooms(members, strangers quota.Limits) *rooms {
	now := make(chan struct{})
	close(now)
	return &rooms{
		now:       now,
		members:   room{make(chan struct{}, members.All), members.Each},
		strangers: room{make(chan struct{}, strangers.All), strangers.Each},
		devices:   make(map[asker]*places),
	}
}

// enter waits for a place, until ctx ends. leave must be called once.
func (r *rooms) enter(ctx context.Context, a asker) (leave func(), err error) {
	leave, ok := r.wait(ctx.Done(), a)
	if !ok {
		return nil, context.Cause(ctx)
	}
	return leave, nil
}

// try is enter without waiting; false says that there is no place now.
func (r *rooms) try(a asker) (leave func(), ok bool) { return r.wait(r.now, a) }

func (r *rooms) wait(done <-chan struct{}, a asker) (leave func(), ok bool) {
	in := r.strangers
	if a.member {
		in = r.members
	}
	p := r.use(a, in.each)
	if take(done, p.c) {
		if take(done, in.all) {
			return func() { <-in.all; <-p.c; r.unuse(a, p) }, true
		}
		<-p.c
	}
	r.unuse(a, p)
	return nil, false
}

// take waits for a place in c, until done is closed.
func take(done <-chan struct{}, c chan<- struct{}) bool {
	select {
	case c <- struct{}{}:
		return true
	default:
	}
	select {
	case c <- struct{}{}:
		return true
	case <-done:
		return false
	}
}

func (r *rooms) use(a asker, each int) *places {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.devices[a]
	if p == nil {
		p = &places{c: make(chan struct{}, each)}
		r.devices[a] = p
	}
	p.users++
	return p
}

func (r *rooms) unuse(a asker, p *places) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.users--; p.users == 0 {
		delete(r.devices, a)
	}
}
