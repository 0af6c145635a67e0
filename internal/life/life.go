// Package life owns goroutines: what a Group has begun is told to end, and
// waited for, by the group's one Close.
//
//	type Server struct{ life life.Group }
//
//	func (s *Server) Serve(conn net.Conn) bool {
//		return s.life.Go(func(ctx context.Context) { s.serve(ctx, conn) })
//	}
//
//	func (s *Server) Close() error { s.life.Close(); return nil }
//
// # Limits
//
// A group counts; it does not bound: see package quota. It does not stop a
// goroutine that does not look at its context, and Close then waits.
package life

import (
	"context"
	"sync"
)

// Group is the life of some goroutines. The zero value is ready for use. Its
// methods may be called concurrently. It must not be copied once it is used.
type Group struct {
	mu     sync.Mutex
	ctx    context.Context // nil until asked for
	cancel context.CancelCauseFunc
	ended  bool
	wg     sync.WaitGroup
}

// Go runs f on a goroutine of its own, with the group's context. After the end
// it does not, and returns false. It does not block.
func (g *Group) Go(f func(ctx context.Context)) bool {
	if !g.Enter() {
		return false
	}
	go func() {
		defer g.Leave()
		f(g.Context())
	}()
	return true
}

// Enter counts the caller's own goroutine in, until Leave: Close waits for it.
// After the end it does not, and returns false.
func (g *Group) Enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return false
	}
	g.wg.Add(1)
	return true
}

// Leave counts the caller's goroutine out: once for each Enter that returned true.
func (g *Group) Leave() { g.wg.Done() }

// Context returns the context that ends with the group. It has no deadline.
func (g *Group) Context() context.Context {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.contextLocked()
}

func (g *Group) contextLocked() context.Context {
	if g.ctx == nil {
		g.ctx, g.cancel = context.WithCancelCause(context.Background())
	}
	return g.ctx
}

// Done returns a channel that is closed when the end begins: it is
// Context().Done().
func (g *Group) Done() <-chan struct{} { return g.Context().Done() }

// Ended reports whether the end has begun.
func (g *Group) Ended() bool { return g.Context().Err() != nil }

// End cancels the group's context and lets nothing begin from now on. It does
// not wait. It reports whether the end began with this call.
func (g *Group) End() bool { return g.EndWith(nil) }

// EndWith is End with a cause, which context.Cause tells of the group's context;
// nil is context.Canceled.
func (g *Group) EndWith(cause error) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := !g.ended
	g.ended = true
	g.contextLocked()
	g.cancel(cause)
	return first
}

// Wait blocks until nothing of the group runs. Call it after End: what begins
// during an earlier call may be missed.
func (g *Group) Wait() { g.wg.Wait() }

// Close is End, and waits until nothing of the group runs. Each call waits, so a
// goroutine of the group must not make one.
func (g *Group) Close() {
	g.End()
	g.Wait()
}
