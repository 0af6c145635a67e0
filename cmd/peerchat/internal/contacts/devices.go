package contacts

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"peerlink/identity"
)

// seenEvery is how far what the disk has of a device's Seen may lag behind.
const seenEvery = 10 * time.Minute

// check reports what cannot be in a file, besides what with refuses.
func (c Contact) check() error {
	switch {
	case len(c.Devices) > identity.MaxDevices:
		return fmt.Errorf("contact %q: %d devices, at most %d are kept", c.Name, len(c.Devices), identity.MaxDevices)
	case c.Account.IsZero() && (len(c.Devices) > 0 || c.Number > 0):
		return fmt.Errorf("contact %q: devices of no account", c.Name)
	case c.Number > identity.MaxRevocationNumber:
		return fmt.Errorf("contact %q: the list number %d is too high", c.Name, c.Number)
	}
	for i, d := range c.Devices {
		if d.Device.IsZero() {
			return fmt.Errorf("contact %q: a device without an id", c.Name)
		}
		if d.Name != "" {
			if err := identity.CheckName(d.Name); err != nil {
				return fmt.Errorf("contact %q: device %s: %w", c.Name, d.Device.Short(), err)
			}
		}
		if slices.ContainsFunc(c.Devices[:i], func(o Device) bool { return o.Device == d.Device }) {
			return fmt.Errorf("contact %q: device %s is there twice", c.Name, d.Device.Short())
		}
	}
	return nil
}

// known counts the devices of all contacts.
func known(es []Contact) (n int) {
	for _, e := range es {
		n += len(e.Devices)
	}
	return n
}

// place returns where a device is among the contact's, or -1.
func (c Contact) place(id identity.DeviceID) int {
	return slices.IndexFunc(c.Devices, func(d Device) bool { return d.Device == id })
}

// Known returns the contact's devices that may be called: those of its account,
// or, where none is known, Device. Which of them to try first is the caller's to
// say.
func (c Contact) Known() []Device {
	if len(c.Devices) == 0 {
		return []Device{{Device: c.Device}}
	}
	return slices.Clone(c.Devices)
}

// LastSeen returns when there was a link to one of the contact's devices last;
// zero: never.
func (c Contact) LastSeen() (last time.Time) {
	for _, d := range c.Devices {
		if d.Seen.After(last) {
			last = d.Seen
		}
	}
	return last
}

// owner returns the contact that a device belongs to. A contact added with this
// device wins over one whose account has it.
func owner(es []Contact, id identity.DeviceID) (Contact, bool) {
	if c, ok := first(es, func(c Contact) bool { return c.Device == id }); ok {
		return c, true
	}
	return first(es, func(c Contact) bool { return c.place(id) >= 0 })
}

// first returns the first contact that is as wanted; false: none is.
func first(es []Contact, wanted func(Contact) bool) (Contact, bool) {
	i := slices.IndexFunc(es, wanted)
	if i < 0 {
		return Contact{}, false
	}
	return es[i], true
}

// Of returns the contact that has a device; false: none has.
func (b *Book) Of(id identity.DeviceID) (Contact, bool) {
	return owner(b.list.All(), id)
}

// OfPeer returns the contact of a device that a handshake has proven: who was
// added with it, or names its account. What was once known of it does not count.
func (b *Book) OfPeer(p identity.Peer) (Contact, bool) {
	all := b.list.All()
	if c, ok := first(all, func(c Contact) bool { return c.Device == p.Device }); ok {
		return c, true
	}
	return ofAccount(all, p.Account)
}

func ofAccount(es []Contact, id identity.AccountID) (Contact, bool) {
	return first(es, func(c Contact) bool { return !id.IsZero() && c.Account == id })
}

// OfAccount returns the contact that names an account; false: none does.
func (b *Book) OfAccount(id identity.AccountID) (Contact, bool) {
	return ofAccount(b.list.All(), id)
}

