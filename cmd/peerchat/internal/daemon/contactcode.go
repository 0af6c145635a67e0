package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"peerlink/channel"
	"peerlink/cmd/peerchat/internal/codes"
	"peerlink/cmd/peerchat/internal/contacts"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
	"peerlink/internal/escape"
)

const (
	// maxOpenInvites is how many codes for contacts are good at once.
	maxOpenInvites = 4
	// confirmWait is how long a device that has proven a code may come again
	// before it is taken to have heard that it did.
	confirmWait = 30 * time.Second
)

// invite shows a code for a contact for as long as the command is there.
func (d *Daemon) invite(ctx context.Context, what control.Invite, begin func() error, tell func(control.CodeEvent) error) error {
	select {
	case d.inviting <- struct{}{}:
		defer func() { <-d.inviting }()
	default:
		return fmt.Errorf("%d invites are open: wait until one is used, or end one", maxOpenInvites)
	}
	me, err := d.beforeMeeting(what.Name, what.Me)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex // guards met
	var met control.Met
	keep := func(peer identity.Peer, theirs string) (err error) {
		mu.Lock()
		defer mu.Unlock()
		if met.Name != "" {
			return nil // it was here before, and did not hear the answer
		}
		if met, err = d.meet(peer, what.Name, theirs); err == nil {
			time.AfterFunc(confirmWait, func() { cancel(errors.New("the other device has not come again")) })
		}
		return err
	}
	_, err = d.codes.Show(ctx, codes.Showing{
		Purpose: codes.Contact, Within: what.Within, Code: showing(begin, tell),
		Serve: func(ctx context.Context, conn net.Conn, peer identity.Peer) error {
			return codes.Introduce(ctx, conn, codes.Inviter, me, func(theirs string) error { return keep(peer, theirs) })
		},
		Failed: func(err error, left int) {
			if errors.Is(err, codes.ErrWrong) {
				_ = tell(control.CodeEvent{Step: control.CodeWrong, Left: left})
			}
		},
	})
	if met.Name == "" {
		return err
	}
	met.Unsure = err != nil
	return tell(control.CodeEvent{Step: control.CodeUsed, Met: &met})
}

// showing tells a command of its code. When the command goes, ctx ends.
func showing(begin func() error, tell func(control.CodeEvent) error) func(codes.Code, time.Time) {
	return func(c codes.Code, until time.Time) {
		_ = begin()
		_ = tell(control.CodeEvent{Step: control.CodeShown, Code: c.String(), Until: until})
	}
}

// accept uses a code for a contact.
func (d *Daemon) accept(ctx context.Context, what control.AcceptInvite) (met control.Met, err error) {
	me, err := d.beforeMeeting(what.Name, what.Me)
	if err != nil {
		return met, err
	}
	err = d.useCode(ctx, what.Code, codes.Contact, func(ctx context.Context, conn *channel.Socket, peer identity.Peer) error {
		return codes.Introduce(ctx, conn, codes.Joiner, me, func(theirs string) (err error) {
			if met.Name == "" {
				met, err = d.meet(peer, what.Name, theirs)
			}
			return err
		})
	})
	if err != nil && met.Name != "" {
		err = fmt.Errorf("the other device is the contact %q now, but may not have heard of this one: %w", met.Name, err)
	}
	return met, err
}

// useCode uses a code that was typed.
func (d *Daemon) useCode(ctx context.Context, typed string, p codes.Purpose, do func(context.Context, *channel.Socket, identity.Peer) error) error {
	code, err := codes.Parse(typed)
	if err == nil {
		err = d.codes.Use(ctx, code, p, do)
	}
	if errors.Is(err, codes.ErrNoInvite) {
		err = notThere(err)
	}
	return err
}

var errNoStrangers = errors.New("this account lets only those connect who were allowed (its policy is to refuse others), so nobody new could prove a code: add the device by its id and allow it (peerchat contacts add, peerchat contacts allow)")

// beforeMeeting finds out what would keep a code from being used here, and
// returns what this device suggests to be called.
func (d *Daemon) beforeMeeting(name, me string) (string, error) {
	if !d.acc.TakesStrangers() {
		return "", errNoStrangers
	}
	if err := d.contacts.free(name); err != nil {
		return "", err
	}
	return d.myName(me)
}

// myName is what this device suggests to be called.
func (d *Daemon) myName(asked string) (string, error) {
	if asked == "" {
		return d.acc.Identity().Name(), nil
	}
	if err := identity.CheckName(asked); err != nil {
		return "", fmt.Errorf("the name for this device: %w", err)
	}
	return asked, nil
}

// free tells why a name cannot be that of a new contact; "" can always be.
func (b *book) free(name string) error {
	if name == "" {
		return nil
	}
	if err := contacts.CheckName(name); err != nil {
		return err
	}
	if _, err := b.Resolve(name); err == nil {
		return fmt.Errorf("the name %q is %w", name, contacts.ErrTaken)
	}
	return nil
}

// meet makes a contact of a device that has proven a code, and allows it. What
// it suggests to be called is a stranger's word: it must be a contact's name, and
// no other contact's.
func (d *Daemon) meet(peer identity.Peer, wanted, suggested string) (control.Met, error) {
	if d.acc.Trusted(peer.Device) == identity.Banned {
		return control.Met{}, fmt.Errorf("device %s is banned here: %w", peer.Device.Short(), identity.ErrBanned)
	}
	if err := d.contacts.displaced(peer); err != nil { // it may be another person's now
		return control.Met{}, err
	}
	if err := d.acc.AllowPeer(peer); err != nil {
		return control.Met{}, err
	}
	now := time.Now()
	if known, ok := d.contacts.OfPeer(peer); ok {
		return control.Met{Name: known.Name, Device: peer.Device, Known: true}, d.contacts.Met(peer, now)
	}
	base := wanted
	if base == "" {
		base = suitable(suggested, peer)
	}
	name := base
	for n := 2; ; n++ {
		err := d.contacts.Add(name, peer.Device, now)
		if err == nil {
			return control.Met{Name: name, Device: peer.Device}, d.contacts.Met(peer, now)
		}
		if !errors.Is(err, contacts.ErrTaken) || n > contacts.MaxContacts {
			return control.Met{}, err
		}
		tail := fmt.Sprintf(" %d", n)
		start, _ := escape.Cut(base, identity.MaxNameLen-len(tail))
		name = strings.TrimSpace(start) + tail
	}
}

// suitable makes a contact's name of what a device suggests, of what its
// certificate says, or of its id.
func suitable(suggested string, peer identity.Peer) string {
	for _, s := range []string{suggested, peer.Name} {
		s = strings.TrimLeft(strings.TrimSpace(strings.NewReplacer("@", " ", "/", " ", ":", " ").Replace(s)), "- ")
		if contacts.CheckName(s) == nil {
			return s
		}
	}
	return "device " + peer.Device.Short()
}
