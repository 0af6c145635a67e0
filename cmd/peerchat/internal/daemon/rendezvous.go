package daemon

import (
	"context"
	"errors"
	"time"

	"peerlink/account"
	"peerlink/cmd/peerchat/internal/codes"
	"peerlink/dht"
	"peerlink/identity"
)

// The numbers of codes and their life fit what the DHT takes.
const (
	_ = uint(dht.MaxInviteNumber - codes.MaxNumber)
	_ = uint(dht.MaxInviteLife - codes.Life)
)

// rendezvous is the account as package codes sees it: errors of the DHT match
// the errors that package codes knows.
type rendezvous struct{ acc *account.Account }

// PublishInvite implements codes.Rendezvous.
func (r rendezvous) PublishInvite(ctx context.Context, number int, until time.Time) error {
	err := r.acc.PublishInvite(ctx, number, until)
	if errors.Is(err, dht.ErrInviteTaken) {
		err = known{err, codes.ErrTaken}
	}
	return err
}

// FindInvite implements codes.Rendezvous.
func (r rendezvous) FindInvite(ctx context.Context, number int) (identity.DeviceID, error) {
	id, err := r.acc.FindInvite(ctx, number)
	if errors.Is(err, dht.ErrNoInvite) {
		err = known{err, codes.ErrNoInvite}
	}
	return id, err
}

// known is an error that matches another one, too.
type known struct {
	error
	as error
}

// Is reports that the error matches the other one.
func (k known) Is(target error) bool { return target == k.as }

// Unwrap returns the error itself.
func (k known) Unwrap() error { return k.error }
