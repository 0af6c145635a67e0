// Package contacts is a book of names for people and their devices, kept in a
// file.
//
//	book, err := contacts.Open(path)
//	err = book.Add("bob", bobsID, time.Now())
//	id, err := book.Resolve("bob")             // or an id itself
//	err = book.Met(peer, time.Now())           // a link has proven whose device it is
//	_, err = book.Learn(list, time.Now())      // which devices bob's account has
//
// A name is what the owner of the book calls a device; what the device calls
// itself never becomes one by itself. Names are compared without regard to
// case, and none looks like a device id. Each change is on disk, whole, before
// it is seen.
//
// A contact begins as one device. The first link to it proves its account, which
// the contact names from then on: other devices of that account are the contact's,
// too, once they have proven it or the account has listed them. Of two contacts
// with devices of one account the first one named the account, the other its one
// device. A device that comes under another account later is not the contact's
// there, until Follow says that it is.
//
// # Limits
//
// 4 096 contacts, 32 devices of one, 16 384 of all; a file of at most 8 MiB. When
// a device was last seen is on disk to 10 min. A damaged file is an error with its
// place and is never replaced.
package contacts

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"peerlink/cmd/peerchat/internal/strictfile"
	"peerlink/identity"
	"peerlink/internal/quota"
	"peerlink/internal/strictjson"
)

const (
	// MaxContacts is how many a book holds: as many as the TCP dialer remembers
	// devices.
	MaxContacts = 4096
	// maxKnown is how many devices all contacts may have.
	maxKnown = 16384
	maxFile  = 8 << 20 // 4 096 × 450 bytes, and 16 384 × 300
	// shortID is from how many hex digits on a text is taken for a device id, or
	// the beginning of one: as many as a short id has.
	shortID   = 8
	hexDigits = "0123456789abcdef"
)

var (
	// ErrUnknown is matched when there is no contact of a name or id.
	ErrUnknown = errors.New("no such contact")
	// ErrTaken is matched when a name or a device is in the book already.
	ErrTaken = errors.New("already in the contacts")
)

// Contact is an entry of the book.
type Contact struct {
	Name string `json:"name"`
	// Device is the one that the contact was added with, by which its
	// conversation is known. It may be one of the contact's no more.
	Device identity.DeviceID `json:"device"`
	Added  time.Time         `json:"added"`
	// Account is whose devices are the contact's; zero: it is not known yet, or
	// another contact names it.
	Account identity.AccountID `json:"account,omitzero"`
	// Home is under which account Device proved itself, where another contact names
	// that; zero otherwise.
	Home identity.AccountID `json:"home,omitzero"`
	// Number is that of the account's device list; 0: it has shown none.
	Number uint64 `json:"list,omitempty"`
	// Devices are those of the account that are known; none: Device alone. They
	// must not be changed.
	Devices []Device `json:"devices,omitempty"`
}

// Device is a device of a contact.
type Device struct {
	Device identity.DeviceID `json:"device"`
	// Name is what it calls itself; not to be believed.
	Name string `json:"name,omitempty"`
	// Seen is when there was a link last; zero: never.
	Seen time.Time `json:"seen,omitzero"`
}

// Book is a file of contacts. Its methods may be called concurrently; those
// that change it block until the disk has it.
type Book struct {
	list   *strictfile.List[Contact] // by name; their Devices are never changed in place
	writes *quota.Rates[identity.DeviceID]

	mu    sync.Mutex
	moved map[identity.DeviceID]identity.AccountID // what first devices of contacts showed last, where it is not the contact's account
}

// Open reads the book in a file; without the file the book is empty.
func Open(path string) (*Book, error) {
	l := &strictfile.List[Contact]{
		Path: path, Name: "contacts", Limit: maxFile, Parse: parse,
		File: func(es []Contact) any { return file{es} },
	}
	if err := l.Load(); err != nil {
		return nil, fmt.Errorf("%w (restore it from a copy, or move it away to begin anew)", err)
	}
	return &Book{
		list: l, moved: map[identity.DeviceID]identity.AccountID{},
		writes: quota.NewRates[identity.DeviceID](MaxContacts, rate.Every(writesEvery), writesAtOnce),
	}, nil
}

// file is what stands on disk.
type file struct {
	Contacts []Contact `json:"contacts"`
}

// parse reads a file and refuses what was not written here.
func parse(text []byte) ([]Contact, error) {
	var f file
	err := strictjson.Decode(text, maxFile, &f)
	if err != nil {
		return nil, err
	}
	var checked []Contact
	for _, c := range f.Contacts {
		if err := c.check(); err != nil {
			return nil, err
		}
		if checked, err = with(checked, c); err != nil {
			return nil, err
		}
	}
	if n := known(checked); n > maxKnown {
		return nil, fmt.Errorf("%d devices, at most %d are kept", n, maxKnown)
	}
	return checked, nil
}