// Find returns the contact of a name, or of a device's 64 hex digits. The error
// matches ErrUnknown.
func (b *Book) Find(who string) (Contact, error) {
	all := b.list.All()
	i, err := at(all, who)
	if err != nil {
		return Contact{}, err
	}
	return all[i], nil
}

// NameOf returns what the contact of a device is called, or "".
func (b *Book) NameOf(id identity.DeviceID) string {
	c, _ := b.Of(id)
	return c.Name
}

// Met takes note of a link to a device that has proven itself. If it is a
// contact's, the contact's account is known from then on, and the device as one of
// it. A device that has come into another account takes the contact, which was
// added with it, along. It does nothing for others. An error is of the disk, or
// says which bound was met.
func (b *Book) Met(p identity.Peer, now time.Time) error {
	now = now.UTC().Truncate(time.Second)
	return b.list.Change(func(es []Contact) ([]Contact, bool, error) {
		es, keep := met(es, p, now) // not kept: nothing but that it was seen
		if !keep {
			return es, false, nil
		}
		return bounded(es)
	})
}

// bounded is a change to be written, unless the contacts have too many devices.
func bounded(es []Contact) ([]Contact, bool, error) {
	if known(es) > maxKnown {
		return nil, false, fmt.Errorf("contacts: %d devices are the most that are kept: remove some contacts", maxKnown)
	}
	return es, true, nil
}

// met returns the entries after a link to a device, and whether that is worth a
// write.
func met(es []Contact, p identity.Peer, now time.Time) (out []Contact, keep bool) {
	c, ok := owner(es, p.Device)
	if !ok {
		c, ok = ofAccount(es, p.Account)
	}
	if !ok || p.Account.IsZero() {
		return es, false
	}
	before := c
	if c.Account != p.Account {
		if c.Device != p.Device { // it has left the contact's account
			c.Devices = slices.DeleteFunc(slices.Clone(c.Devices), func(d Device) bool { return d.Device == p.Device })
			return replaced(es, c), true
		}
		c.Account, c.Number, c.Devices = p.Account, 0, nil
		if _, taken := ofAccount(es, p.Account); taken {
			c.Account = identity.AccountID{}
			return replaced(es, c), !before.Account.IsZero()
		}
	}
	i := c.place(p.Device)
	if i < 0 {
		if len(c.Devices) >= identity.MaxDevices {
			return es, false
		}
		c.Devices = append(slices.Clone(c.Devices), Device{p.Device, p.Name, now})
		return replaced(es, c), true
	}
	was := c.Devices[i]
	c.Devices = slices.Clone(c.Devices)
	c.Devices[i] = Device{p.Device, p.Name, now}
	return replaced(es, c), was.Name != p.Name || now.Sub(was.Seen) >= seenEvery
}

// replaced returns the entries with another version of one.
func replaced(es []Contact, c Contact) []Contact {
	out := slices.Clone(es)
	for i, e := range out {
		if strings.EqualFold(e.Name, c.Name) {
			out[i] = c
		}
	}
	return out
}

// Learn takes the device list of a contact's account, if it is newer than the one
// that was learned before, and reports whether it was. Devices that are not on it
// are the contact's no more.
func (b *Book) Learn(l *identity.DeviceList) (changed bool, err error) {
	err = b.list.Change(func(es []Contact) ([]Contact, bool, error) {
		c, ok := ofAccount(es, l.Account())
		if !ok || l.Number() <= c.Number {
			return es, false, nil
		}
		var devices []Device
		for _, d := range l.Devices() {
			seen := time.Time{}
			if i := c.place(d.Device); i >= 0 {
				seen = c.Devices[i].Seen
			}
			devices = append(devices, Device{d.Device, d.Name, seen})
		}
		c.Number, c.Devices, changed = l.Number(), devices, true
		return bounded(replaced(es, c))
	})
	return changed && err == nil, err
}
