package account

import (
	"context"
	"errors"
	"time"

	"peerlink/dht"
	"peerlink/identity"
	"peerlink/internal/invite"
)

// What codes are made of fits what the DHT takes.
const (
	_ = uint(dht.MaxInviteNumber - invite.MaxNumber)
	_ = uint(dht.MaxInviteLife - invite.Life)
)

var errNoInvites = errors.New("account: invite codes need nodes: set bootstrap in config.json, or give the other person this device's id instead (peerchat id)")

// PublishInvite has this device found under an invite's number until a time that
// is at most 10 min away. It implements invite.Rendezvous.
func (a *Account) PublishInvite(ctx context.Context, number int, until time.Time) error {
	node, err := a.rendezvous()
	if err != nil {
		return err
	}
	if err = node.PublishInvite(ctx, number, until); errors.Is(err, dht.ErrInviteTaken) {
		err = known{err, invite.ErrTaken}
	}
	return err
}

// FindInvite returns the device that invites under a number. It implements
// invite.Rendezvous.
func (a *Account) FindInvite(ctx context.Context, number int) (identity.DeviceID, error) {
	node, err := a.rendezvous()
	if err != nil {
		return identity.DeviceID{}, err
	}
	id, err := node.FindInvite(ctx, number)
	if errors.Is(err, dht.ErrNoInvite) {
		err = known{err, invite.ErrNoInvite}
	}
	return id, err
}

// TakesStrangers says whether devices about which nothing was decided are let in,
// in both directions (SetPolicy).
func (a *Account) TakesStrangers() bool {
	return a.f.trust.Check(identity.Peer{Device: identity.DeviceID{1}}) == nil // nobody's id
}

func (a *Account) rendezvous() (*dht.Node, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.manager == nil:
		return nil, errors.New("account: not started")
	case a.node == nil:
		return nil, errNoInvites
	}
	return a.node, nil
}

// known is an error of the DHT's that package invite has a name for.
type known struct {
	error
	as error
}

// Is reports that the error matches package invite's.
func (k known) Is(target error) bool { return target == k.as }

// Unwrap returns the DHT's error.
func (k known) Unwrap() error { return k.error }
