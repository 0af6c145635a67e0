package identity

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// ErrNotTrusted is matched by the errors of Trust.Check.
var ErrNotTrusted = errors.New("identity: not trusted")

// ErrBanned is matched, besides ErrNotTrusted, by the errors about a peer if a part
// of its chain was banned or revoked, and not by those about strangers. A banned
// device may be told so: silence would hide nothing, as the device knows us.
var ErrBanned error = banned{ErrNotTrusted}

// ErrRevoked is matched, besides ErrBanned, by those about a peer that its account
// or authority has revoked: no decision here takes that back.
var ErrRevoked error = banned{ErrBanned}

// banned is an error that matches ErrBanned and ErrNotTrusted.
type banned struct{ error }

// Is reports that the error matches ErrBanned.
func (banned) Is(target error) bool { return target == ErrBanned }

// Unwrap returns the error that matches ErrNotTrusted.
func (b banned) Unwrap() error { return b.error }

// Decision is what a trust store says of a device, an account or an authority.
type Decision int

// The decisions. Undecided is the zero value.
const (
	Undecided Decision = iota
	Allowed
	Banned
)

// String returns "undecided", "allowed" or "banned".
func (d Decision) String() string {
	switch d {
	case Allowed:
		return "allowed"
	case Banned:
		return "banned"
	default:
		return "undecided"
	}
}

// Policy is what Check does with a peer about whose chain nothing was decided.
type Policy int

// The policies. AllowUndecided is the zero value.
const (
	// AllowUndecided trusts everybody who is not banned.
	AllowUndecided Policy = iota
	// RefuseUndecided trusts only those who, or whose account or authority, were allowed.
	RefuseUndecided
)

// maxDecisions bounds a trust store; one entry takes about 150 bytes.
const maxDecisions = 100_000

// Trust remembers who is allowed and who is banned. It is asked inside every
// handshake, on both sides. A ban anywhere in a peer's chain (device, account,
// authority) refuses it, whatever else is allowed, and so does a revocation list
// of an account or authority that signed it, now or when something was granted to it
// (Admit, AddRevocations). What is allowed to a device is for the account under which
// it proves itself first. The zero value, and a nil *Trust in Check, follow
// AllowUndecided with no decisions. All methods may be called concurrently; none
// blocks.
type Trust struct {
	mu      sync.Mutex
	policy  Policy
	entries map[subject]Decision
	homes   map[subject]homes
	inHomes int // in all of them
	revoked revocations
	members func(Peer) bool
	changed chan struct{} // closed and replaced on every change; nil until asked for
}

// Check returns nil if p may connect, and otherwise an error that matches
// ErrNotTrusted and says which part of p's chain is the reason: a *MovedError where
// p's device is allowed under another account. It notes nothing, so it may be asked
// about a peer that has proven nothing yet; see Admit.
func (t *Trust) Check(p Peer) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, err := t.check(p)
	return err
}

// check is Check that also tells which decision lets the peer in. t.mu is held.
func (t *Trust) check(p Peer) (g grant, err error) {
	at := t.homes[p.Device.subject()]
	whole := [4]subject{p.Device.subject(), p.Account.subject(), p.CA.subject()}
	if at.bound { // a ban of the account holds though its device claims another one
		whole[3] = at.all[0].account.subject()
	}
	for i, s := range whole {
		switch d := t.entries[s]; {
		case s.id == [idLen]byte{}:
		case d == Banned:
			return ungranted, fmt.Errorf("%w: %s %x is banned", ErrBanned, s.kind, s.id)
		case d == Allowed && (i == 1 || i == 2):
			g = above
		}
	}
	if err := t.revoked.check(p, at.all, t.homes[p.Account.subject()].all); err != nil {
		return ungranted, err
	}
	moved := false
	if g == ungranted && t.entries[p.Device.subject()] == Allowed {
		if moved = !t.atHome(p); !moved {
			g = toDevice
		}
	}
	switch {
	case g != ungranted || t.policy == AllowUndecided:
		return g, nil
	case moved:
		return g, &MovedError{p.Device, at.all[0].account, p.Account}
	}
	return g, fmt.Errorf("%w: device %s and account %s are unknown, and only known ones are let in", ErrNotTrusted, p.Device, p.Account)
}

// Member reports whether room of its own is kept for a peer, apart from the room of
// strangers: the peer may connect (Check), and the peer, its account or its authority
// is allowed, or the function of SetMembers knows the peer. A device that is allowed
// under another account is no member. A nil *Trust has no members.
func (t *Trust) Member(p Peer) bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	g, err := t.check(p)
	known := t.members
	t.mu.Unlock()
	return err == nil && (g != ungranted || known != nil && known(p))
}

// SetMembers adds peers to those for whom Member is true: the devices of one's own
// account, contacts. The function must neither block nor call the store, may be
// called concurrently and under locks, and decides nothing about who may connect; but
// lists of the account under which it knows a device count for that device from then
// on (Admit). Nil, as at the
// beginning: only allowed peers are members.
func (t *Trust) SetMembers(known func(Peer) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.members = known
	t.notify() // so that it counts for the links that are there
}

// Decision returns what was decided about s itself.
func (t *Trust) Decision(s Subject) Decision {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entries[s.subject()]
}

// Set decides about a device, an account or an authority; Undecided forgets
// it, and under which accounts it came. Allowed, said of a device once more, lets it
// bind to the account under which it proves itself next (see Admit and Allow); lists
// of earlier ones count on. It fails only when 100 000 decisions are held already.
func (t *Trust) Set(s Subject, d Decision) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.set(s.subject(), d)
}

