package trace

import (
	"context"
	"fmt"
	"sync"
)

// Tally counts how one signal fares, for the error of a call that nobody
// answers. Whoever calls puts one on the context of the sending; whoever sends
// counts. Its methods may be called concurrently.
type Tally struct {
	mu                  sync.Mutex
	through             string
	asked, took, pushed int
}

type tallyKey struct{}

// WithTally returns a context whose sending counts in t.
func WithTally(ctx context.Context, t *Tally) context.Context {
	return context.WithValue(ctx, tallyKey{}, t)
}

// TallyOf returns the context's tally, or one that is read by none.
func TallyOf(ctx context.Context) *Tally {
	if t, ok := ctx.Value(tallyKey{}).(*Tally); ok {
		return t
	}
	return new(Tally)
}

// Asked counts a node that is asked to carry the signal through a network of this
// name.
func (t *Tally) Asked(through string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.through = through
	t.asked++
}

// Took counts a node that carries the signal, and whether it had the recipient
// listening and pushed the signal there.
func (t *Tally) Took(pushed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.took++
	if pushed {
		t.pushed++
	}
}

// Through names the network that carries the signal; empty until somebody was
// asked.
func (t *Tally) Through() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.through
}

// String says in words how the signal has fared so far; empty until somebody was
// asked.
func (t *Tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.asked == 0:
		return ""
	case t.took == 0:
		return fmt.Sprintf("%s asked, none took the call", nodes(t.asked))
	case t.pushed == 0:
		return fmt.Sprintf("%s asked, %d took the call, but the device listens at none of them: it is offline, or has just moved", nodes(t.asked), t.took)
	default:
		return fmt.Sprintf("%s asked, %d took the call, %d passed it on to the device", nodes(t.asked), t.took, t.pushed)
	}
}

func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}
