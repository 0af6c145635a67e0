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
	size  int
	keys  *lru.Cache[K, *rate.Limiter]
	wide  *Rates[K] // nil: none
	wider func(K) K
}

// NewRates returns rates by which each key may do something burst times at once
// and then perSecond times a second (rate.Every turns a pause into that). The
// last keys keys are remembered, which must be one at least; a key that was
// forgotten begins with a full burst (but see Within).
func NewRates[K comparable](keys int, perSecond rate.Limit, burst int) *Rates[K] {
	return &Rates[K]{rate: perSecond, burst: burst, size: keys, keys: NewLRU[K, *rate.Limiter](keys)}
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

// Within has r forget nothing that it still needs, and returns r: while all keys that
// it remembers have used some of their burst, a further key counts in wide, as
// wider(key). So a flood of keys has no more than what it has in common, and takes
// nothing from keys that have not that. Call it before the first Allow.
func (r *Rates[K]) Within(wide *Rates[K], wider func(key K) K) *Rates[K] {
	r.wide, r.wider = wide, wider
	return r
}

// Allow reports whether a key may do it once more at a certain time, and counts
// it if so.
func (r *Rates[K]) Allow(key K, now time.Time) bool { return r.AllowN(key, now, 1) }

// AllowN is Allow for n times at once, such as the bytes of a packet: all of them
// or none.
func (r *Rates[K]) AllowN(key K, now time.Time, n int) bool {
	l, ok := r.keys.Get(key)
	if !ok && r.wide != nil && r.keys.Len() >= r.size {
		if _, oldest, _ := r.keys.GetOldest(); oldest != nil && oldest.TokensAt(now) < float64(r.burst) {
			return r.wide.AllowN(r.wider(key), now, n)
		}
	}
	if !ok {
		l = rate.NewLimiter(r.rate, r.burst)
		if old, had, _ := r.keys.PeekOrAdd(key, l); had {
			l = old
		}
	}
	return l.AllowN(now, n)
}
