package daemon

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"peerlink/account"
	"peerlink/identity"
	"peerlink/internal/contacts"
	"peerlink/internal/control"
)

// ContactsFile are the contacts, in the account's folder (package contacts). It is
// replaced whole, so anybody may read it beside the daemon.
const ContactsFile = "contacts.json"

// book are an account's contacts, and what it decided about them.
type book struct {
	*contacts.Book
	acc *account.Account
}

func openBook(acc *account.Account) (*book, error) {
	b, err := contacts.Open(filepath.Join(acc.Dir(), ContactsFile))
	if err != nil {
		return nil, err
	}
	return &book{b, acc}, nil
}

func (b *book) nameOf(id identity.DeviceID) string { return b.NameOf(id) }

// changeContacts changes the contacts, if it is asked to, and answers them.
func (d *Daemon) changeContacts(_ context.Context, c *control.Call) error {
	var ch control.ContactChange
	if err := c.Decode(&ch); err != nil {
		return err
	}
	if err := d.contacts.change(ch); err != nil {
		if errors.Is(err, contacts.ErrUnknown) {
			err = fmt.Errorf("%w (%w)", err, control.ErrNotFound)
		}
		return err
	}
	all := control.Contacts{Contacts: []control.Contact{}}
	for _, e := range d.contacts.List() {
		all.Contacts = append(all.Contacts, control.Contact{
			Name: e.Name, Device: e.Device, Added: e.Added,
			Trust: d.acc.Trusted(e.Device).String(), Online: d.connected(e.Device),
		})
	}
	return c.Answer(all)
}

// change does what a command asks for; nothing for "".
func (b *book) change(ch control.ContactChange) error {
	switch ch.Do {
	case "":
		return nil
	case "add":
		id, err := identity.ParseDeviceID(ch.Who)
		if err != nil {
			return err
		}
		if id == b.acc.Identity().DeviceID() {
			return errors.New("that is this device's own id")
		}
		return b.Add(ch.Name, id, time.Now())
	case "rename":
		return b.Rename(ch.Who, ch.Name)
	case "remove":
		_, err := b.Remove(ch.Who)
		return err
	case "ban":
		return b.decide(ch.Who, identity.Banned)
	case "allow":
		return b.decide(ch.Who, identity.Allowed)
	case "forget":
		return b.decide(ch.Who, identity.Undecided)
	}
	return fmt.Errorf("contacts cannot be %.40q", ch.Do)
}

// decide bans or allows a device; links to one that is banned close at once.
func (b *book) decide(who string, what identity.Decision) error {
	id, err := b.Resolve(who)
	if err != nil {
		return err
	}
	return b.acc.SetTrust(id, what)
}
