package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/files/parcel"
	"peerlink/identity"
)

// Who may send files without being asked about.
const (
	acceptAlways   = "always"
	acceptContacts = "contacts"
	acceptAsk      = "ask" // contacts, and others after a yes
)

const (
	// answerTime is how long a question waits, maxQuestions how many may.
	answerTime   = 3 * time.Minute
	maxQuestions = 8
)

// consent decides whose files are taken.
type consent struct {
	policy string
	s      *session
	out    io.Writer // where questions go
	turn   chan struct{}

	mu      sync.Mutex
	waiting int
	answer  chan<- string // of the question that is shown
	always  map[string]bool
}

func newConsent(policy string, s *session, out io.Writer) *consent {
	return &consent{policy: policy, s: s, out: out, turn: make(chan struct{}, 1), always: map[string]bool{}}
}

// acceptPolicy checks --accept. Without it strangers are asked about where there
// is a terminal to do so, and else refused: a folder that is named says where
// files go, and not from whom.
func acceptPolicy(flag string, terminal bool) (string, error) {
	switch {
	case flag == acceptAlways || flag == acceptContacts || flag == acceptAsk && terminal:
		return flag, nil
	case flag == acceptAsk:
		return "", usageError{errors.New("--accept ask needs a terminal to ask on")}
	case flag != "":
		return "", usageError{fmt.Errorf("--accept %q: want always, contacts or ask", flag)}
	case terminal:
		return acceptAsk, nil
	}
	return acceptContacts, nil
}

// policies says in words whose files are taken.
var policies = map[string]string{
	acceptAlways:   "everybody",
	acceptContacts: "contacts and own devices only (--accept always takes everybody's)",
	acceptAsk:      "contacts and own devices; about others you are asked",
}

// errContactsOnly is what strangers are told who are not asked about.
var errContactsOnly = errors.New("files are taken from contacts only")

// decide is a parcel.Config.Consent.
func (c *consent) decide(ctx context.Context, o parcel.Offer) error {
	if c.policy == acceptAlways {
		return nil
	}
	switch {
	case o.From.Member:
		return nil
	case c.policy == acceptContacts:
		return errContactsOnly
	}
	c.mu.Lock()
	yes := c.always[o.From.ID]
	full := c.waiting >= maxQuestions
	if !yes && !full {
		c.waiting++
	}
	c.mu.Unlock()
	switch {
	case yes:
		return nil
	case full:
		return errors.New("too many wait for an answer here: try again later")
	}
	defer func() {
		c.mu.Lock()
		c.waiting--
		c.mu.Unlock()
	}()
	return c.ask(ctx, fmt.Sprintf("%s (%.8s)", printable(o.From.Name), o.From.ID), o)
}

// member reports whether files may come from a device unasked, and room is kept
// for it: a device of a contact, or of one's own account. Where the daemon does
// not tell, it is a stranger.
func (c *consent) member(ctx context.Context, p identity.Peer) bool {
	all, err := control.OpContacts.Ask(ctx, c.s.client, control.ContactChange{})
	if err != nil {
		return false
	}
	for _, k := range all.Contacts {
		if k.Moved != "" && k.Device == p.Device {
			return false // it is in another account now
		}
		is := func(d control.ContactDevice) bool { return d.Device == p.Device }
		if k.Device == p.Device || slices.ContainsFunc(k.Devices, is) {
			return k.Trust != identity.Banned.String()
		}
	}
	own, err := control.OpDevices.Ask(ctx, c.s.client, control.None{})
	revoked := func(d control.OwnDevice) bool { return d.Device == p.Device && d.Revoked }
	return err == nil && !p.Account.IsZero() && own.Account == p.Account.String() && !slices.ContainsFunc(own.Devices, revoked)
}

// ask puts the question on the terminal, one at a time.
func (c *consent) ask(ctx context.Context, who string, o parcel.Offer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, errors.New("nobody answered there"))
	defer cancel()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	answer := make(chan string, 1)
	c.setAnswer(answer)
	defer c.setAnswer(nil)
	fmt.Fprintf(c.out, "%s wants to send %s. Take it? [y]es, [n]o, [a]lways from there: ", who, contents(o))
	select {
	case line := <-answer:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		case "a", "always":
			c.mu.Lock()
			c.always[o.From.ID] = true // until this command ends
			c.mu.Unlock()
			return nil
		}
		return errors.New("not wanted")
	case <-ctx.Done():
		fmt.Fprintln(c.out, "\nThe question is over:", context.Cause(ctx))
		return context.Cause(ctx)
	}
}

func (c *consent) setAnswer(to chan<- string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = to
}

// typed takes a line for an answer; false if nothing was asked.
func (c *consent) typed(line string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answer == nil {
		return false
	}
	c.answer <- line
	c.answer = nil
	return true
}

// contents says what is offered: "a.txt and b.txt, 1.2 MiB".
func contents(o parcel.Offer) string {
	names := make([]string, 0, 4)
	for _, n := range o.Names[:min(3, len(o.Names))] {
		names = append(names, printable(n))
	}
	what := strings.Join(names, ", ")
	if more := o.Entries - int64(len(names)); more > 0 {
		what += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("%s, %s", what, humanize.IBytes(uint64(max(0, o.Bytes))))
}
