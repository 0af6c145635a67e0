package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"peerlink"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/invite"
	"peerlink/identity"
)

const (
	// contactPurpose is what a code of a contact is for (package invite).
	contactPurpose = "contact"
	// maxOpenInvites is how many codes are good at once.
	maxOpenInvites = 4
	// maxComers is how many devices may prove one code at once, and
	// maxComerTries how many proofs may be one device's: a lost one may still wait
	// for its time-out when it comes again.
	maxComers     = 16
	maxComerTries = 4
	// confirmWait is how long a device that has proven a code may come again
	// before it is taken to have heard that it did.
	confirmWait = 30 * time.Second
	// lastWordWait is how long proofs that run when a code dies may take to say
	// so to the other side.
	lastWordWait = time.Second
)

// inviteURI is the channel on which a code is proven. It is listened on only
// while the invite is open, so that is all a stranger can reach by it.
func inviteURI(number int) string { return fmt.Sprintf("invite://%d", number) }

// inviteHandlers are what commands can ask about invites.
func (d *Daemon) inviteHandlers() map[string]control.Handler {
	return map[string]control.Handler{
		control.OpAccept: d.accept,
		control.OpInvite: func(ctx context.Context, c *control.Call) error {
			select {
			case d.inviting <- struct{}{}:
			default:
				return fmt.Errorf("%d invites are open: wait until one is used, or end one", maxOpenInvites)
			}
			defer func() { <-d.inviting }()
			return d.invite(ctx, c)
		},
	}
}

// invite holds a code open for as long as the command is there.
func (d *Daemon) invite(ctx context.Context, c *control.Call) error {
	var what control.Invite
	if err := c.Decode(&what); err != nil {
		return err
	}
	in := &openInvite{d: d, name: what.Name, guard: invite.NewGuard(), tries: map[identity.DeviceID]int{}, events: make(chan control.InviteEvent, maxComers)}
	var err error
	if in.me, err = d.beforeMeeting(what.Name, what.Me); err != nil {
		return err
	}
	number, until, err := invite.Claim(ctx, rendezvous{d.acc})
	if err != nil {
		return err
	}
	if what.Within > 0 && what.Within < invite.Life {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, what.Within, fmt.Errorf("nobody used the code in %v", what.Within))
		defer cancel()
	}
	in.code = invite.Code{Number: number, Words: invite.NewWords()}
	l, err := d.acc.ConnectionManager().Listen(inviteURI(number))
	if err != nil {
		return err
	}
	if err := c.Answer(nil); err != nil {
		return errors.Join(err, l.Close())
	}
	in.tell(control.InviteEvent{Step: control.InviteCode, Code: in.code.String(), Until: endOf(ctx, until)})
	go func() {
		defer close(in.events)
		in.run(ctx, l, until)
	}()
	for e := range in.events {
		if err == nil {
			err = c.Answer(e) // after an error ctx is about to end
		}
	}
	return err
}

// endOf is when a code is good no more.
func endOf(ctx context.Context, until time.Time) time.Time {
	if at, ok := ctx.Deadline(); ok && at.Before(until) {
		return at
	}
	return until
}

// openInvite is a code that is good.
type openInvite struct {
	d        *Daemon
	name, me string
	code     invite.Code
	guard    *invite.Guard
	events   chan control.InviteEvent

	mu    sync.Mutex
	tries map[identity.DeviceID]int // proofs that run, by who comes
	met   control.Met               // once the code was proven
	told  bool                      // the other device keeps this one
	grace *time.Timer               // then
	over  func(error)               // set before anybody comes
}

// Why an invite ends.
var (
	errUsed = errors.New("the code was used")
	errDead = fmt.Errorf("somebody tried wrong words %d times, so the code is good no more: make a new one, and tell it to one person only", invite.MaxWrong)
)

// tell queues an event. There are few: a code, a use, an end and what a guard
// counts.
func (in *openInvite) tell(e control.InviteEvent) { in.events <- e }

// run takes those who come until the invite ends, and tells how.
func (in *openInvite) run(ctx context.Context, l net.Listener, until time.Time) {
	defer in.d.claim(inviteURI(in.code.Number))()
	proving, stopProving := context.WithCancel(ctx)
	defer stopProving()
	ctx, cancel := context.WithCancelCause(ctx)
	in.over = cancel
	var wg sync.WaitGroup
	wg.Go(func() { cancel(invite.Hold(ctx, rendezvous{in.d.acc}, in.code.Number, until)) })
	wg.Go(func() {
		select {
		case <-in.guard.Dead():
			cancel(errDead)
		case <-ctx.Done():
		}
	})
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	places := make(chan struct{}, maxComers)
	for {
		conn, err := l.Accept()
		if err != nil {
			cancel(err) // for nothing where the listener was closed for another reason
			break
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			reset(conn)
			continue
		}
		wg.Go(func() {
			defer func() { <-places }()
			in.serve(proving, conn)
		})
	}
	if errors.Is(context.Cause(ctx), errUsed) {
		stopProving()
	}
	soon := time.AfterFunc(lastWordWait, stopProving)
	defer soon.Stop()
	wg.Wait()
	in.end(context.Cause(ctx))
}

// end tells how the invite ended.
func (in *openInvite) end(why error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.met.Name == "" {
		in.tell(control.InviteEvent{Step: control.InviteOver, Why: why.Error()})
		return
	}
	in.grace.Stop()
	in.met.Unsure = !in.told
	in.tell(control.InviteEvent{Step: control.InviteUsed, Met: &in.met})
}

// enter counts a proof of a device.
func (in *openInvite) enter(id identity.DeviceID) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.tries[id] >= maxComerTries {
		return false
	}
	in.tries[id]++
	return true
}

func (in *openInvite) leave(id identity.DeviceID) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.tries[id]--; in.tries[id] == 0 {
		delete(in.tries, id)
	}
}

// serve lets one device prove the code.
func (in *openInvite) serve(ctx context.Context, conn net.Conn) {
	peer, ok := peerlink.PeerOf(conn)
	if !ok || !in.enter(peer.Device) {
		reset(conn)
		return
	}
	defer in.leave(peer.Device)
	defer conn.Close()
	_, err := invite.Prove(ctx, conn, invite.Terms{
		Role: invite.Inviter, Purpose: contactPurpose, Code: in.code,
		Me: in.d.acc.Identity().DeviceID(), Peer: peer.Device, Guard: in.guard,
	})
	if err == nil {
		err = invite.Introduce(ctx, conn, invite.Inviter, in.me, func(theirs string) error { return in.keep(peer, theirs) })
	}
	switch {
	case err == nil:
		in.mu.Lock()
		in.told = true
		in.mu.Unlock()
		in.over(errUsed)
	case errors.Is(err, invite.ErrWrong):
		in.d.log.Info("invite: wrong words", "device", peer.Device.Short())
		in.tell(control.InviteEvent{Step: control.InviteWrong, Left: invite.MaxWrong - in.guard.Wrong()})
	default:
		in.d.log.Debug("invite: not proven", "device", peer.Device.Short(), "err", err)
	}
}

// keep makes a contact of the device that has proven the code. From then on the
// invite only waits for that device to hear of it.
func (in *openInvite) keep(peer identity.Peer, theirs string) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.met.Name != "" {
		return nil // it was here before, and did not hear the answer
	}
	met, err := in.d.meet(peer, in.name, theirs)
	if err != nil {
		return err
	}
	in.met = met
	in.grace = time.AfterFunc(confirmWait, func() { in.over(errUsed) })
	return nil
}
