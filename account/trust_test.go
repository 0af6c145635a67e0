package account_test

import (
	"context"
	"errors"
	"testing"

	"peerlink"
	"peerlink/account"
	"peerlink/identity"
	"peerlink/tlssock"
)

// own is a listener of the program's, made when the account is there.
type own struct{ *tlssock.Listener }

// A carrier that the program makes with an account's trust store lets in whom the
// account lets in, before and after a decision changes.
func TestCarrierOfTheProgramHonoursABan(t *testing.T) {
	ctx, dialer, listener := context.Background(), new(tlssock.Dialer), new(own)
	acc, err := account.New(account.Options{Name: "bob", Manager: peerlink.Config{
		Dialers: []peerlink.Dialer{dialer}, Listeners: []peerlink.Listener{listener},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer acc.Close()
	dialer.Config = tlssock.Config{Identity: acc.Identity(), Trust: acc.Trust()}
	if listener.Listener, err = tlssock.Listen(ctx, dialer.Config, "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := acc.Start(ctx); err != nil {
		t.Fatal(err)
	}
	alice, err := identity.Generate("alice")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := tlssock.Listen(ctx, tlssock.Config{Identity: alice}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	for _, decision := range []identity.Decision{identity.Undecided, identity.Banned, identity.Allowed} {
		if err := acc.SetTrust(alice.AccountID(), decision); err != nil {
			t.Fatal(err)
		}
		banned := decision == identity.Banned
		in, _, err := (&tlssock.Dialer{Config: tlssock.Config{Identity: alice}}).DialAddr(ctx, listener.Addrs()[0].String(), acc.Identity().DeviceID())
		if err == nil { // the account's side may refuse after alice's last step
			_, err = in.Read(make([]byte, 1)) // the manager says hello to a device that is let in
			_ = in.Close()
		}
		if refused := errors.Is(err, tlssock.ErrRefused); refused != banned || !banned && err != nil {
			t.Errorf("%v, to the account: %v", decision, err)
		}
		out, _, err := dialer.DialAddr(ctx, theirs.Addrs()[0].String(), alice.DeviceID())
		if err == nil {
			_ = out.Close()
		}
		if refused := errors.Is(err, identity.ErrNotTrusted); refused != banned || !banned && err != nil {
			t.Errorf("%v, from the account: %v", decision, err)
		}
	}
}
