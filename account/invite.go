package account

import (
	"context"
	"errors"
	"time"

	"peerlink/dht"
	"peerlink/identity"
)

var errNoInvites = errors.New("account: invite codes need nodes: set bootstrap in config.json, or give the other person this device's id instead (peerchat id)")

// PublishInvite has this device found under an invite's number until a time that
// is at most dht.MaxInviteLife (10 min) away. It blocks while nodes are asked,
// until ctx ends. The error matches dht.ErrInviteTaken if another device is found
// there; without nodes the error says how to set some. It may be called
// concurrently.
func (a *Account) PublishInvite(ctx context.Context, number int, until time.Time) error {
	node, err := a.rendezvous()
	if err != nil {
		return err
	}
	return node.PublishInvite(ctx, number, until)
}

// FindInvite returns the device that invites under a number. The error matches
// dht.ErrNoInvite if there is none. It blocks while nodes are asked, until ctx
// ends, and may be called concurrently.
func (a *Account) FindInvite(ctx context.Context, number int) (identity.DeviceID, error) {
	node, err := a.rendezvous()
	if err != nil {
		return identity.DeviceID{}, err
	}
	return node.FindInvite(ctx, number)
}

// TakesStrangers says whether devices about which nothing was decided are let in,
// in both directions (SetPolicy).
func (a *Account) TakesStrangers() bool {
	return a.f.trust.Check(identity.Peer{Device: identity.DeviceID{1}}) == nil // nobody's id
}

func (a *Account) rendezvous() (*dht.Node, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.running(); err != nil {
		return nil, err
	}
	if a.node == nil {
		return nil, errNoInvites
	}
	return a.node, nil
}
