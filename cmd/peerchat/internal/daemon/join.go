package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"peerlink"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/invite"
	"peerlink/identity"
)

const (
	// devicePurpose is what a code of a new device is for (package invite).
	devicePurpose = "device"
	// joinTimeout is how long two devices that have proven a code may take for
	// the rest: a few kilobytes.
	joinTimeout = 30 * time.Second
	// maxJoinBytes is what either may say in it: certificates, a device list, and
	// the lengths before them.
	maxJoinBytes = identity.MaxChainLen*identity.MaxCertLen + identity.MaxDeviceListLen + 64
	// maxJoinReason is the length of a reason in bytes.
	maxJoinReason = 255
	// maxSigners is how many devices may prove one code at once.
	maxSigners = 16
	// maxNotes is how many notes of a joining wait to be shown.
	maxNotes = 16
)

// joinURI is the channel on which a new device is signed. It is listened on only
// while the code is good.
func joinURI(number int) string { return fmt.Sprintf("device-add://%d", number) }

// errGuessed says why a code is good no more.
var errGuessed = fmt.Errorf("somebody tried wrong words %d times, so the code is good no more: show a new one", invite.MaxWrong)

// errManyDevices says why a device stays in its account.
var errManyDevices = errors.New("this device holds the key of an account that has other devices: they could not be revoked, and none be added, without it; take a device without an account, or another folder (--account)")

// join has this device come into the account of whoever knows the code that it
// shows, for as long as the command is there.
func (d *Daemon) join(ctx context.Context, c *control.Call) error {
	var what control.Join
	if err := c.Decode(&what); err != nil {
		return err
	}
	name := what.Name
	if name == "" {
		name = d.acc.Identity().Name()
	}
	if err := identity.CheckName(name); err != nil {
		return fmt.Errorf("the name for this device: %w", err)
	}
	if l := d.acc.Devices(); l != nil && len(l.Devices()) > 1 && d.acc.Identity().HoldsAccount() {
		return errManyDevices
	}
	select {
	case d.devices.joining <- struct{}{}:
	default:
		return errors.New("this device shows a code already: use that one, or end the command that shows it")
	}
	defer func() { <-d.devices.joining }()
	number, until, err := invite.Claim(ctx, rendezvous{d.acc})
	if err != nil {
		return err
	}
	l, err := d.acc.ConnectionManager().Listen(joinURI(number))
	if err != nil {
		return err
	}
	if err := c.Answer(nil); err != nil {
		return errors.Join(err, l.Close())
	}
	j := &joining{
		d: d, name: name, code: invite.Code{Number: number, Words: invite.NewWords()}, guard: invite.NewGuard(),
		tell: func(v control.Joining) { _ = c.Answer(v) }, // when the command goes, ctx ends
	}
	done, err := j.run(ctx, l, until)
	if err != nil {
		done = control.Joining{Error: err.Error()}
	}
	return c.Answer(done)
}

// joining is a device on its way into an account.
type joining struct {
	d     *Daemon
	name  string
	code  invite.Code
	guard *invite.Guard
	tell  func(control.Joining) // by run alone
}

// run takes those who come until one has signed this device.
func (j *joining) run(ctx context.Context, l net.Listener, until time.Time) (control.Joining, error) {
	defer j.d.claim(joinURI(j.code.Number))()
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer l.Close()
	wg.Go(func() { cancel(invite.Hold(ctx, rendezvous{j.d.acc}, j.code.Number, until)) })
	signed := make(chan control.Joining)
	notes := make(chan string, maxNotes)
	wg.Go(func() { j.accept(ctx, l, signed, notes) })
	j.tell(control.Joining{Code: j.code.String(), Until: until})
	for {
		select {
		case note := <-notes:
			j.tell(control.Joining{Note: note})
		case done := <-signed:
			return done, nil
		case <-j.guard.Dead():
			return control.Joining{}, errGuessed
		case <-ctx.Done():
			return control.Joining{}, context.Cause(ctx)
		}
	}
}

// accept lets devices prove the code, so many at once that one that hangs in it
// keeps nobody waiting. The guard lets one device through.
func (j *joining) accept(ctx context.Context, l net.Listener, signed chan<- control.Joining, notes chan<- string) {
	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, maxSigners)
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			reset(conn)
			continue
		}
		wg.Go(func() {
			defer func() { <-places }()
			defer conn.Close()
			done, err := j.serve(ctx, conn)
			if err == nil {
				select {
				case signed <- done:
				case <-ctx.Done():
				}
				return
			}
			j.d.log.Info("device: not signed", "err", err)
			select {
			case notes <- err.Error():
			default: // there are enough
			}
		})
	}
}

// serve has one device prove that it knows the code, and then sign this one.
func (j *joining) serve(ctx context.Context, conn net.Conn) (done control.Joining, err error) {
	peer, ok := peerlink.PeerOf(conn)
	if !ok {
		return done, errors.New("a channel that is no channel")
	}
	_, err = invite.Prove(ctx, conn, invite.Terms{
		Role: invite.Inviter, Purpose: devicePurpose, Code: j.code,
		Me: j.d.acc.Identity().DeviceID(), Peer: peer.Device, Guard: j.guard,
	})
	if err != nil {
		return done, err
	}
	defer deadline(ctx, conn)()
	ms := peerlink.NewMessages(&boundedConn{Conn: conn, left: maxJoinBytes})
	if err := ms.Send([]byte(j.name)); err != nil {
		return done, err
	}
	list, chain, err := readSigned(ms)
	if err != nil {
		return done, err
	}
	if err := j.adopt(peer, chain, list); err != nil {
		_ = ms.Send([]byte(cut("no: " + err.Error())))
		return done, err
	}
	_ = ms.Send([]byte("ok")) // it is so, whether the other one hears it or not
	by := control.DeviceOf(peer)
	return control.Joining{Account: peer.Account.String(), Name: j.name, By: &by}, nil
}

// adopt checks what the other device has signed: the account must be the one that
// the device has proven, and the name the one that was asked for.
func (j *joining) adopt(by identity.Peer, chain [][]byte, list []byte) error {
	p, err := identity.VerifyChain(chain, time.Now())
	switch {
	case err != nil:
		return err
	case p.Account != by.Account:
		return fmt.Errorf("a certificate of account %s, from a device of account %s", p.Account.Short(), by.Account.Short())
	}
	return j.d.acc.Adopt(chain, list)
}

// readSigned reads a device list and the chain of certificates that follows it.
func readSigned(ms *peerlink.Messages) (list []byte, chain [][]byte, err error) {
	if list, err = ms.Receive(); err != nil {
		return nil, nil, fmt.Errorf("the other device's signature: %w", err)
	}
	for {
		b, err := ms.Receive()
		switch {
		case errors.Is(err, io.EOF) && len(chain) >= 2:
			return list, chain, nil
		case err != nil:
			return nil, nil, fmt.Errorf("the other device's signature: %w", err)
		case len(chain) == identity.MaxChainLen:
			return nil, nil, errors.New("the other device's signature: more certificates than a chain has")
		}
		chain = append(chain, b)
	}
}

// deadline bounds what is done on a connection by joinTimeout, and by ctx until
// the returned function is called.
func deadline(ctx context.Context, conn net.Conn) (release func()) {
	_ = conn.SetDeadline(time.Now().Add(joinTimeout))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// cut bounds what is told to a peer.
func cut(s string) string { return s[:min(len(s), maxJoinReason)] }
