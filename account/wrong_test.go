package account_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"peerlink"
	"peerlink/account"
	"peerlink/tlssock"
)

// Another device answers at the only address that is known: no further round would
// be better, whatever carriers there are to devices of this machine.
//
// case: E17
func TestAnotherDeviceAtTheAddressIsToldAtOnce(t *testing.T) {
	acc, err := account.New(account.Options{Listen: []string{"127.0.0.1:0"}})
	carol := direct(t, acc, err)
	bob, err := account.New(account.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer bob.Close()
	acc, err = account.New(account.Options{LocalDir: runtimeFolder(t)})
	alice := direct(t, acc, err)
	device := bob.Identity().DeviceID()
	if err := alice.Learn(device, carol.Addrs()...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for name, call := range map[string]func() error{
		"ConnectDevice": func() error {
			_, err := alice.ConnectionManager().ConnectDevice(ctx, device, "x://", peerlink.ConnectOptions{})
			return err
		},
		"ConnectAddr": func() error {
			_, err := alice.ConnectionManager().ConnectAddr(ctx, carol.Addrs()[0], device)
			return err
		},
	} {
		err := call()
		var wrong *tlssock.WrongDeviceError
		var failed *peerlink.ConnectError
		if !errors.As(err, &wrong) || wrong.Found != carol.Identity().DeviceID() || !errors.As(err, &failed) || failed.Rounds != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
