package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	// maxHomes is how many homes the store remembers of one device or account: a
	// device comes into another account a few times in its life.
	maxHomes = 8
	// maxGuests is how many devices of one account the store remembers that have no
	// decision of their own: twice what an account lists, as devices are replaced.
	maxGuests = 2 * MaxDevices
	// maxBelow is how many of all devices, and how many of all accounts, of one
	// authority it remembers without a decision: as many as a list of it may name.
	maxBelow = MaxRevoked
	// maxAllHomes bounds the homes of a store; one takes 220 bytes on disk. Half of
	// them are kept for devices and accounts with a decision of their own.
	maxAllHomes = 100_000
)

// home is where a device proved itself while something was granted to it: its
// account, and the authority above that, if there was one. Of an account it is the
// authority alone.
type home struct{ account, ca AccountID }

// homes are those of one device or account. Lists of each count for it for good.
type homes struct {
	// bound says that what was granted to a device is for it in its first home
	// alone; false: a decision has been made since, and the next proof binds it.
	bound bool
	all   []home // never empty, and never changed in place
}

// ErrMoved is matched, besides ErrNotTrusted, by the errors about a device that was
// allowed as one of another account: see MovedError.
var ErrMoved = fmt.Errorf("%w: the device comes under another account", ErrNotTrusted)

// MovedError says that a device which was allowed as one of an account comes under
// another account: what was granted to it is not for it there. It matches ErrMoved.
type MovedError struct {
	Device DeviceID
	// Home is the account for which the grant is, Account the one that the device
	// claims now.
	Home, Account AccountID
}

// Error says what to do, too.
func (e *MovedError) Error() string {
	return fmt.Sprintf("%v: device %s is allowed as one of account %s and comes under account %s now: if its owner confirms that it has moved, allow the device anew, or else ban it", ErrNotTrusted, e.Device, e.Home, e.Account)
}

// Unwrap returns ErrMoved.
func (e *MovedError) Unwrap() error { return ErrMoved }

// grant is by which decision a peer is let in.
type grant int

const (
	ungranted grant = iota
	toDevice        // by one about the device alone
	above           // by one about its account or authority
)

// Admit is Check for a peer that has proven its key, as the ConnectionManager asks
// it whenever a link comes up, and about each live link after a change. If something
// was granted to the peer, it notes under which account the peer proved itself: from
// then on what was granted to the device is for that account's device alone, and the
// device is out as soon as a list of that account, or of its authority, names it,
// whichever account it claims then. Of devices that only their account or SetMembers
// lets in, 64 an account are noted. A program that uses a trust store without a
// ConnectionManager calls Admit after its own handshakes. Nil admits everybody.
func (t *Trust) Admit(p Peer) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	known := t.members
	t.mu.Unlock()
	member := known != nil && known(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	g, err := t.check(p)
	switch {
	case err != nil:
		return err
	case g == above || member:
		t.settleAccount(p)
		if !t.guest(p.Device.subject(), p) {
			return nil
		}
	case g == ungranted:
		return nil
	}
	return t.settle(p)
}

