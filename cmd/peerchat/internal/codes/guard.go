package codes

import (
	"errors"
	"fmt"
	"sync"

	"peerlink/identity"
)

// MaxWrong is how many wrong guesses at a code are taken before it is dead: a
// person who mistypes twice still gets in.
const MaxWrong = 3

// Errors of Prove that callers branch on.
var (
	// ErrWrong is matched when the two ends do not have the same words, or mean
	// something else by them.
	ErrWrong = errors.New("the words of the code do not fit")
	// ErrSpent is matched when a code has been used, or guessed at too often.
	ErrSpent = errors.New("the code cannot be used any more")
)

// Guard bounds what can be done with one code: MaxWrong wrong guesses in all,
// and one device that gets through, as often as it comes. Make one with
// NewGuard for each code. Its methods may be called concurrently and do not
// block.
type Guard struct {
	dead chan struct{}

	mu     sync.Mutex
	wrong  int
	winner identity.DeviceID
}

// NewGuard returns the guard of a new code.
func NewGuard() *Guard { return &Guard{dead: make(chan struct{})} }

// Dead is closed when the code was guessed at too often.
func (g *Guard) Dead() <-chan struct{} { return g.dead }

// Wrong is how many wrong guesses there have been.
func (g *Guard) Wrong() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.wrong
}

// Winner is the device that has proven the code, the zero id before.
func (g *Guard) Winner() identity.DeviceID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.winner
}

// admit tells whether a device need try at all.
func (g *Guard) admit(peer identity.DeviceID) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.check(peer)
}

// check is admit with g.mu held.
func (g *Guard) check(peer identity.DeviceID) error {
	switch {
	case g.wrong >= MaxWrong:
		return fmt.Errorf("%w: it was guessed at %d times", ErrSpent, g.wrong)
	case !g.winner.IsZero() && g.winner != peer:
		return fmt.Errorf("%w: another device has used it", ErrSpent)
	}
	return nil
}

// judge decides about a guess. It is asked before the guesser learns anything,
// so that a hundred guesses made at once are no more than three.
func (g *Guard) judge(peer identity.DeviceID, right bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.check(peer); err != nil {
		return err
	}
	if right {
		g.winner = peer
		return nil
	}
	if g.wrong++; g.wrong < MaxWrong {
		return ErrWrong
	}
	close(g.dead)
	return fmt.Errorf("%w: %w: it was guessed at %d times", ErrWrong, ErrSpent, g.wrong)
}
