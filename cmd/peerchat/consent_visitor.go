package main

import (
	"context"
	"fmt"
	"strings"

	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
)

// visitor is a device that has come, as this account knows it.
type visitor struct {
	// name is for people: the account's own name for the device, or in so many words
	// a stranger. It is safe to print.
	name string
	// member says that the device is a contact's or one's own: files may come from it
	// unasked, and room is kept for it.
	member bool
	// contact is the contact's name; empty: the device is no contact's.
	contact string
	// moved says that the contact's device is in another account now.
	moved bool
}

// know asks the daemon for what this account calls a device. Where the daemon does not
// tell, it is a stranger. An account that p does not name is not proven.
func (c *consent) know(ctx context.Context, p identity.Peer) visitor {
	all, err := control.OpContacts.Ask(ctx, c.s.client, control.ContactChange{})
	if err != nil {
		return ofStranger(p)
	}
	if k := contactOfPeer(all.Contacts, p); k != nil {
		return ofContact(*k, p)
	}
	own, err := control.OpDevices.Ask(ctx, c.s.client, control.None{})
	if err != nil {
		return ofStranger(p)
	}
	home := p.Account.String() == own.Account
	for _, d := range own.Devices {
		if d.Device == p.Device && !d.Revoked && (home || p.Account.IsZero()) {
			return ofOwn(p.Device, d.Name, home)
		}
		if d.Device == p.Device {
			return ofStranger(p)
		}
	}
	if home && !p.Account.IsZero() {
		return ofOwn(p.Device, p.Name, true)
	}
	return ofStranger(p)
}

// contactOfPeer returns the contact of a device: one that was added with it goes before one
// in whose account it is. A device that was in that account and is no more is not its.
func contactOfPeer(all []control.Contact, p identity.Peer) *control.Contact {
	var out *control.Contact
	for i, k := range all {
		switch {
		case k.Device == p.Device:
			return &all[i]
		case out == nil && deviceOf(k.Devices, p.Device) != nil && (p.Account.IsZero() || p.Account.String() == k.Account):
			out = &all[i]
		}
	}
	return out
}

func deviceOf(all []control.ContactDevice, id identity.DeviceID) *control.ContactDevice {
	for i := range all {
		if all[i].Device == id {
			return &all[i]
		}
	}
	return nil
}

// ofContact is about the device of a contact: "bob", or "bob (phone)" if he has
// several.
func ofContact(k control.Contact, p identity.Peer) visitor {
	name := printable(k.Name)
	switch {
	case k.Moved != "" && k.Device == p.Device:
		return visitor{name: fmt.Sprintf("a device that was %s's and is in another account now (%s)", name, p.Device.Short()), contact: k.Name, moved: true}
	case k.Trust == identity.Banned.String():
		return visitor{name: name + " (banned)", contact: k.Name}
	case len(k.Devices) > 1:
		called := p.Device.Short()
		if d := deviceOf(k.Devices, p.Device); d != nil && d.Name != "" {
			called = printable(d.Name)
		}
		name = fmt.Sprintf("%s (%s)", name, called)
	}
	return visitor{name: name, member: true, contact: k.Name}
}

func ofOwn(id identity.DeviceID, name string, proven bool) visitor {
	if name == "" {
		name = "device " + id.Short()
	}
	return visitor{name: "your " + printable(name), member: proven}
}

// ofStranger is for a device that this account has no name for. The name that it gives
// itself could be a contact's, so it stands in quotes, which it cannot end.
func ofStranger(p identity.Peer) visitor {
	if p.Name == "" {
		return visitor{name: fmt.Sprintf("a stranger (%s)", p.Device.Short())}
	}
	return visitor{name: fmt.Sprintf(`a stranger that calls itself "%s" (%s)`, strings.ReplaceAll(printable(p.Name), `"`, `'`), p.Device.Short())}
}