// AtHome reports whether what the program itself grants to a device by its id (a
// rule, a name) is for a peer that has proven its key: the peer may connect, and
// comes under the account under which the device was granted something first. If
// nothing was granted to it before, this is that account from now on. A new
// decision about the device (Set) lets it bind anew. Nil says yes.
func (t *Trust) AtHome(p Peer) bool {
	if t == nil {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, err := t.check(p)
	return err == nil && t.atHome(p) && t.settle(p) == nil
}

// Allow is Set(p.Device, Allowed) for a device whose account is known, because it
// has proven itself or by an earlier link: the decision is for that account's device
// alone. After an error nothing has changed.
func (t *Trust) Allow(p Peer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.room(p); err != nil {
		return err
	}
	if err := t.set(p.Device.subject(), Allowed); err != nil {
		return err
	}
	return t.settle(p)
}

// Recall notes under which account a device came, as Admit does, where the program
// knows that from elsewhere: from what was kept before there were homes, or because
// the account is its own. It does nothing if 50 000 homes are noted.
func (t *Trust) Recall(p Peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.inHomes < maxAllHomes/2 {
		_ = t.settle(p) // one more of too many homes is refused by Admit
	}
}

// atHome reports whether a grant to the device is for the peer. t.mu is held.
func (t *Trust) atHome(p Peer) bool {
	at := t.homes[p.Device.subject()]
	return !at.bound || at.all[0].account == p.Account
}

// guest reports whether s, a peer's device or account, is remembered or has a
// decision of its own, or there is room for one more without. t.mu is held.
func (t *Trust) guest(s subject, p Peer) bool {
	if _, held := t.homes[s]; held || t.entries[s] == Allowed {
		return true
	}
	ofAccount, ofCA := 0, 0
	for other, at := range t.homes {
		if other.kind != s.kind {
			continue
		}
		if at.all[0].account == p.Account {
			ofAccount++
		}
		if !p.CA.IsZero() && at.all[0].ca == p.CA {
			ofCA++
		}
	}
	return ofAccount < maxGuests && ofCA < maxBelow && t.inHomes < maxAllHomes/2
}

// errManyHomes is why a device is refused that changes its account too often.
var errManyHomes = errors.New("it was let in under so many accounts and authorities that no more are remembered: forget the device, or ban it")

// room returns why a device's home could not be noted. t.mu is held.
func (t *Trust) room(p Peer) error {
	at := t.homes[p.Device.subject()].all
	switch {
	case p.Account.IsZero() || slices.Contains(at, home{p.Account, p.CA}):
		return nil
	case len(at) >= maxHomes:
		return fmt.Errorf("%w: device %s: %w", ErrNotTrusted, p.Device, errManyHomes)
	case t.inHomes >= maxAllHomes:
		return fmt.Errorf("%w: device %s: the trust store is full: more than %d accounts of devices", ErrNotTrusted, p.Device, maxAllHomes)
	}
	return nil
}

// settle notes a device's home. t.mu is held.
func (t *Trust) settle(p Peer) error {
	if p.Account.IsZero() || p.Device.IsZero() {
		return nil
	}
	if err := t.room(p); err != nil {
		return err
	}
	t.note(p.Device.subject(), home{p.Account, p.CA})
	return nil
}

// settleAccount notes under which authority an account was let in first, or that it
// was under none, and each authority that is allowed itself. Others do not count: an
// authority can sign any account without asking it, and must not be able to revoke it
// thereby. t.mu is held.
func (t *Trust) settleAccount(p Peer) {
	s := p.Account.subject()
	at := t.homes[s]
	switch {
	case p.Account.IsZero() || t.inHomes >= maxAllHomes || len(at.all) >= maxHomes || !t.guest(s, p):
	case !at.bound || t.entries[p.CA.subject()] == Allowed:
		t.note(s, home{p.Account, p.CA})
	}
}

// note adds a home, for which there is room, and binds what is not bound. t.mu is held.
func (t *Trust) note(s subject, h home) {
	at := t.homes[s]
	i := slices.Index(at.all, h)
	if i >= 0 && at.bound {
		return
	}
	switch {
	case i >= 0:
		at.all = slices.Concat([]home{h}, at.all[:i], at.all[i+1:])
	case at.bound:
		at.all = append(slices.Clip(at.all), h)
	default:
		at.all = append([]home{h}, at.all...)
	}
	if i < 0 {
		t.inHomes++
	}
	if t.homes == nil {
		t.homes = make(map[subject]homes)
	}
	t.homes[s] = homes{true, at.all}
	t.notify()
}

// loosen has a decision about s take its homes into account, and reports whether
// that changed them: who is allowed anew binds anew, who is forgotten has none. t.mu
// is held.
func (t *Trust) loosen(s subject, d Decision) bool {
	at, held := t.homes[s]
	switch {
	case !held || d == Banned || d == Allowed && !at.bound:
		return false
	case d == Undecided:
		t.inHomes -= len(at.all)
		delete(t.homes, s)
	default:
		at.bound = false
		t.homes[s] = at
	}
	return true
}

// The lines of homes begin with homeWord where the first one binds, and else with
// pastWord; then a kind, an id, and the homes, ACCOUNT or ACCOUNT/AUTHORITY.
const (
	homeWord = "home"
	pastWord = "past"
)

// line writes the homes of s as a line of the stored trust store.
func (at homes) line(s subject) string {
	var b strings.Builder
	word := pastWord
	if at.bound {
		word = homeWord
	}
	fmt.Fprintf(&b, "%s %s %x", word, s.kind, s.id)
	for _, h := range at.all {
		fmt.Fprintf(&b, " %x", h.account[:])
		if !h.ca.IsZero() {
			fmt.Fprintf(&b, "/%x", h.ca[:])
		}
	}
	return b.String()
}

// readHomes takes such a line.
func (r *trustReader) readHomes(word, kind, hex string, list []string) error {
	id, err := parseID(kind, hex)
	if err != nil {
		return err
	}
	s := subject{kind, id}
	switch _, twice := r.homes[s]; {
	case twice:
		return fmt.Errorf("the homes of %s %x were there before: which ones hold?", kind, id)
	case len(list) > maxHomes || r.inHomes+len(list) > maxAllHomes:
		return fmt.Errorf("%d homes of %s %x: at most %d are kept, and %d of all", len(list), kind, id, maxHomes, maxAllHomes)
	}
	at := homes{bound: word == homeWord}
	for _, text := range list {
		h, err := readHome(text)
		switch {
		case err != nil:
			return err
		case slices.Contains(at.all, h):
			return fmt.Errorf("the home %.140q is there twice", text)
		case kind == "account" && h.account != AccountID(id):
			return fmt.Errorf("the home %.140q is not of account %x", text, id)
		}
		at.all = append(at.all, h)
	}
	if r.homes == nil {
		r.homes = make(map[subject]homes)
	}
	r.homes[s] = at
	r.inHomes += len(list)
	return nil
}

func readHome(text string) (h home, err error) {
	account, ca, has := strings.Cut(text, "/")
	if h.account, err = ParseAccountID(account); err == nil && has {
		h.ca, err = ParseAccountID(ca)
	}
	return h, err
}
