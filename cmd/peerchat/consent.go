package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/time/rate"

	"peerlink/cmd/peerchat/internal/files/parcel"
	"peerlink/internal/quota"
)

// Who may send files without being asked about.
const (
	acceptAlways   = "always"
	acceptContacts = "contacts"
	acceptAsk      = "ask" // contacts, and others after a yes
)

const (
	// answerTime is how long a question waits; maxQuestions bounds the questions that
	// wait, perSender those of one device: a page in a browser asks for each file.
	answerTime   = 3 * time.Minute
	maxQuestions = 16
	perSender    = 4
	// questionEvery is how often one may come once maxQuestions have.
	questionEvery = 5 * time.Second
)

// consent decides whose files are taken.
type consent struct {
	policy string
	s      *session
	prompt *prompt
	places *quota.Quota[string] // of questions: only strangers are asked about
	pace   *rate.Limiter        // of questions, lest they fill the terminal
	turn   chan struct{}

	mu     sync.Mutex
	always map[string]bool
}

func newConsent(policy string, s *session, out io.Writer) *consent {
	return &consent{
		policy: policy, s: s, prompt: &prompt{out: out}, places: quota.New[string](perSender, maxQuestions),
		pace: rate.NewLimiter(rate.Every(questionEvery), maxQuestions),
		turn: make(chan struct{}, 1), always: map[string]bool{},
	}
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
	c.mu.Unlock()
	if yes {
		return nil
	}
	if c.places.Take(o.From.ID) != nil {
		return errors.New("too many wait for an answer here: try again later")
	}
	defer c.places.Release(o.From.ID)
	if !c.pace.Allow() {
		return errors.New("too many have asked here: try again later")
	}
	return c.ask(ctx, o)
}

// ask puts the question on the terminal, one at a time. A yes is to what it shows.
func (c *consent) ask(ctx context.Context, o parcel.Offer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, errors.New("nobody answered there"))
	defer cancel()
	l, err := o.Look(ctx)
	if err != nil {
		return err
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer c.prompt.end("")
	answer := c.prompt.show(question(o.From, l))
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
		c.prompt.end(fmt.Sprint("The question is over: ", context.Cause(ctx)))
		return context.Cause(ctx)
	}
}

// question is about files of a stranger, with the whole id once: the first digits of
// two ids can be the same.
func question(from parcel.Peer, l parcel.Listing) string {
	return fmt.Sprintf("%s wants to send %s.\nIts device id is %s\nTake it? [y]es, [n]o, [a]lways from there: ", printable(from.Name), contents(l), from.ID)
}

// contents says what is offered: "a.txt, b and 9 more, 1.2 MiB, 1 hidden
// (b/.profile), 2 can be run (b/x, b/y)".
func contents(l parcel.Listing) string {
	what := named(l.Names[:min(3, len(l.Names))], l.Entries) + ", " + humanize.IBytes(uint64(max(0, l.Bytes)))
	if l.Hidden.N > 0 {
		what += fmt.Sprintf(", %d hidden (%s)", l.Hidden.N, named(l.Hidden.Paths, l.Hidden.N))
	}
	if l.Programs.N > 0 {
		what += fmt.Sprintf(", %d can be run (%s)", l.Programs.N, named(l.Programs.Paths, l.Programs.N))
	}
	if !l.Whole {
		what += " (its version tells no more: programs, and what is hidden below, will be refused)"
	}
	return what
}

// named lists the first of n names.
func named(names []string, n int64) string {
	safe := make([]string, 0, len(names))
	for _, name := range names {
		safe = append(safe, printable(name))
	}
	list := strings.Join(safe, ", ")
	if more := n - int64(len(names)); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}