func (t *Trust) set(s subject, d Decision) error {
	old, held := t.entries[s]
	if !held && d != Undecided && len(t.entries) >= maxDecisions {
		return fmt.Errorf("identity: the trust store is full: more than %d decisions", maxDecisions)
	}
	loosened := t.loosen(s, d)
	switch {
	case d == old && !loosened:
		return nil
	case d == Undecided:
		delete(t.entries, s)
	default:
		if t.entries == nil {
			t.entries = make(map[subject]Decision)
		}
		t.entries[s] = d
	}
	t.notify()
	return nil
}

// SetPolicy says what Check does with strangers.
func (t *Trust) SetPolicy(p Policy) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.policy != p {
		t.policy = p
		t.notify()
	}
}

// Changed returns a channel that is closed at the next change. Ask for it
// before checking, or a change in between is missed.
func (t *Trust) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return t.changed
}

// notify tells whoever waits on Changed. t.mu is held.
func (t *Trust) notify() {
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// MarshalText returns the store as lines: "policy allow" or "policy refuse",
// then sorted "allowed device HEX", "banned account HEX" and so on, and "home device
// HEX ACCOUNT/AUTHORITY..." for what Admit has noted, then a line "revocations
// BASE64" for each revocation list, then "end".
func (t *Trust) MarshalText() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := make([]string, 0, len(t.entries)+len(t.homes))
	for s, d := range t.entries {
		lines = append(lines, fmt.Sprintf("%s %s %x", d, s.kind, s.id))
	}
	for s, at := range t.homes {
		lines = append(lines, at.line(s))
	}
	slices.Sort(lines)
	for _, l := range t.revoked.all() {
		lines = append(lines, l.line())
	}
	policy := "allow"
	if t.policy == RefuseUndecided {
		policy = "refuse"
	}
	return []byte(strings.Join(append([]string{"policy " + policy}, lines...), "\n") + "\n" + trustEnd + "\n"), nil
}

// trustEnd is the last line: without it a file that lost its last lines, and
// with them its bans, would look whole.
const trustEnd = "end"

// UnmarshalText replaces the store by what MarshalText wrote; empty lines and
// lines that begin with # are skipped. Anything else is an error that names its
// line, and then the store is as it was: a ban must never be lost over a typing
// error or a cut-off file.
func (t *Trust) UnmarshalText(b []byte) error {
	var in trustReader
	sc, n := bufio.NewScanner(bytes.NewReader(b)), 0
	for sc.Scan() {
		n++
		if err := in.line(sc.Text()); err != nil {
			return fmt.Errorf("identity: trust store: line %d: %w", n, err)
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("identity: trust store: line %d: %w", n+1, err)
	}
	if !in.ended {
		return fmt.Errorf("identity: trust store: line %d: the rest is cut off: want %q as the last line", n+1, trustEnd)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.policy, t.entries, t.homes, t.inHomes, t.revoked = in.policy, in.entries, in.homes, in.inHomes, in.revoked
	t.notify()
	return nil
}

// trustReader takes the lines of a stored trust store one by one.
type trustReader struct {
	Trust
	begun, ended bool
}

func (r *trustReader) line(s string) error {
	f := strings.Fields(s)
	switch {
	case len(f) == 0 || strings.HasPrefix(f[0], "#"):
		return nil
	case r.ended:
		return fmt.Errorf("%.100q stands after the end", s)
	case f[0] == "policy" || !r.begun:
		return r.readPolicy(s, f)
	case len(f) == 1 && f[0] == trustEnd:
		r.ended = true
		return nil
	case len(f) == 2 && f[0] == revocationWord:
		return r.revoked.read(f[1])
	case len(f) < 3 || (f[1] != "device" && f[1] != "account"):
		return fmt.Errorf("%.100q: want “allowed” or “banned”, “device” or “account”, and an id; or “home” and the same; or “revocations” and a list", s)
	case len(f) > 3 && (f[0] == homeWord || f[0] == pastWord):
		return r.readHomes(f[0], f[1], f[2], f[3:])
	case len(f) > 3:
		return fmt.Errorf("%.100q: %d words too many", s, len(f)-3)
	default:
		return r.decide(f[0], f[1], f[2])
	}
}

// readPolicy reads the first line. A store that lost it must not fall back to
// letting everybody in.
func (r *trustReader) readPolicy(s string, f []string) error {
	policies := map[string]Policy{"allow": AllowUndecided, "refuse": RefuseUndecided}
	if r.begun {
		return fmt.Errorf("%.100q: the policy was set before", s)
	}
	if len(f) != 2 || f[0] != "policy" {
		return fmt.Errorf("%.100q: want “policy allow” or “policy refuse” first", s)
	}
	p, ok := policies[f[1]]
	if !ok {
		return fmt.Errorf("%.100q: unknown policy %.20q, want “allow” or “refuse”", s, f[1])
	}
	r.begun, r.policy = true, p
	return nil
}

func (r *trustReader) decide(decision, kind, hex string) error {
	d, ok := map[string]Decision{"allowed": Allowed, "banned": Banned}[decision]
	if !ok {
		return fmt.Errorf("unknown decision %.20q, want “allowed” or “banned”", decision)
	}
	id, err := parseID(kind, hex)
	if err != nil {
		return err
	}
	s := subject{kind, id}
	if _, twice := r.entries[s]; twice {
		return fmt.Errorf("%s %x was decided before: which one holds?", kind, id)
	}
	return r.set(s, d)
}
