package forward

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"unicode"

	"peerlink/cmd/peerchat/internal/strictfile"
	"peerlink/identity"
	"peerlink/internal/strictjson"
)

const (
	// MaxRules is how many rules there may be.
	MaxRules = 1024
	maxFile  = 1 << 20 // 1024 × 400 bytes and some
)

// ErrNoRule is matched when a rule that is to be removed is not there.
var ErrNoRule = errors.New("no such rule")

// What a rule lets a device do.
const (
	DoDial   = "dial"   // have connections made to Addr
	DoListen = "listen" // have connections taken at Addr, and sent to the device
	DoPipe   = "pipe"   // join a pipe that listens here, whose name is Addr
)

// AnyPipe is the Addr of a rule for all pipes.
const AnyPipe = "*"

// Rule lets a device do something. Addr is HOST:PORT, HOST:* for all ports, the
// path of a Unix socket, or a pipe's name.
type Rule struct {
	Device identity.DeviceID `json:"device"`
	Do     string            `json:"do"`
	Addr   string            `json:"addr"`
}

// CheckAddr tells why Do and Addr cannot be a rule's.
func (r Rule) CheckAddr() error {
	_, err := r.oneForm()
	return err
}

// check returns the rule in its one form.
func (r Rule) check() (Rule, error) {
	if r.Device.IsZero() {
		return r, errors.New("a rule without a device")
	}
	return r.oneForm()
}

func (r Rule) oneForm() (Rule, error) {
	switch r.Do {
	case DoDial, DoListen:
	case DoPipe:
		return r, checkPipe(r.Addr)
	default:
		return r, fmt.Errorf("a rule for %.40q: want %s, %s or %s", r.Do, DoDial, DoListen, DoPipe)
	}
	a, err := parse(r.Addr, asRule)
	if err == nil && r.Do == DoDial && strings.HasPrefix(a.Addr, "*:") {
		err = fmt.Errorf("address %q: a rule names the host", r.Addr)
	}
	r.Addr = a.Addr
	return r, err
}

// maxPipe is how long a pipe's name may be, in bytes.
const maxPipe = 64

// checkPipe tells why a rule cannot be about a pipe of that name.
func checkPipe(name string) error {
	if name == AnyPipe {
		return nil
	}
	bad := func(r rune) bool {
		return !unicode.IsPrint(r) || r == unicode.ReplacementChar || strings.ContainsRune("*/", r)
	}
	if name == "" || len(name) > maxPipe || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("pipe %.100q: want 1 to %d bytes of printable text without * and /, or * for all pipes", name, maxPipe)
	}
	return nil
}

// CoversPipe tells whether the rule is about a pipe.
func (r Rule) CoversPipe(name string) bool {
	return r.Do == DoPipe && (r.Addr == AnyPipe || r.Addr == name)
}

// covers tells whether the rule is about an address.
func (r Rule) covers(a Address) bool {
	if r.Do == DoPipe {
		return false
	}
	if r.Addr == a.Addr {
		return true
	}
	host, _, err := net.SplitHostPort(a.Addr)
	return a.Network == "tcp" && err == nil && r.Addr == net.JoinHostPort(host, "*")
}

// Rules say whom to let where. They are kept in a file; each change is on disk,
// whole, before it holds. The methods may be called concurrently; those that
// change something block until the disk has it.
type Rules struct{ list *strictfile.List[Rule] }

// OpenRules reads the rules of a file; without the file there are none. A
// damaged one is an error and is never replaced.
func OpenRules(path string) (*Rules, error) {
	l := &strictfile.List[Rule]{
		Path: path, Name: "forward rules", Limit: maxFile, Parse: parseRules,
		File: func(rules []Rule) any { return file{rules} },
	}
	if err := l.Load(); err != nil {
		return nil, fmt.Errorf("%w (restore it from a copy, or move it away to allow nothing)", err)
	}
	return &Rules{l}, nil
}

type file struct {
	Rules []Rule `json:"rules"`
}

// parseRules reads a file and refuses what was not written here.
func parseRules(text []byte) ([]Rule, error) {
	var f file
	if err := strictjson.Decode(text, maxFile, &f); err != nil {
		return nil, err
	}
	if len(f.Rules) > MaxRules {
		return nil, fmt.Errorf("more than %d rules", MaxRules)
	}
	for i, r := range f.Rules {
		var err error
		if f.Rules[i], err = r.check(); err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	return f.Rules, nil
}

// List returns all rules, the oldest first.
func (r *Rules) List() []Rule {
	return slices.Clone(r.list.All())
}

// Allow adds a rule; one that is there already is no error.
func (r *Rules) Allow(rule Rule) error {
	rule, err := rule.check()
	if err != nil {
		return err
	}
	return r.list.Change(func(now []Rule) ([]Rule, bool, error) {
		switch {
		case slices.Contains(now, rule):
			return now, false, nil
		case len(now) >= MaxRules:
			return nil, false, fmt.Errorf("%d rules are the most that are kept: remove some", MaxRules)
		}
		return append(slices.Clone(now), rule), true, nil
	})
}

// Remove removes a rule. The error matches ErrNoRule if it is not there.
func (r *Rules) Remove(rule Rule) error {
	rule, err := rule.check()
	if err != nil {
		return err
	}
	return r.list.Change(func(now []Rule) ([]Rule, bool, error) {
		i := slices.Index(now, rule)
		if i < 0 {
			return nil, false, fmt.Errorf("%w: device %s may %s %s", ErrNoRule, rule.Device.Short(), rule.Do, rule.Addr)
		}
		return slices.Delete(slices.Clone(now), i, i+1), true, nil
	})
}
