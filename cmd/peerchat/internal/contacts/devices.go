package contacts

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"peerlink/identity"
)

const (
	// seenEvery is how far what the disk has of a device's Seen may lag behind.
	seenEvery = 10 * time.Minute
	// What links show of one contact is written at most this often at once, and then
	// once in so long: its devices cause it. In between it is known here alone.
	writesAtOnce = 16
	writesEvery  = time.Minute
)

// check reports what cannot be in a file, besides what with refuses.
func (c Contact) check() error {
	switch {
	case len(c.Devices) > identity.MaxDevices:
		return fmt.Errorf("contact %q: %d devices, at most %d are kept", c.Name, len(c.Devices), identity.MaxDevices)
	case c.Account.IsZero() && (len(c.Devices) > 0 || c.Number > 0):
		return fmt.Errorf("contact %q: devices of no account", c.Name)
	case !c.Account.IsZero() && !c.Home.IsZero():
		return fmt.Errorf("contact %q: two accounts", c.Name)
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

// Lives returns the account under which devices are the contact's; zero: none has
// been proven yet.
func (c Contact) Lives() identity.AccountID {
	if c.Account.IsZero() {
		return c.Home
	}
	return c.Account
}

// Is reports whether a device that a handshake has proven is the contact's: one of
// its account, or the device that it was added with, under the account where that
// was first.
func (c Contact) Is(p identity.Peer) bool {
	if !c.Account.IsZero() {
		return c.Account == p.Account
	}
	return c.Device == p.Device && (c.Home.IsZero() || c.Home == p.Account)
}

// owner returns the contact that a device is known as one of. A contact added with
// this device wins over one whose account has it.
func owner(es []Contact, id identity.DeviceID) (Contact, bool) {
	if c, ok := addedWith(es, id); ok {
		return c, true
	}
	return first(es, func(c Contact) bool { return c.place(id) >= 0 })
}

func addedWith(es []Contact, id identity.DeviceID) (Contact, bool) {
	return first(es, func(c Contact) bool { return c.Device == id })
}

// first returns the first contact that is as wanted; false: none is.
func first(es []Contact, wanted func(Contact) bool) (Contact, bool) {
	i := slices.IndexFunc(es, wanted)
	if i < 0 {
		return Contact{}, false
	}
	return es[i], true
}

// Of returns the contact that a device is known as one of; false: none is. It says
// nothing about a device that has proven itself: see OfPeer.
func (b *Book) Of(id identity.DeviceID) (Contact, bool) {
	return owner(b.list.All(), id)
}

// OfPeer returns the contact of a device that a handshake has proven (Contact.Is).
// What was once known of it does not count, and a contact that was added with the
// device goes before one that names its account.
func (b *Book) OfPeer(p identity.Peer) (Contact, bool) { return ofPeer(b.list.All(), p) }

func ofPeer(es []Contact, p identity.Peer) (Contact, bool) {
	if c, ok := addedWith(es, p.Device); ok && c.Is(p) {
		return c, true
	}
	return ofAccount(es, p.Account)
}

// AtHome reports whether a contact that was added with p's device still has it: the
// device comes under the contact's account, or none has been proven yet. known is
// false if no contact was added with it.
func (b *Book) AtHome(p identity.Peer) (home, known bool) {
	c, known := addedWith(b.list.All(), p.Device)
	return known && c.Is(p), known
}

func ofAccount(es []Contact, id identity.AccountID) (Contact, bool) {
	return first(es, func(c Contact) bool { return !id.IsZero() && c.Account == id })
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
// it. A contact that was added with the device, but under another account, stays as
// it is. It does nothing for others. An error is of the disk, or says which bound was
// met.
func (b *Book) Met(p identity.Peer, now time.Time) error {
	now = now.UTC().Truncate(time.Second)
	return b.list.Change(func(es []Contact) ([]Contact, bool, error) {
		es, c, worth := met(es, p, now)
		if worth < proven && (worth == seen || !b.writes.Allow(c.Device, now)) {
			return es, false, nil
		}
		return bounded(es)
	})
}

// Shown takes note of the account under which a device comes, for MovedTo, and
// reports whether that is news. It writes nothing.
func (b *Book) Shown(p identity.Peer) (news bool) {
	home, known := b.AtHome(p)
	if !known || p.Account.IsZero() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.moved[p.Device]
	if home {
		delete(b.moved, p.Device)
		return !was.IsZero()
	}
	b.moved[p.Device] = p.Account
	return was != p.Account
}

// MovedTo returns the account under which the device that a contact was added with
// came last (Shown), if that is not the contact's; zero: it is, or the device did not
// come since the book was opened.
func (b *Book) MovedTo(id identity.DeviceID) identity.AccountID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.moved[id]
}

// Follow has a contact, named by its name or id, move with the device that it was
// added with into another account; the zero account is the one that the device proves
// next. The contact's other devices are not its any more.
func (b *Book) Follow(who string, to identity.AccountID) error {
	return b.change(func(es []Contact) ([]Contact, error) {
		i, err := at(es, who)
		if err != nil {
			return nil, err
		}
		c := es[i]
		c.Account, c.Home, c.Number, c.Devices = to, identity.AccountID{}, 0, nil
		if other, taken := ofAccount(es, to); taken && other.Device != c.Device {
			c.Account, c.Home = identity.AccountID{}, to
		}
		b.settled(c.Device)
		return replaced(es, c), nil
	})
}

// settled forgets under which account a device came.
func (b *Book) settled(id identity.DeviceID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.moved, id)
}

// bounded is a change to be written, unless the contacts have too many devices.
func bounded(es []Contact) ([]Contact, bool, error) {
	if known(es) > maxKnown {
		return nil, false, fmt.Errorf("contacts: %d devices are the most that are kept: remove some contacts", maxKnown)
	}
	return es, true, nil
}

// What a link has shown of a contact, by what a write of it is worth.
const (
	seen   = iota // nothing but that there was one
	told          // a device more or less, or another name of it
	proven        // the contact's account
)

// met returns the entries after a link to a device, the contact that it was about,
// and what is new.
func met(es []Contact, p identity.Peer, now time.Time) (out []Contact, c Contact, worth int) {
	if p.Account.IsZero() {
		return es, c, seen
	}
	if c, left := first(es, func(c Contact) bool { return c.place(p.Device) >= 0 && !c.Is(p) }); left {
		c.Devices = slices.DeleteFunc(slices.Clone(c.Devices), func(d Device) bool { return d.Device == p.Device })
		es, _, also := met(replaced(es, c), p, now)
		return es, c, max(also, told)
	}
	c, ok := ofPeer(es, p)
	if !ok {
		return es, c, seen
	}
	if c.Account.IsZero() {
		if other, taken := ofAccount(es, p.Account); taken && other.Device != c.Device {
			if c.Home == p.Account {
				return es, c, seen
			}
			c.Home = p.Account
			return replaced(es, c), c, proven
		}
		c.Account, c.Home, worth = p.Account, identity.AccountID{}, proven
	}
	here := Device{p.Device, p.Name, now}
	i := c.place(p.Device)
	switch {
	case i >= 0:
		if was := c.Devices[i]; was.Name != p.Name || now.Sub(was.Seen) >= seenEvery {
			worth = told
		}
		c.Devices = slices.Clone(c.Devices)
		c.Devices[i] = here
	case len(c.Devices) >= identity.MaxDevices:
		return es, c, seen
	default:
		c.Devices, worth = append(slices.Clone(c.Devices), here), max(worth, told)
	}
	return replaced(es, c), c, worth
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
