package quota

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// Rates bound how often each key may do something. Make them with NewRates.
// Their methods may be called concurrently; none of them blocks.
type Rates[K comparable] struct {
	rate  rate.Limit
	burst int
	keys  *lru.Cache[K, *rate.Limiter]
}

// NewRates returns rates by which each key may do something burst times at once
// and then perSecond times a second (rate.Every turns a pause into that). The
// last keys keys are remembered, which must be one at least; a key that was
// forgotten begins with a full burst.
func NewRates[K comparable](keys int, perSecond rate.Limit, burst int) *Rates[K] {
	return &Rates[K]{rate: perSecond, burst: burst, keys: NewLRU[K, *rate.Limiter](keys)}
}

// NewLRU is lru.New for a size that is known to be positive, the one thing that it
// can fail on.
func NewLRU[K comparable, V any](size int) *lru.Cache[K, V] {
	c, err := lru.New[K, V](size)
	if err != nil {
		panic(err)
	}
	return c
}

// Allow reports whether a key may do it once more at a certain time, and counts
// it if so.
func (r *Rates[K]) Allow(key K, now time.Time) bool { return r.AllowN(key, now, 1) }

// AllowN is Allow for n times at once, such as the bytes of a packet: all of them
// or none.
func (r *Rates[K]) AllowN(key K, now time.Time, n int) bool {
	l, ok := r.keys.Get(key)
	if !ok {
		l = rate.NewLimiter(r.rate, r.burst)
		if old, had, _ := r.keys.PeekOrAdd(key, l); had {
			l = old
		}
	}
	return l.AllowN(now, n)
}
