// Package quota counts what each key, and what all keys together, have at once,
// and how often a key may do something.
//
//	conns := quota.New[netip.Prefix](32, 1024) // 32 of one network, 1 024 in all
//	from := quota.Host(conn.RemoteAddr().String())
//	if err := conns.Take(from); err != nil {
//		return err
//	}
//	defer conns.Release(from)
//
// Where some keys may do more than others, ask which kind the key is before a
// place is given. The two kinds then have pools of their own, and strangers
// cannot take the room of the members:
//
//	conns := quota.NewPools[identity.DeviceID](quota.Limits{Each: 32, All: 256}, quota.Limits{Each: 2, All: 32})
//	take := conns.TakeStranger
//	if trusted(device) {
//		take = conns.Take
//	}
//
// # Limits
//
// Nothing here waits and nothing calls back. A Quota remembers only keys that
// hold places, so its size is bounded by its places.
package quota

import (
	"errors"
	"math"
	"sync"
)

// NoLimit stands for a number of places that is never reached.
const NoLimit = math.MaxInt

var (
	// ErrKey is returned when a key has all places that one key may have.
	ErrKey = errors.New("too many of this one at once")
	// ErrAll is returned when all keys together have all places of the pool.
	ErrAll = errors.New("too many at once")
)

// Limits are the places of a pool. Zero and less are no places at all.
type Limits struct {
	// Each is how many places one key may have.
	Each int
	// All is how many places all keys together may have.
	All int
}

// Quota counts the places that keys hold. Make one with New or NewPools. Its
// methods may be called concurrently; none of them blocks.
type Quota[K comparable] struct {
	limits [pools]Limits

	mu   sync.Mutex
	keys map[K]holding
	used [pools]int
}

type pool int

const (
	members pool = iota
	strangers
	pools
)

// holding is what one key has: all its places are in one pool.
type holding struct {
	places int
	in     pool
}

// New returns a quota of one pool: each key may have so many places, and all keys
// together so many. Its TakeStranger always fails.
func New[K comparable](each, all int) *Quota[K] { return NewPools[K](Limits{each, all}, Limits{}) }

// NewPools returns a quota in which strangers have places of their own, apart
// from the places of the members.
func NewPools[K comparable](member, stranger Limits) *Quota[K] {
	return &Quota[K]{limits: [pools]Limits{member, stranger}, keys: make(map[K]holding)}
}

// Take gives a member one more place, or returns ErrKey or ErrAll. The places
// that the key has as a stranger become places of a member: all of them must fit.
func (q *Quota[K]) Take(key K) error { return q.take(key, members) }

// TakeStranger is Take for a key that is not a member. The places that the key
// has as a member become places of a stranger: all of them must fit.
func (q *Quota[K]) TakeStranger(key K) error { return q.take(key, strangers) }

func (q *Quota[K]) take(key K, in pool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.keys[key]
	more := 1
	if h.in != in {
		more += h.places
	}
	switch limits := q.limits[in]; {
	case h.places >= limits.Each:
		return ErrKey
	case more > limits.All-q.used[in]:
		return ErrAll
	}
	q.used[h.in] -= h.places
	h = holding{h.places + 1, in}
	q.used[in] += h.places
	q.keys[key] = h
	return nil
}

// Release takes back one place that Take or TakeStranger gave to a key. Releasing
// more places than were taken is a mistake of the caller and panics.
func (q *Quota[K]) Release(key K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.keys[key]
	if h.places == 0 {
		panic("quota: a place was released that was not taken")
	}
	q.used[h.in]--
	if h.places--; h.places == 0 {
		delete(q.keys, key)
		return
	}
	q.keys[key] = h
}

// Used returns how many places are taken, by members and by strangers.
func (q *Quota[K]) Used() (member, stranger int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.used[members], q.used[strangers]
}
