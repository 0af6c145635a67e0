package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/cmd/peerchat/internal/contacts"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/invite"
	"peerlink/identity"
	"peerlink/internal/escape"
)

const (
	// acceptWithin is how long using a code may take, acceptTries how often the
	// inviting device is called: what it has been convinced of it does not forget.
	acceptWithin = time.Minute
	acceptTries  = 3
	acceptPause  = 250 * time.Millisecond
)

// accept uses a code.
func (d *Daemon) accept(ctx context.Context, c *control.Call) error {
	var what control.AcceptInvite
	if err := c.Decode(&what); err != nil {
		return err
	}
	code, err := invite.Parse(what.Code)
	if err != nil {
		return err
	}
	me, err := d.beforeMeeting(what.Name, what.Me)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, acceptWithin, fmt.Errorf("not within %v", acceptWithin))
	defer cancel()
	device, err := d.shows(ctx, code, "nobody invites under number", "it is for somebody else's")
	if err != nil {
		return err
	}
	j := joiner{d: d, code: code, name: what.Name, me: me}
	for try := 1; ; try++ {
		err = j.join(ctx, device)
		if err == nil {
			return c.Answer(j.met)
		}
		if j.final(err) || try == acceptTries || ctx.Err() != nil {
			return j.explain(ctx, err)
		}
		d.log.Info("invite: trying again", "device", device.Short(), "err", err)
		select { // an invite that is ending is over by then
		case <-time.After(acceptPause):
		case <-ctx.Done():
		}
	}
}

// joiner uses one code.
type joiner struct {
	d        *Daemon
	code     invite.Code
	name, me string
	met      control.Met
}

// join calls the inviting device and proves the code.
func (j *joiner) join(ctx context.Context, device identity.DeviceID) error {
	conn, peer, err := j.d.proveTo(ctx, device, inviteURI(j.code.Number), contactPurpose, j.code)
	if err != nil {
		return err
	}
	defer conn.Close()
	return invite.Introduce(ctx, conn, invite.Joiner, j.me, func(theirs string) (err error) {
		if j.met.Name == "" {
			j.met, err = j.d.meet(peer, j.name, theirs)
		}
		return err
	})
}

// proveTo calls a device that shows a code, and proves that this one knows it.
// The channel is the caller's to close.
func (d *Daemon) proveTo(ctx context.Context, device identity.DeviceID, uri, purpose string, code invite.Code) (net.Conn, identity.Peer, error) {
	conn, err := d.acc.ConnectionManager().ConnectDevice(ctx, device, uri, peerlink.ConnectOptions{})
	if err != nil {
		return nil, identity.Peer{}, err
	}
	peer, ok := peerlink.PeerOf(conn)
	if !ok {
		_ = conn.Close()
		return nil, identity.Peer{}, errors.New("a channel that is no channel")
	}
	if _, err := invite.Prove(ctx, conn, invite.Terms{
		Role: invite.Joiner, Purpose: purpose, Code: code,
		Me: d.acc.Identity().DeviceID(), Peer: peer.Device,
	}); err != nil {
		_ = conn.Close()
		return nil, identity.Peer{}, err
	}
	return conn, peer, nil
}

// final tells whether trying again would come to the same.
func (j *joiner) final(err error) bool {
	var unreachable *peerlink.ConnectError
	return errors.Is(err, invite.ErrWrong) || errors.Is(err, invite.ErrSpent) || errors.Is(err, peerlink.ErrDeclined) ||
		errors.Is(err, peerlink.ErrRefused) || errors.As(err, &unreachable)
}

// explain says what an error means for who typed the code.
func (j *joiner) explain(ctx context.Context, err error) error {
	var hungUp *channel.ResetError
	switch {
	case errors.Is(err, invite.ErrWrong):
		return fmt.Errorf("%w: one of the words is wrong, or another device pretends to be the one that invites: look at the code once more; after %d wrong tries it is good no more", err, invite.MaxWrong)
	case errors.Is(err, invite.ErrSpent), errors.Is(err, peerlink.ErrDeclined):
		return fmt.Errorf("the code is used, over, or was guessed at too often: ask for a new one: %w", err)
	case j.met.Name != "":
		return fmt.Errorf("the other device is the contact %q now, but may not have heard of this one: %w", j.met.Name, err)
	case ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)):
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	case errors.As(err, &hungUp):
		return fmt.Errorf("the other device hung up: perhaps the code was used by somebody else, or is over; ask for a new one: %w", err)
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
	switch d.acc.Trusted(peer.Device) {
	case identity.Banned:
		return control.Met{}, fmt.Errorf("device %s is banned here: %w", peer.Device.Short(), identity.ErrBanned)
	case identity.Undecided:
		if err := d.acc.SetTrust(peer.Device, identity.Allowed); err != nil {
			return control.Met{}, err
		}
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

// shows finds the device that shows a code. nobody begins what is said where none
// does, and elsewhere is where the code belongs if it is this one's own.
func (d *Daemon) shows(ctx context.Context, code invite.Code, nobody, elsewhere string) (identity.DeviceID, error) {
	device, err := rendezvous{d.acc}.FindInvite(ctx, code.Number)
	switch {
	case errors.Is(err, invite.ErrNoInvite):
		return device, notThere{fmt.Errorf("%s %d: the number is wrong, or the code is over, or used", nobody, code.Number)}
	case err == nil && device == d.acc.Identity().DeviceID():
		err = fmt.Errorf("that is this device's own code: %s", elsewhere)
	}
	return device, err
}
