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
// authority) refuses it, whatever else is allowed. The zero value, and a nil
// *Trust in Check, follow AllowUndecided with no decisions. All methods may be
// called concurrently; none blocks.
type Trust struct {
	mu      sync.Mutex
	policy  Policy
	entries map[subject]Decision
	changed chan struct{} // closed and replaced on every change; nil until asked for
}

// Check returns nil if p may connect, and otherwise an error that matches
// ErrNotTrusted and says which part of p's chain is the reason.
func (t *Trust) Check(p Peer) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	allowed := t.policy == AllowUndecided
	for _, s := range []subject{p.Device.subject(), p.Account.subject(), p.CA.subject()} {
		if s.id == [idLen]byte{} {
			continue
		}
		switch t.entries[s] {
		case Banned:
			return fmt.Errorf("%w: %s %x is banned", ErrNotTrusted, s.kind, s.id)
		case Allowed:
			allowed = true
		}
	}
	if !allowed {
		return fmt.Errorf("%w: device %s and account %s are unknown, and only known ones are let in", ErrNotTrusted, p.Device, p.Account)
	}
	return nil
}

// Decision returns what was decided about s itself.
func (t *Trust) Decision(s Subject) Decision {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entries[s.subject()]
}

// Set decides about a device, an account or an authority; Undecided forgets
// it. It fails only when 100 000 decisions are held already.
func (t *Trust) Set(s Subject, d Decision) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.set(s.subject(), d)
}

func (t *Trust) set(s subject, d Decision) error {
	old, held := t.entries[s]
	if d == old {
		return nil
	}
	if d == Undecided {
		delete(t.entries, s)
	} else {
		if !held && len(t.entries) >= maxDecisions {
			return fmt.Errorf("identity: the trust store is full (%d entries)", maxDecisions)
		}
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

// MarshalText returns the store as sorted lines: "policy allow" or "policy
// refuse", then "allowed device HEX", "banned account HEX" and so on.
func (t *Trust) MarshalText() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := make([]string, 0, len(t.entries))
	for s, d := range t.entries {
		lines = append(lines, fmt.Sprintf("%s %s %x", d, s.kind, s.id))
	}
	slices.Sort(lines)
	policy := "allow"
	if t.policy == RefuseUndecided {
		policy = "refuse"
	}
	return []byte(strings.Join(append([]string{"policy " + policy}, lines...), "\n") + "\n"), nil
}

// UnmarshalText replaces the store by what MarshalText wrote. Anything else is
// an error that names its line, and then the store is as it was: a ban must
// never be lost over a typing error.
func (t *Trust) UnmarshalText(b []byte) error {
	var in Trust
	if len(b) == 0 || b[len(b)-1] != '\n' {
		return errors.New("identity: trust store: the last line is cut off")
	}
	sc, n := bufio.NewScanner(bytes.NewReader(b)), 0
	for sc.Scan() {
		n++
		if err := in.parseLine(sc.Text()); err != nil {
			return fmt.Errorf("identity: trust store: line %d: %w", n, err)
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("identity: trust store: line %d: %w", n+1, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.policy, t.entries = in.policy, in.entries
	t.notify()
	return nil
}

func (t *Trust) parseLine(line string) error {
	f := strings.Fields(line)
	switch {
	case len(f) == 0 || strings.HasPrefix(line, "#"):
		return nil
	case len(f) == 2 && f[0] == "policy" && f[1] == "allow":
		t.policy = AllowUndecided
		return nil
	case len(f) == 2 && f[0] == "policy" && f[1] == "refuse":
		t.policy = RefuseUndecided
		return nil
	case len(f) != 3 || (f[1] != "device" && f[1] != "account"):
		return fmt.Errorf("%.100q: want “allowed” or “banned”, “device” or “account”, and an id", line)
	}
	d, ok := map[string]Decision{"allowed": Allowed, "banned": Banned}[f[0]]
	if !ok {
		return fmt.Errorf("%.100q: unknown decision %.20q", line, f[0])
	}
	id, err := parseID(f[1], f[2])
	if err != nil {
		return err
	}
	return t.set(subject{f[1], id}, d)
}