// with returns the entries and one more, or why it cannot be there.
func with(entries []Contact, c Contact) ([]Contact, error) {
	if err := CheckName(c.Name); err != nil {
		return nil, err
	}
	if c.Device.IsZero() {
		return nil, fmt.Errorf("contact %q: no device", c.Name)
	}
	if len(entries) >= MaxContacts {
		return nil, fmt.Errorf("%d contacts are the most that are kept: remove some", MaxContacts)
	}
	for _, e := range entries {
		switch {
		case strings.EqualFold(e.Name, c.Name):
			return nil, fmt.Errorf("the name %q is %w, as device %s", e.Name, ErrTaken, e.Device.Short())
		case e.Device == c.Device:
			return nil, fmt.Errorf("device %s is %w, as %q", c.Device.Short(), ErrTaken, e.Name)
		case !c.Account.IsZero() && e.Account == c.Account:
			return nil, fmt.Errorf("account %s is %w, as %q", c.Account.Short(), ErrTaken, e.Name)
		}
	}
	out := append(slices.Clone(entries), c)
	slices.SortFunc(out, func(a, b Contact) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
	return out, nil
}

// CheckName tells why a name cannot be a contact's: it must be 1 to 64 bytes of
// printable text without an @ or spaces around it, must not begin with a minus
// sign, which commands would take for a flag, nor look like a device id.
func CheckName(name string) error {
	if err := identity.CheckName(name); err != nil {
		return fmt.Errorf("contact name %.100q: %w", name, err)
	}
	switch {
	case strings.TrimSpace(name) != name:
		return fmt.Errorf("contact name %q has spaces around it", name)
	case strings.HasPrefix(name, "-"), strings.ContainsAny(name, "@/:"):
		return fmt.Errorf("contact name %q: a name has no @, / or : and does not begin with -", name)
	case len(name) >= shortID && strings.Trim(strings.ToLower(name), hexDigits) == "":
		return fmt.Errorf("contact name %q looks like a device id", name)
	}
	return nil
}

// List returns all contacts, by name.
func (b *Book) List() []Contact {
	return slices.Clone(b.list.All())
}

// Resolve returns the device of a name, or the device whose 64 hex digits are
// given, contact or not. The error matches ErrUnknown if it is neither.
func (b *Book) Resolve(who string) (identity.DeviceID, error) {
	all := b.list.All()
	if i := slices.IndexFunc(all, func(c Contact) bool { return strings.EqualFold(c.Name, who) }); i >= 0 {
		return all[i].Device, nil
	}
	id, err := identity.ParseDeviceID(who)
	if err != nil {
		return id, &unknownError{who, err}
	}
	return id, nil
}

// unknownError says that somebody is neither a contact nor a device id. It
// matches ErrUnknown, and what the id's error matches.
type unknownError struct {
	who  string
	noID error
}

// Error says what is wrong with the id only where one may have been meant.
func (e *unknownError) Error() string {
	if len(e.who) == len(identity.DeviceID{}.String()) || len(e.who) >= shortID && strings.Trim(strings.ToLower(e.who), hexDigits) == "" {
		return fmt.Sprintf("%.100q: %v, and %s", e.who, ErrUnknown, strings.TrimPrefix(e.noID.Error(), identity.ErrBadID.Error()+": "))
	}
	return fmt.Sprintf("%.100q: %v (peerchat contacts lists them), and no device id, which is 64 hex digits", e.who, ErrUnknown)
}

// Unwrap returns both causes.
func (e *unknownError) Unwrap() []error { return []error{ErrUnknown, e.noID} }

// Add gives a device a name. The error matches ErrTaken if the name or the
// device is there already, be it as another one of a contact's.
func (b *Book) Add(name string, id identity.DeviceID, now time.Time) error {
	return b.change(func(es []Contact) ([]Contact, error) {
		if c, ok := owner(es, id); ok {
			return nil, fmt.Errorf("device %s is %w, as one of %q", id.Short(), ErrTaken, c.Name)
		}
		return with(es, Contact{Name: name, Device: id, Added: now.UTC().Truncate(time.Second)})
	})
}

// Rename gives a contact, named by its name or id, another name.
func (b *Book) Rename(who, name string) error {
	return b.change(func(es []Contact) ([]Contact, error) {
		i, err := at(es, who)
		if err != nil {
			return nil, err
		}
		c := es[i]
		c.Name = name
		return with(slices.Delete(slices.Clone(es), i, i+1), c)
	})
}

// Remove forgets a contact, named by its name or id, and returns it.
func (b *Book) Remove(who string) (gone Contact, err error) {
	err = b.change(func(es []Contact) ([]Contact, error) {
		i, err := at(es, who)
		if err != nil {
			return nil, err
		}
		gone = es[i]
		b.settled(gone.Device)
		return slices.Delete(slices.Clone(es), i, i+1), nil
	})
	return gone, err
}

func at(es []Contact, who string) (int, error) {
	i := slices.IndexFunc(es, func(c Contact) bool {
		return strings.EqualFold(c.Name, who) || c.Device.String() == strings.ToLower(who)
	})
	if i < 0 {
		return i, fmt.Errorf("%.100q: %w", who, ErrUnknown)
	}
	return i, nil
}

// change makes a change on disk, then here.
func (b *Book) change(do func([]Contact) ([]Contact, error)) error {
	return b.list.Change(func(now []Contact) ([]Contact, bool, error) {
		next, err := do(now)
		return next, true, err
	})
}
