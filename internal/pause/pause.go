// Package pause waits, for a time or for news, no longer than a context lasts.
//
//	pauses := pause.Backoff(5*time.Millisecond, time.Second)
//	for {
//		conn, err := l.Accept()
//		if err == nil {
//			pauses.Reset()
//			go serve(conn)
//		} else if pause.For(ctx, pauses.NextBackOff()) != nil {
//			return
//		}
//	}
package pause

import (
	"context"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// For blocks for d, or until ctx ends; then it returns ctx.Err(). A d of zero or
// less only looks at ctx.
func For(ctx context.Context, d time.Duration) error { return Until[struct{}](ctx, d, nil) }

// Until is For that also returns nil as soon as there is something to receive
// from news, or news is closed. It takes what it receives. A nil channel has no
// news.
func Until[T any](ctx context.Context, d time.Duration, news <-chan T) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-news:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Tell puts v into a channel with room for one, unless something waits there
// already: that stands for v too. It does not block.
func Tell[T any](news chan<- T, v T) {
	select {
	case news <- v:
	default:
	}
}

// Bell wakes all that wait for the next change of something. The zero value is
// ready for use. Its methods may be called concurrently and do not block.
type Bell struct {
	mu   sync.Mutex
	next chan struct{} // nil until asked for
}

// Next returns a channel that the next Ring closes. Ask for it before looking at
// what may change, or a change in between is missed.
func (b *Bell) Next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

// Ring wakes all that wait.
func (b *Bell) Ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// Backoff returns pauses that begin with first and double until they are longest.
// NextBackOff returns the next one, Reset begins again. They are exact; where many
// programs wait for the same thing, set RandomizationFactor, so that they do not
// come back all at once. The result is for one goroutine at a time.
func Backoff(first, longest time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = first, longest
	b.Multiplier, b.RandomizationFactor = 2, 0
	b.Reset()
	return b
}
