package main

import (
	"context"
	"strings"
	"testing"

	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
)

// Names that this account gave are shown as such; a stranger that takes one of them is
// not to be mistaken for the contact.
func TestVisitorsAreToldApart(t *testing.T) {
	id := func(b byte) identity.DeviceID { return identity.DeviceID{b} }
	account := func(b byte) identity.AccountID { return identity.AccountID{b} }
	h := control.Handlers{}
	control.OpContacts.On(h, func(context.Context, control.ContactChange) (all control.Contacts, err error) {
		all.Contacts = []control.Contact{
			{Name: "bob", Device: id(1), Account: account(1).String(), Devices: []control.ContactDevice{{Device: id(1), Name: "laptop"}, {Device: id(2), Name: "phone"}}},
			{Name: "carol", Device: id(3), Devices: []control.ContactDevice{{Device: id(3), Name: "x"}}},
			{Name: "dave", Device: id(4), Moved: account(9).String()},
			{Name: "eve", Device: id(5), Trust: identity.Banned.String()},
		}
		return all, nil
	})
	control.OpDevices.On(h, func(context.Context, control.None) (control.Devices, error) {
		return control.Devices{Account: account(7).String(), Devices: []control.OwnDevice{{Device: id(7), Name: "phone"}, {Device: id(8), Name: "old", Revoked: true}}}, nil
	})
	l, client := control.Inside()
	s := control.Serve(l, control.Config{Handlers: h})
	c := newConsent(acceptAsk, &session{client: client}, t.Output())
	for _, x := range []struct {
		of   identity.Peer
		want visitor
	}{
		{identity.Peer{Device: id(1), Account: account(1), Name: "mallory"}, visitor{name: "bob (laptop)", member: true, contact: "bob"}},
		{identity.Peer{Device: id(2), Account: account(1)}, visitor{name: "bob (phone)", member: true, contact: "bob"}},
		{identity.Peer{Device: id(2), Account: account(9), Name: "phone"}, visitor{name: `a stranger that calls itself "phone" (02000000)`}},
		{identity.Peer{Device: id(3)}, visitor{name: "carol", member: true, contact: "carol"}},
		{identity.Peer{Device: id(4), Account: account(9)}, visitor{name: "a device that was dave's and is in another account now (04000000)", contact: "dave", moved: true}},
		{identity.Peer{Device: id(5)}, visitor{name: "eve (banned)", contact: "eve"}},
		{identity.Peer{Device: id(7), Account: account(7)}, visitor{name: "your phone", member: true}},
		{identity.Peer{Device: id(7)}, visitor{name: "your phone"}},
		{identity.Peer{Device: id(7), Account: account(9)}, visitor{name: "a stranger (07000000)"}},
		{identity.Peer{Device: id(8), Account: account(7)}, visitor{name: "a stranger (08000000)"}},
		{identity.Peer{Device: id(9), Account: account(7)}, visitor{name: "your device 09000000", member: true}},
		{identity.Peer{Device: id(10), Name: "bob's laptop"}, visitor{name: `a stranger that calls itself "bob's laptop" (0a000000)`}},
		{identity.Peer{Device: id(10), Name: `x", or bob "`}, visitor{name: `a stranger that calls itself "x', or bob '" (0a000000)`}},
	} {
		if got := c.know(t.Context(), x.of); got != x.want {
			t.Errorf("%v is %+v, want %+v", x.of, got, x.want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := c.know(t.Context(), identity.Peer{Device: id(1)}); got.member || !strings.HasPrefix(got.name, "a stranger") {
		t.Errorf("without the daemon's word bob is %+v", got)
	}
}

func TestARefusalSaysHowToTakeTheNextFiles(t *testing.T) {
	for _, x := range []struct {
		of   visitor
		want string
	}{
		{visitor{}, "peerchat contacts add NAME 0100"},
		{visitor{contact: "dave", moved: true}, "peerchat contacts moved dave"},
		{visitor{contact: "eve"}, "peerchat contacts allow eve"},
	} {
		if got := toTake(x.of, identity.DeviceID{1}); !strings.Contains(got, x.want) {
			t.Errorf("%+v: %q", x.of, got)
		}
	}
}
