package identity

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
)

const (
	// maxIssuers is how many accounts' and authorities' lists a trust store holds.
	maxIssuers = 4096
	// maxTwins is how many lists with one number it holds of one issuer. An
	// honest one makes none: two of its devices that each made “the next” list
	// make two.
	maxTwins = 4
)

// ErrOutdated is matched when a revocation list is older than one that is held.
var ErrOutdated = errors.New("identity: a newer revocation list is held")

// revocations are the lists of a trust store: of each issuer those with its
// highest number. The zero value holds none.
type revocations struct {
	lists map[AccountID][]*RevocationList
	ids   int // in all lists
}

// add takes a list; changed false says that it is held already. After an error
// nothing has changed.
func (r *revocations) add(l *RevocationList) (changed bool, err error) {
	held := r.lists[l.signer]
	for _, h := range held {
		if bytes.Equal(h.raw, l.raw) {
			return false, nil
		}
	}
	gone := 0
	if len(held) > 0 {
		switch now := held[0].number; {
		case l.number < now:
			return false, fmt.Errorf("%w: number %d of account %s, this one is number %d", ErrOutdated, now, l.signer, l.number)
		case l.number > now:
			gone, held = count(held), nil
		}
	}
	switch {
	case len(held) >= maxTwins:
		return false, fmt.Errorf("identity: account %s has signed more than %d revocation lists with the number %d: have it make one with a higher number", l.signer, maxTwins, l.number)
	case len(r.lists[l.signer]) == 0 && len(r.lists) >= maxIssuers:
		return false, fmt.Errorf("identity: the trust store is full (revocation lists of %d issuers)", maxIssuers)
	case r.ids-gone+len(l.items) > maxDecisions:
		return false, fmt.Errorf("identity: the trust store is full (more than %d revoked ids)", maxDecisions)
	}
	if r.lists == nil {
		r.lists = make(map[AccountID][]*RevocationList)
	}
	r.lists[l.signer] = append(slices.Clone(held), l)
	r.ids += len(l.items) - gone
	return true, nil
}

func count(ls []*RevocationList) (n int) {
	for _, l := range ls {
		n += len(l.items)
	}
	return n
}

// check returns an error if a peer is revoked by the account or authority that it
// shows, or by one of its homes. A list counts only for what is, or was, below its
// issuer: nobody can revoke another account's devices.
func (r *revocations) check(p Peer, device, account []home) error {
	if len(r.lists) == 0 {
		return nil
	}
	for _, h := range slices.Concat([]home{{p.Account, p.CA}}, device, account) {
		for _, l := range r.lists[h.account] {
			if l.has(p.Device.subject()) {
				return fmt.Errorf("%w: device %s was revoked by account %s (list %d)", ErrRevoked, p.Device, h.account, l.number)
			}
		}
		if h.ca.IsZero() {
			continue
		}
		for _, l := range r.lists[h.ca] {
			for _, s := range []subject{p.Device.subject(), h.account.subject()} {
				if l.has(s) {
					return fmt.Errorf("%w: %s %x was revoked by authority %s (list %d)", ErrRevoked, s.kind, s.id, h.ca, l.number)
				}
			}
		}
	}
	return nil
}

// all returns the lists, in a fixed order.
func (r *revocations) all() []*RevocationList {
	var out []*RevocationList
	for _, ls := range r.lists {
		out = append(out, ls...)
	}
	slices.SortFunc(out, func(a, b *RevocationList) int { return bytes.Compare(a.raw, b.raw) })
	return out
}

// line writes a list as a line of the stored trust store.
func (l *RevocationList) line() string {
	return revocationWord + " " + base64.StdEncoding.EncodeToString(l.raw)
}

// revocationWord begins such a line.
const revocationWord = "revocations"

// read takes such a line, without the word.
func (r *revocations) read(s string) error {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return fmt.Errorf("revocation list: %w", err)
	}
	l, err := ParseRevocationList(b)
	if err != nil {
		return err
	}
	if held := r.lists[l.signer]; len(held) > 0 && held[0].number != l.number {
		return fmt.Errorf("revocation lists of account %s with the numbers %d and %d: which one holds?", l.signer, held[0].number, l.number)
	}
	_, err = r.add(l)
	return err
}

// AddRevocations takes a revocation list into account: devices that it names
// are refused from now on, and live links to them end (Changed). A list with a
// higher number takes the place of its issuer's older ones; two with the same
// number both count; one that is held already changes nothing; an older one is
// an error that matches ErrOutdated, so nobody can bring back what was revoked.
// It fails, too, when 4 096 issuers' lists, 100 000 ids, or 4 lists with one
// number are held. Lists do not expire.
func (t *Trust) AddRevocations(l *RevocationList) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed, err := t.revoked.add(l)
	if changed {
		t.notify()
	}
	return err
}

// Revocations returns the lists that are held, in no particular order.
func (t *Trust) Revocations() []*RevocationList {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.revoked.all()
}
