package codes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
	"peerlink/internal/pause"
)

const (
	// useWithin is how long using a code may take, useTries how often the device
	// that shows it is called: it does not forget that it was convinced.
	useWithin = time.Minute
	useTries  = 3
	usePause  = 250 * time.Millisecond
)

// finalError is an error after which another try would come to the same.
type finalError struct{ error }

// Unwrap returns the error.
func (e finalError) Unwrap() error { return e.error }

// Final marks an error of what Use is to do: there is no further try after it.
func Final(err error) error { return finalError{err} }

// Use calls the device that shows a code, proves the code to it, and calls do,
// which is bounded by ctx and 30 s. What fails for want of a connection is tried
// three times, within a minute. The error says what to do next; it matches
// ErrNoInvite where no device shows such a code, ErrWrong and ErrSpent.
func (n *Network) Use(ctx context.Context, code Code, p Purpose, do func(ctx context.Context, conn *channel.Socket, peer identity.Peer) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, useWithin, fmt.Errorf("not within %v", useWithin))
	defer cancel()
	device, err := n.Rendezvous.FindInvite(ctx, code.Number)
	switch {
	case errors.Is(err, ErrNoInvite):
		return noInvite{fmt.Sprintf("%s %d: the number is wrong, or the code is over, or used", words[p].nothing, code.Number)}
	case err == nil && device == n.Me:
		err = fmt.Errorf("that is this device's own code: %s", words[p].own)
	}
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := n.use(ctx, device, code, p, do)
		if err == nil || isFinal(err) || try == useTries || ctx.Err() != nil {
			return explain(ctx, p, err)
		}
		n.Logger.Info("a code is tried again", "for", p, "device", device.Short(), "err", err)
		_ = pause.For(ctx, usePause) // a showing that is ending is over by then
	}
}

// use is one try.
func (n *Network) use(ctx context.Context, device identity.DeviceID, code Code, p Purpose, do func(context.Context, *channel.Socket, identity.Peer) error) error {
	conn, err := n.Manager.ConnectDevice(ctx, device, p.URI(code.Number), peerlink.ConnectOptions{})
	if err != nil {
		return err
	}
	defer conn.Close()
	peer, _ := peerlink.PeerOf(conn)
	if _, err := Prove(ctx, conn, Terms{Role: Joiner, Purpose: string(p), Code: code, Me: n.Me, Peer: peer.Device}); err != nil {
		return err
	}
	return bounded(ctx, conn, doTimeout, func() error { return do(ctx, conn, peer) })
}

// isFinal tells whether trying again would come to the same.
func isFinal(err error) bool {
	var unreachable *peerlink.ConnectError
	return errors.As(err, &finalError{}) || errors.Is(err, ErrWrong) || errors.Is(err, ErrSpent) || errors.Is(err, peerlink.ErrDeclined) ||
		errors.Is(err, peerlink.ErrRefused) || errors.As(err, &unreachable)
}

// explain says what an error means for the person at this end.
func explain(ctx context.Context, p Purpose, err error) error {
	var hungUp *channel.ResetError
	again := words[p].again
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrWrong):
		return fmt.Errorf("%w: one of the words is wrong, or another device pretends to be %s: look at the code once more; after %d wrong tries it is good no more", err, words[p].shower, MaxWrong)
	case errors.Is(err, ErrSpent), errors.Is(err, peerlink.ErrDeclined):
		return fmt.Errorf("the code is used, over, or was guessed at too often: %s: %w", again, err)
	case ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)):
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	case errors.As(err, &hungUp):
		return fmt.Errorf("the other device hung up: perhaps the code was used by somebody else, or is over; %s: %w", again, err)
	}
	return err
}

// noInvite is an ErrNoInvite in the words of a purpose.
type noInvite struct{ words string }

// Error returns the words.
func (e noInvite) Error() string { return e.words }

// Is reports that no device shows such a code.
func (noInvite) Is(target error) bool { return target == ErrNoInvite }
