package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"peerlink"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/invite"
	"peerlink/identity"
)

const (
	// signWithin is how long signing may take, signTries how often the new device
	// is called: what it has been convinced of it does not forget.
	signWithin = time.Minute
	signTries  = 3
)

// errNoKey says which device can sign.
var errNoKey = errors.New("this device does not hold its account's key: sign and revoke on the device with which the account was made (peerchat device list shows which one signs)")

// sign takes the device that shows a code into the account.
func (d *Daemon) sign(ctx context.Context, c *control.Call) error {
	var what control.Sign
	if err := c.Decode(&what); err != nil {
		return err
	}
	if !d.acc.Identity().HoldsAccount() {
		return errNoKey
	}
	if what.Name != "" {
		if err := identity.CheckName(what.Name); err != nil {
			return err
		}
	}
	code, err := invite.Parse(what.Code)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, signWithin, fmt.Errorf("not within %v", signWithin))
	defer cancel()
	device, err := d.shows(ctx, code, "no device shows a code with the number", "type it on the device that is in the account already")
	if err != nil {
		return err
	}
	s := signer{d: d, code: code, name: what.Name}
	for try := 1; ; try++ {
		err = s.sign(ctx, device)
		if err == nil {
			break
		}
		if s.final(err) || try == signTries || ctx.Err() != nil {
			if s.sent && s.no == nil {
				break // it may well have it, and its answer was lost
			}
			return s.explain(err)
		}
		d.log.Info("device: signing again", "device", device.Short(), "err", err)
	}
	out := control.Signed{Device: device, Name: s.name, Unsure: err != nil}
	_, out.Told = d.devices.push(ctx, device)
	return c.Answer(out)
}

// signer is one device on the way to sign another.
type signer struct {
	d    *Daemon
	code invite.Code
	name string // what the other is to be called; "" until it has said so
	no   error  // what the other device has against it
	sent bool   // it has the certificate, perhaps
}

// sign calls the device that shows the code, proves the code, and signs it.
func (s *signer) sign(ctx context.Context, device identity.DeviceID) error {
	conn, peer, err := s.d.proveTo(ctx, device, joinURI(s.code.Number), devicePurpose, s.code)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer deadline(ctx, conn)()
	ms := peerlink.NewMessages(&boundedConn{Conn: conn, left: maxJoinBytes})
	asked, err := ms.Receive()
	if err != nil {
		return err
	}
	if s.name == "" {
		s.name = string(asked)
		if err := identity.CheckName(s.name); err != nil {
			return fmt.Errorf("what the device wants to be called: %w", err)
		}
	}
	if err := s.certify(ms, peer); err != nil {
		return err
	}
	if err := closeWrite(conn); err != nil {
		return err
	}
	s.sent = true
	return s.verdict(ms)
}

// certify makes the certificate and sends it.
func (s *signer) certify(ms *peerlink.Messages, peer identity.Peer) error {
	chain, list, err := s.d.acc.SignDevice(peer, s.name)
	if err != nil {
		s.no = err
		return err
	}
	s.d.devices.met(identity.Peer{Device: peer.Device, Account: s.d.acc.Identity().AccountID(), Name: s.name}, time.Now())
	b, err := list.MarshalBinary()
	if err != nil {
		return err
	}
	for _, b := range append([][]byte{b}, chain...) {
		if err := ms.Send(b); err != nil {
			return err
		}
	}
	return nil
}

func closeWrite(conn net.Conn) error {
	c, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.New("a channel without an end")
	}
	return c.CloseWrite()
}

// verdict reads whether the device is in the account now.
func (s *signer) verdict(ms *peerlink.Messages) error {
	b, err := ms.Receive()
	if err != nil {
		return err
	}
	if why, no := strings.CutPrefix(string(b), "no: "); no || string(b) != "ok" {
		s.no = fmt.Errorf("the other device does not take it: %q", cut(why))
		return s.no
	}
	return nil
}

// final tells whether trying again would come to the same.
func (s *signer) final(err error) bool {
	var unreachable *peerlink.ConnectError
	return s.no != nil || errors.Is(err, invite.ErrWrong) || errors.Is(err, invite.ErrSpent) || errors.Is(err, peerlink.ErrDeclined) ||
		errors.Is(err, peerlink.ErrRefused) || errors.As(err, &unreachable)
}

// explain says what an error means for who typed the code.
func (s *signer) explain(err error) error {
	switch {
	case errors.Is(err, invite.ErrWrong):
		return fmt.Errorf("%w: one of the words is wrong, or another device pretends to be the new one: look at the code once more; after %d wrong tries it is good no more", err, invite.MaxWrong)
	case errors.Is(err, invite.ErrSpent), errors.Is(err, peerlink.ErrDeclined):
		return fmt.Errorf("the code is used, over, or was guessed at too often: have the new device show another one: %w", err)
	}
	return err
}
