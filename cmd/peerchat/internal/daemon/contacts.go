package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"peerlink/account"
	"peerlink/cmd/peerchat/internal/contacts"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
	"peerlink/internal/pause"
)

// ContactsFile are the contacts, in the account's folder (package contacts). It is
// replaced whole, so anybody may read it beside the daemon.
const ContactsFile = "contacts.json"

// book are an account's contacts, and what it decided about them.
type book struct {
	*contacts.Book
	acc     *account.Account
	changed pause.Bell
}

func openBook(acc *account.Account) (*book, error) {
	b, err := contacts.Open(filepath.Join(acc.Dir(), ContactsFile))
	if err != nil {
		return nil, err
	}
	own := acc.Identity().AccountID()
	acc.Trust().SetMembers(func(p identity.Peer) bool {
		_, known := b.OfPeer(p)
		return known || p.Account == own
	})
	for _, c := range b.List() { // what links have shown before the trust store noted it
		for _, k := range append(slices.Clip(c.Devices), contacts.Device{Device: c.Device, Seen: c.Added}) {
			if home := c.Lives(); !home.IsZero() && !k.Seen.IsZero() {
				acc.Trust().Recall(identity.Peer{Device: k.Device, Account: home})
			}
		}
	}
	return &book{Book: b, acc: acc}, nil
}

// notThere is an error of which a command learns that it is control.ErrNotFound;
// its words say so already.
func notThere(err error) error { return known{err, control.ErrNotFound} }

// changeContacts changes the contacts, if it is asked to, and answers them.
func (d *Daemon) changeContacts(ctx context.Context, ch control.ContactChange) (all control.Contacts, err error) {
	err = d.contacts.change(ch)
	if ch.Do != "" {
		d.contacts.changed.Ring()
		d.forwards.Recheck() // what a contact may, its devices may
		d.partWithBanned(ctx)
	}
	if err != nil {
		if errors.Is(err, contacts.ErrUnknown) {
			err = notThere(err)
		}
		return all, err
	}
	all.Contacts, all.Strangers = []control.Contact{}, "refuse"
	if d.acc.TakesStrangers() {
		all.Strangers = "allow"
	}
	links := d.linked()
	for _, e := range d.contacts.List() {
		all.Contacts = append(all.Contacts, d.contact(e, links))
	}
	return all, nil
}

// linked returns the devices to which there are links, by contact's name.
func (d *Daemon) linked() map[string]map[identity.DeviceID]string {
	out := map[string]map[identity.DeviceID]string{}
	for l := range d.acc.ConnectionManager().Links() {
		if c, ok := d.contacts.OfPeer(l.Peer); ok {
			if out[c.Name] == nil {
				out[c.Name] = map[identity.DeviceID]string{}
			}
			out[c.Name][l.Peer.Device] = l.Peer.Name
		}
	}
	return out
}

// contact describes a contact; a device that has just made its first link is among
// the contact's.
func (d *Daemon) contact(e contacts.Contact, links map[string]map[identity.DeviceID]string) control.Contact {
	linked := links[e.Name]
	out := control.Contact{
		Name: e.Name, Device: e.Device, Added: e.Added, LastSeen: e.LastSeen(),
		Trust: d.contacts.trust(e).String(), Online: len(linked) > 0,
	}
	if to := d.contacts.MovedTo(e.Device); !to.IsZero() {
		out.Moved = to.String()
		for l := range d.acc.ConnectionManager().Links() {
			if l.Peer.Account == to && l.Peer.Device != e.Device {
				out.MovedWith = append(out.MovedWith, control.ContactDevice{Device: l.Peer.Device, Name: l.Peer.Name, Online: true})
			}
		}
	}
	if e.Account.IsZero() {
		return out
	}
	out.Account = e.Account.String()
	rest := maps.Clone(linked)
	for _, k := range e.Known() {
		_, online := linked[k.Device]
		delete(rest, k.Device)
		revoked := errors.Is(d.acc.Trust().Check(identity.Peer{Device: k.Device, Account: e.Account}), identity.ErrRevoked)
		out.Devices = append(out.Devices, control.ContactDevice{Device: k.Device, Name: k.Name, Online: online, LastSeen: k.Seen, Revoked: revoked})
	}
	for _, id := range slices.SortedFunc(maps.Keys(rest), func(a, b identity.DeviceID) int { return bytes.Compare(a[:], b[:]) }) {
		out.Devices = append(out.Devices, control.ContactDevice{Device: id, Name: rest[id], Online: true})
	}
	return out
}

// partTime bounds the wait for the ends of links: as long as a device waits for the
// peer's word (multiplex.Config, CloseTimeout).
const partTime = 2 * time.Second

// partWithBanned returns when no device has a link that may have none: a command that
// bans a device is done when the device is gone.
func (d *Daemon) partWithBanned(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	m := d.acc.ConnectionManager()
	events := m.Events(ctx)
	linked := func() bool {
		for l := range m.Links() {
			if d.acc.Trust().Check(l.Peer) != nil {
				return true
			}
		}
		return false
	}
	if !linked() {
		return
	}
	for range events {
		if !linked() {
			return
		}
	}
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
	case "moved":
		return b.follow(ch.Who, ch.Account)
	case "strangers":
		return b.takeStrangers(ch.Who)
	}
	return fmt.Errorf("contacts cannot be %.40q", ch.Do)
}

// takeStrangers lets strangers in from now on, or refuses them.
func (b *book) takeStrangers(what string) error {
	switch what {
	case "allow":
		return b.acc.SetPolicy(identity.AllowUndecided)
	case "refuse":
		return b.acc.SetPolicy(identity.RefuseUndecided)
	}
	return fmt.Errorf("strangers cannot be %.40q: want allow or refuse", what)
}

