package shm

import (
	"sync/atomic"
	"time"
)

// Spinning, that is looking again and again before going to sleep, saves two
// system calls and a change of processes where the peer runs on another core
// and answers soon; elsewhere it takes the core that the peer needs. So it has
// to pay for itself.
const (
	maxBudget  = 50 * time.Microsecond // about what a sleep and its bell cost
	minBudget  = time.Microsecond
	probeEvery = 32 // parks after which a full budget is tried in any case
	looks      = 32 // between two looks at the clock

	// rest is how long the reader of a one-way stream lets the writer get on before
	// it looks: looking at once, it takes the writer's line from its core for each
	// message. Writes of 4 KiB go at 25 GB/s with it, and at 10 without.
	rest = 2 * time.Microsecond
)

// spinning is how many goroutines of the process spin. The bound is the
// process's, as the cores are.
var spinning atomic.Int32

// spinner is what one end knows about spinning. The zero value does not spin
// until its first probe.
type spinner struct {
	cores  int32 // at most; fewer than two: never
	budget time.Duration
	parks  uint32
}

// wait looks at ready for as long as has paid lately, not before the pause is
// over.
func (s *spinner) wait(ready func() bool, pause time.Duration) bool {
	if s.cores < 2 {
		return false
	}
	budget := s.budget
	if s.parks%probeEvery == 0 {
		budget = maxBudget
	}
	s.parks++
	if budget < minBudget {
		return false
	}
	defer spinning.Add(-1)
	if spinning.Add(1) > s.cores/2 {
		return false
	}
	hit := spin(ready, budget, pause)
	s.spent(hit)
	return hit
}

// spent notes whether spinning has paid.
func (s *spinner) spent(hit bool) {
	if hit {
		s.budget = min(max(2*s.budget, minBudget), maxBudget)
		return
	}
	if s.budget /= 2; s.budget < minBudget {
		s.budget = 0
	}
}

func spin(ready func() bool, budget, pause time.Duration) bool {
	start := time.Now()
	for pause > 0 && time.Since(start) < pause { // nothing to do but let time pass
	}
	for {
		for range looks {
			if ready() {
				return true
			}
		}
		if time.Since(start) > budget {
			return false
		}
	}
}
