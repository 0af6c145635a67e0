package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/cmd/peerchat/internal/codes"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
	"peerlink/internal/escape"
)

const (
	// maxSigned is how many bytes two devices may say that have proven a code:
	// certificates, a device list, and the lengths before them.
	maxSigned = identity.MaxChainLen*identity.MaxCertLen + identity.MaxDeviceListLen + 64
	// maxReason is the length of a reason in bytes.
	maxReason = 255
)

var (
	// errManyDevices says why a device stays in its account.
	errManyDevices = errors.New("this device holds the key of an account that has other devices: they could not be revoked, and none be added, without it; take a device without an account, or another folder (--account)")
	// errNoKey says which device can sign.
	errNoKey = errors.New("this device does not hold its account's key: sign and revoke on the device with which the account was made (peerchat device list shows which one signs)")
)

// addDevice shows a code by which this device comes into another account, for as
// long as the command is there.
func (d *Daemon) addDevice(ctx context.Context, what control.Join, begin func() error, tell func(control.CodeEvent) error) error {
	name, err := d.myName(what.Name)
	if err != nil {
		return err
	}
	if l := d.acc.Devices(); l != nil && len(l.Devices()) > 1 && d.acc.Identity().HoldsAccount() {
		return errManyDevices
	}
	select {
	case d.adding <- struct{}{}:
		defer func() { <-d.adding }()
	default:
		return errors.New("this device shows a code already: use that one, or end the command that shows it")
	}
	by, err := d.codes.Show(ctx, codes.Showing{
		Purpose: codes.Device, Code: showing(begin, tell),
		Serve: func(_ context.Context, conn net.Conn, peer identity.Peer) error {
			return d.takeSigned(conn, peer, name)
		},
		Failed: func(err error, _ int) {
			_ = tell(control.CodeEvent{Step: control.CodeNote, Why: err.Error()})
		},
	})
	if err != nil {
		return err
	}
	return tell(control.CodeEvent{Step: control.CodeUsed, Joined: &control.Joined{Account: by.Account.String(), Name: name, By: by}})
}

// signedMessages are what two devices that have proven a code say to each other.
func signedMessages(conn net.Conn) *peerlink.Messages {
	return peerlink.NewMessages(&boundedConn{Conn: conn, left: maxSigned})
}

// takeSigned has a device that has proven the code sign this one, and comes into
// its account.
func (d *Daemon) takeSigned(conn net.Conn, by identity.Peer, name string) error {
	ms := signedMessages(conn)
	if err := ms.Send([]byte(name)); err != nil {
		return err
	}
	list, chain, err := readSigned(ms)
	if err != nil {
		return err
	}
	if err := d.adopt(by, chain, list); err != nil {
		_ = ms.Send([]byte(escape.Cap("no: "+err.Error(), maxReason)))
		return err
	}
	_ = ms.Send([]byte("ok")) // it is so, whether the other one hears it or not
	return nil
}

// adopt checks what the other device has signed: the account must be the one that
// the device has proven, and the name the one that was asked for.
func (d *Daemon) adopt(by identity.Peer, chain [][]byte, list []byte) error {
	p, err := identity.VerifyChain(chain, time.Now())
	switch {
	case err != nil:
		return err
	case p.Account != by.Account:
		return fmt.Errorf("a certificate of account %s, from a device of account %s", p.Account.Short(), by.Account.Short())
	}
	return d.acc.Adopt(chain, list)
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

// signDevice takes the device that shows a code into the account.
func (d *Daemon) signDevice(ctx context.Context, what control.Sign) (out control.Signed, err error) {
	if !d.acc.Identity().HoldsAccount() {
		return out, errNoKey
	}
	if what.Name != "" {
		if err := identity.CheckName(what.Name); err != nil {
			return out, err
		}
	}
	s := signer{d: d, name: what.Name}
	err = d.useCode(ctx, what.Code, codes.Device, func(_ context.Context, conn *channel.Socket, peer identity.Peer) error {
		out.Device = peer.Device
		return s.sign(conn, peer)
	})
	if err != nil && !s.sent {
		return out, err
	}
	out.Name, out.Unsure = s.name, err != nil
	_, out.Told = d.devices.push(ctx, out.Device)
	return out, nil
}

// signer is one device on the way to sign another.
type signer struct {
	d    *Daemon
	name string // what the other is to be called; "" until it has said so
	sent bool   // it has the certificate, perhaps, and has said nothing against it
}

// sign signs a device that has proven the code, and hears whether that is in the
// account now.
func (s *signer) sign(conn *channel.Socket, peer identity.Peer) error {
	ms := signedMessages(conn)
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
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	s.sent = true
	b, err := ms.Receive()
	if err != nil {
		return err
	}
	if why, no := strings.CutPrefix(string(b), "no: "); no || string(b) != "ok" {
		s.sent = false
		return codes.Final(fmt.Errorf("the other device does not take it: %q", escape.Cap(why, maxReason)))
	}
	return nil
}

// certify makes the certificate and sends it.
func (s *signer) certify(ms *peerlink.Messages, peer identity.Peer) error {
	chain, list, err := s.d.acc.SignDevice(peer, s.name)
	if err != nil {
		s.sent = false
		return codes.Final(err)
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