// decide bans or allows a contact, all its devices, or a device by its id; links
// to who is banned close at once. What is allowed to a contact is for the account that
// it has proven.
func (b *book) decide(who string, what identity.Decision) error {
	id, err := b.Resolve(who)
	if err != nil {
		return err
	}
	c, _ := b.Find(who) // it may be a device that is no contact's
	home := c.Lives()
	if !c.Account.IsZero() && c.Account != b.acc.Identity().AccountID() && !strings.EqualFold(who, id.String()) {
		if err := b.acc.SetTrust(c.Account, what); err != nil {
			return err
		}
	}
	if what != identity.Allowed || home.IsZero() {
		return b.acc.SetTrust(id, what)
	}
	if to := b.MovedTo(id); !to.IsZero() {
		return errors.Join(b.acc.AllowPeer(identity.Peer{Device: id, Account: home}), movedFrom(c, identity.Peer{Device: id, Account: to}))
	}
	return b.acc.AllowPeer(identity.Peer{Device: id, Account: home})
}

// follow has a contact move to the account under which its device came last or, where
// that was refused, comes next. What was allowed to the contact is for the new account
// then, and for the old one no more. confirmed is the account that the user has
// agreed to, "" any.
func (b *book) follow(who, confirmed string) error {
	c, err := b.Find(who)
	if err != nil {
		return err
	}
	to, was := b.MovedTo(c.Device), b.trust(c)
	switch {
	case was == identity.Banned:
		return fmt.Errorf("%q is banned: allow it first, if it may come back", c.Name)
	case to.IsZero() && b.acc.TakesStrangers():
		return fmt.Errorf("the device of %q did not come under another account since the daemon began: have it call first", c.Name)
	case confirmed != "" && confirmed != to.String():
		return fmt.Errorf("the device of %q is not in account %.8s… any more: look at it again (peerchat contacts)", c.Name, confirmed)
	}
	if was == identity.Allowed {
		if err := b.allowMoved(c, to); err != nil {
			return err
		}
	}
	return b.Follow(who, to)
}

// allowMoved allows a contact in its new account; zero: in the one that its device
// proves next.
func (b *book) allowMoved(c contacts.Contact, to identity.AccountID) error {
	own := b.acc.Identity().AccountID()
	if !c.Account.IsZero() && c.Account != own && b.acc.Trusted(c.Account) == identity.Allowed {
		if err := b.acc.SetTrust(c.Account, identity.Undecided); err != nil {
			return err
		}
	}
	if to.IsZero() {
		return b.acc.SetTrust(c.Device, identity.Allowed)
	}
	return errors.Join(b.acc.SetTrust(to, identity.Allowed), b.acc.AllowPeer(identity.Peer{Device: c.Device, Account: to}))
}

// atHome reports whether what is granted to a device by its id (a rule, a flag) is for
// one that has proven itself: see identity.Trust.AtHome.
func (b *book) atHome(p identity.Peer) bool {
	if home, known := b.AtHome(p); known {
		return home
	}
	return b.acc.Trust().AtHome(p)
}

// shown takes note of the account under which a device comes. A contact follows its
// device into one's own account: the device's owner has signed it there.
func (b *book) shown(p identity.Peer) {
	if !b.Shown(p) {
		return
	}
	if own := b.acc.Identity().AccountID(); b.MovedTo(p.Device) == own {
		_ = b.Follow(p.Device.String(), own) // else the contact stays as it is, and is shown so
	}
	b.changed.Ring()
}

// displaced returns why a device that has proven itself is not taken for the contact
// that was added with it: it comes under another account. It matches
// identity.ErrNotTrusted.
func (b *book) displaced(p identity.Peer) error {
	home, known := b.AtHome(p)
	if home || !known {
		return nil
	}
	b.shown(p)
	if c, _ := b.Of(p.Device); !c.Is(p) {
		return movedFrom(c, p)
	}
	return nil
}

// movedFrom is an error that says that a device has left a contact's account.
func movedFrom(c contacts.Contact, p identity.Peer) error {
	return &movedError{c.Name, &identity.MovedError{Device: p.Device, Home: c.Lives(), Account: p.Account}}
}

// movedError is about a contact's device: what to do is another thing than for a
// device that was allowed by its id.
type movedError struct {
	name  string
	moved *identity.MovedError
}

// Error says what to do, too.
func (e *movedError) Error() string {
	return fmt.Sprintf("%v: this device of %q is in another account now, so it may be another person's (device %s, which was in account %s, is in account %s): ask; if it is still theirs, peerchat contacts moved %[2]q, or else peerchat contacts ban %[2]q",
		identity.ErrNotTrusted, e.name, e.moved.Device, e.moved.Home, e.moved.Account)
}

// Unwrap returns the identity.MovedError.
func (e *movedError) Unwrap() error { return e.moved }

// ofContact is the error of a connect to a device, told in the words of movedError if
// the device is a contact's and that is the cause.
func (b *book) ofContact(to identity.DeviceID, err error) error {
	moved, ok := errors.AsType[*identity.MovedError](err)
	c, known := b.Of(to)
	if !ok || !known {
		return err
	}
	return &movedError{c.Name, moved}
}

// trust returns what was decided about a contact.
func (b *book) trust(c contacts.Contact) identity.Decision {
	if d := b.acc.Trusted(c.Device); d != identity.Undecided || c.Account.IsZero() {
		return d
	}
	return b.acc.Trusted(c.Account)
}

// Add is Book.Add, of which those who watch hear.
func (b *book) Add(name string, id identity.DeviceID, now time.Time) error {
	defer b.changed.Ring()
	return b.Book.Add(name, id, now)
}
