package codes

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"peerlink/identity"
)

const (
	// Life is how long a code can be used.
	Life = 10 * time.Minute
	// republishEvery is how often a number is published again, as nodes come
	// and go.
	republishEvery = time.Minute
	// claims is how many numbers are tried.
	claims = 8
)

// Errors of a Rendezvous.
var (
	// ErrNoInvite is matched when nobody invites under a number.
	ErrNoInvite = errors.New("nobody invites under this number")
	// ErrTaken is matched when another device invites under it.
	ErrTaken = errors.New("another device invites under this number")
)

// Rendezvous is where inviting devices are found by a number: the DHT, through
// the account. What it finds is not believed, but called.
type Rendezvous interface {
	// PublishInvite has this device found under a number until a time at most
	// Life away; it may be called again. The error matches ErrTaken if another
	// device is found there.
	PublishInvite(ctx context.Context, number int, until time.Time) error
	// FindInvite returns the device that is found under a number. The error
	// matches ErrNoInvite if there is none.
	FindInvite(ctx context.Context, number int) (identity.DeviceID, error)
}

// Claim finds a number that nobody uses and publishes it until the returned
// time, Life from now. Small numbers are tried first: they are easier to say. It
// blocks while the network is asked, some seconds at most for each number.
func Claim(ctx context.Context, r Rendezvous) (number int, until time.Time, err error) {
	until = time.Now().Add(Life).Truncate(time.Millisecond)
	for i := range claims {
		low, high := 1, 99
		switch {
		case i >= claims*3/4:
			low, high = 1000, MaxNumber
		case i >= claims/4:
			low, high = 100, 999
		}
		number = low + rand.N(high-low+1)
		switch _, err = r.FindInvite(ctx, number); {
		case err == nil:
			continue // somebody else's
		case !errors.Is(err, ErrNoInvite):
			return 0, time.Time{}, fmt.Errorf("look for a free number: %w", err)
		}
		switch err = r.PublishInvite(ctx, number, until); {
		case err == nil:
			return number, until, nil
		case !errors.Is(err, ErrTaken):
			return 0, time.Time{}, fmt.Errorf("publish the invite's number: %w", err)
		}
	}
	return 0, time.Time{}, fmt.Errorf("no free number for an invite after %d tries: the network is full of invites, or somebody fills it: try again later", claims)
}

// Hold keeps a number published until its time is over (then the error matches
// os.ErrDeadlineExceeded), ctx ends (then it is ctx's cause), or another device
// has taken it, as a hostile node can bring about (then it matches ErrTaken).
// Nodes that do not answer are asked again.
func Hold(ctx context.Context, r Rendezvous, number int, until time.Time) error {
	ctx, cancel := context.WithDeadlineCause(ctx, until, overError{Life})
	defer cancel()
	t := time.NewTicker(republishEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
			if err := r.PublishInvite(ctx, number, until); errors.Is(err, ErrTaken) {
				return fmt.Errorf("the number %d was taken over, so the code is good no more: %w", number, err)
			}
		}
	}
}

// overError is the end of a code's time.
type overError struct{ within time.Duration }

// Error says how long the time was.
func (e overError) Error() string { return fmt.Sprintf("nobody used the code in %v", e.within) }

// Is reports that the error matches os.ErrDeadlineExceeded.
func (overError) Is(target error) bool { return target == os.ErrDeadlineExceeded }
