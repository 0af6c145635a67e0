package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"peerlink/cmd/peerchat/internal/contacts"
	"peerlink/identity"
	"peerlink/internal/pause"
)

// The words of --relay-for that are neither ids nor files.
const (
	everybody   = "all"
	theContacts = "contacts"
)

// guestsEvery is how soon a change of a file holds.
const guestsEvery = 5 * time.Second

// guests are the devices that --relay-for names.
type guests struct {
	o     *options
	words []string

	all, contacts bool
	ids           map[identity.DeviceID]bool // of devices and accounts
	files         []string
}

// check reads the words.
func (g *guests) check() error {
	g.ids = make(map[identity.DeviceID]bool)
	for _, w := range g.words {
		id, err := identity.ParseDeviceID(w)
		switch {
		case w == everybody:
			g.all = true
		case w == theContacts:
			g.contacts = true
		case err == nil:
			g.ids[id] = true
		case strings.ContainsAny(w, "/.\\"):
			g.files = append(g.files, w)
		default:
			return fmt.Errorf("--relay-for %.200q: want all, contacts, an id of 64 hex digits, or a file such as ./friends", w)
		}
	}
	if len(g.words) == 0 {
		return errors.New("--relay-for: want all, contacts, ids or files")
	}
	return nil
}

// members tells of each device whether --relay-for names it, until ctx ends; nil
// where it names none. Files are read again when they change.
func (g *guests) members(ctx context.Context, log *slog.Logger) (func(identity.Peer) bool, error) {
	if !g.contacts && len(g.ids)+len(g.files) == 0 {
		return nil, nil
	}
	was := g.stamp()
	known, err := g.load()
	if err != nil {
		return nil, err
	}
	for _, path := range g.files { // later it may become empty: then it names nobody any more
		if ids := make(map[identity.DeviceID]bool); readIDs(path, ids) == nil && len(ids) == 0 {
			return nil, fmt.Errorf("--relay-for: %s names no device: write the ids of devices or accounts there, one a line", path)
		}
	}
	var now atomic.Pointer[func(identity.Peer) bool]
	now.Store(&known)
	go func() {
		for pause.For(ctx, guestsEvery) == nil {
			stamp := g.stamp()
			if stamp == was {
				continue
			}
			was = stamp
			known, err := g.load()
			if err != nil {
				log.Warn("--relay-for: what held before still holds", "err", err)
				continue
			}
			now.Store(&known)
		}
	}()
	return func(p identity.Peer) bool { return (*now.Load())(p) }, nil
}

// sources are the files that name devices.
func (g *guests) sources() []string {
	if !g.contacts {
		return g.files
	}
	return append(g.accountFiles(), g.files...)
}

// accountFiles are files of an account. A daemon replaces them whole, so they may be
// read beside it.
func (g *guests) accountFiles() []string {
	in := func(name string) string { return filepath.Join(g.o.account, name) }
	return []string{in("identity.pem"), in("trust"), g.o.contactsFile()}
}

// stamp is another one after a change of a file.
func (g *guests) stamp() string {
	var b strings.Builder
	for _, path := range g.sources() {
		if st, err := os.Stat(path); err == nil {
			fmt.Fprintf(&b, "%d %d\n", st.ModTime().UnixNano(), st.Size())
		} else {
			b.WriteString("-\n")
		}
	}
	return b.String()
}

// load reads the files.
func (g *guests) load() (func(identity.Peer) bool, error) {
	ids := maps.Clone(g.ids)
	for _, path := range g.files {
		if err := readIDs(path, ids); err != nil {
			return nil, fmt.Errorf("--relay-for: %w", err)
		}
	}
	var trust *identity.Trust // nil has no members
	if g.contacts {
		var err error
		if trust, err = g.accountMembers(); err != nil {
			return nil, fmt.Errorf("--relay-for contacts: %w", err)
		}
	}
	return func(p identity.Peer) bool {
		return ids[p.Device] || ids[identity.DeviceID(p.Account)] || trust.Member(p)
	}, nil
}

// readIDs adds the ids in a file, one a line.
func readIDs(path string, to map[identity.DeviceID]bool) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for i, line := range strings.Split(string(b), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		id, err := identity.ParseDeviceID(line)
		if err != nil {
			return fmt.Errorf("%s, line %d: %w", path, i+1, err)
		}
		to[id] = true
	}
	return nil
}

// accountMembers are the devices of the account itself, its contacts, and what it
// allows, without what it bans.
func (g *guests) accountMembers() (*identity.Trust, error) {
	files := g.accountFiles()
	keys, err := os.ReadFile(files[0])
	if err != nil {
		return nil, err
	}
	me, err := identity.Decode(keys)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", files[0], err)
	}
	text, err := os.ReadFile(files[1])
	if err != nil {
		return nil, err
	}
	trust := new(identity.Trust)
	if err := trust.UnmarshalText(text); err != nil {
		return nil, fmt.Errorf("%s: %w", files[1], err)
	}
	book, err := contacts.Open(files[2])
	if err != nil {
		return nil, err
	}
	own := me.AccountID()
	trust.SetMembers(func(p identity.Peer) bool {
		_, known := book.OfPeer(p)
		return known || p.Account == own
	})
	return trust, nil
}
