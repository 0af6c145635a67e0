package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peerlink/cmd/peerchat/internal/chatui"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
	"peerlink/internal/pause"
)

const (
	// lookEvery is how often the daemon is asked for what it does not tell by
	// itself: how long a round trip takes.
	lookEvery = 30 * time.Second
	// lookGap is the shortest time between two looks at who is there, however
	// often links come and go.
	lookGap = 200 * time.Millisecond
	// newsSoon is how long after a message the unread ones are counted again:
	// by then those of the open conversation have been seen.
	newsSoon = 200 * time.Millisecond
)

// hasScreen reports whether the chat can be drawn.
func hasScreen(cmd *cobra.Command) bool {
	if t := os.Getenv("TERM"); t == "" || t == "dumb" {
		return false
	}
	return isScreen(cmd.InOrStdin()) && isScreen(cmd.OutOrStdout())
}

// isScreen reports whether v is a terminal, which not every character device is.
func isScreen(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// chatOnScreen runs the chat on the terminal until the user leaves it.
func chatOnScreen(cmd *cobra.Command, s *session, open identity.DeviceID) error {
	cfg := chatui.Config{}
	if !open.IsZero() {
		cfg.Open = open.String()
	}
	cfg.In, cfg.Out = cmd.InOrStdin(), cmd.OutOrStdout()
	return chatui.Run(cmd.Context(), &desk{c: s.client, open: open, every: lookEvery}, cfg)
}

// desk is what the chat on the terminal shows: the daemon's contacts and
// messages.
type desk struct {
	c     *control.Client
	open  identity.DeviceID // is shown even if it is no contact; zero: nobody
	every time.Duration     // between two looks at who is there
}

// Contacts implements chatui.Backend: the contacts, everybody there is a
// conversation with, and whom the chat was opened for.
func (d *desk) Contacts(ctx context.Context) ([]chatui.Contact, error) {
	named, err1 := control.OpContacts.Ask(ctx, d.c, control.ContactChange{})
	talks, err2 := control.OpTalks.Ask(ctx, d.c, control.None{})
	st, err3 := control.OpStatus.Ask(ctx, d.c, control.None{})
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	var all []chatui.Contact
	of := func(id identity.DeviceID) *chatui.Contact {
		i := slices.IndexFunc(all, func(k chatui.Contact) bool { return k.ID == id.String() })
		if i < 0 {
			i = len(all)
			all = append(all, chatui.Contact{ID: id.String(), Name: id.Short(), Presence: chatui.Away})
		}
		return &all[i]
	}
	for _, k := range named.Contacts {
		c := of(k.Device)
		if c.Name = k.Name; k.Trust == identity.Banned.String() {
			c.Detail = "banned"
		}
	}
	for _, t := range talks {
		of(t.Peer).Unread = t.Unread
	}
	if !d.open.IsZero() {
		of(d.open)
	}
	present(all, st.Links)
	return all, nil
}

// present notes who has a link, and its way: that of the shortest round trip,
// if there are several.
func present(all []chatui.Contact, links []control.Link) {
	best := map[string]control.Link{}
	for _, l := range links {
		id := l.Peer.Device.String()
		if b, ok := best[id]; !ok || l.RTT > 0 && (b.RTT == 0 || l.RTT < b.RTT) {
			best[id] = l
		}
	}
	for i := range all {
		if l, ok := best[all[i].ID]; ok {
			all[i].Presence, all[i].Detail = chatui.Online, wayOf(l)
		}
	}
}

// wayOf is a line about a link, such as "relay, 48ms".
func wayOf(l control.Link) string {
	way := l.Carrier
	if l.Way != "" {
		way = l.Way
	}
	switch {
	case l.RTT >= time.Millisecond:
		way += ", " + l.RTT.Round(time.Millisecond).String()
	case l.RTT > 0:
		way += ", <1ms"
	}
	return way
}

// History implements chatui.Backend.
func (d *desk) History(ctx context.Context, contact string, before int64, n int) ([]chatui.Message, error) {
	peer, err := identity.ParseDeviceID(contact)
	if err != nil {
		return nil, err
	}
	page, err := control.OpHistory.Ask(ctx, d.c, control.History{Peer: peer, Before: before, N: n})
	if err != nil {
		return nil, err
	}
	var out []chatui.Message
	for _, m := range page {
		out = append(out, onScreen(m))
	}
	return out, nil
}

// Send implements chatui.Backend.
func (d *desk) Send(ctx context.Context, contact, text string) (chatui.Message, error) {
	to, err := identity.ParseDeviceID(contact)
	if err != nil {
		return chatui.Message{}, err
	}
	m, err := control.OpSay.Ask(ctx, d.c, control.Say{To: to, Text: text})
	if err != nil {
		return chatui.Message{}, err
	}
	return onScreen(m), nil
}

// Seen implements chatui.Backend.
func (d *desk) Seen(ctx context.Context, contact string, seq int64) error {
	peer, err := identity.ParseDeviceID(contact)
	if err != nil {
		return err
	}
	_, err = control.OpSeen.Ask(ctx, d.c, control.Seen{Peer: peer, Seq: seq})
	return err
}

// onScreen is a message of the daemon's as the screen has it.
func onScreen(m control.Message) chatui.Message {
	out := chatui.Message{Contact: m.Peer.String(), Seq: m.Seq, Mine: m.Mine, Text: m.Text, Time: m.At, Reason: m.Reason}
	switch m.Mark {
	case "sent":
		out.Mark = chatui.Sent
	case "delivered":
		out.Mark = chatui.Delivered
	case "failed":
		out.Mark = chatui.Failed
	}
	return out
}

// Events implements chatui.Backend.
func (d *desk) Events(ctx context.Context) (<-chan chatui.Event, error) {
	ctx, cancel := context.WithCancel(ctx)
	f := &feed{
		d: d, out: make(chan chatui.Event), msgs: make(chan control.Message), changed: make(chan struct{}, 1),
		shown: map[string]chatui.Contact{},
	}
	var asking sync.WaitGroup
	asked := make(chan error, 4) // each answers once when it follows, and once when it ends
	follow := func(do func(ready func()) error) {
		asking.Go(func() {
			asked <- do(func() { asked <- nil })
			cancel() // without one of them the screen would be behind
		})
	}
	follow(func(ready func()) error {
		return control.OpMessages.Follow(ctx, d.c, control.None{}, ready, func(m control.Message) error { return f.take(ctx, m) })
	})
	follow(func(ready func()) error {
		return control.OpChanges.Follow(ctx, d.c, control.None{}, ready, f.note)
	})
	err := errors.Join(<-asked, <-asked)
	if err == nil {
		var all []chatui.Contact
		if all, err = d.Contacts(ctx); err == nil {
			f.changes(all) // the screen asks for them itself
		}
	}
	if err != nil {
		cancel()
		asking.Wait()
		return nil, fmt.Errorf("follow the daemon: %w", err)
	}
	go func() {
		defer close(f.out)
		f.run(ctx)
		cancel()
		asking.Wait()
	}()
	return f.out, nil
}

// feed is one life of Events. Its goroutine ends with the daemon's connections,
// or with its context.
type feed struct {
	d       *desk
	out     chan chatui.Event
	msgs    chan control.Message
	changed chan struct{}             // has room for one: links or contacts are others
	shown   map[string]chatui.Contact // as the screen knows them
}

// note never waits: a change that is not looked at yet stands for the next ones.
func (f *feed) note(control.Changed) error {
	pause.Tell(f.changed, struct{}{})
	return nil
}

// take waits for the screen: the daemon keeps what comes meanwhile.
func (f *feed) take(ctx context.Context, m control.Message) error {
	select {
	case f.msgs <- m:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f *feed) run(ctx context.Context) {
	look := time.NewTimer(f.d.every)
	defer look.Stop()
	last, soon := time.Now(), false
	later := func(wait time.Duration) {
		if !soon {
			soon = true
			look.Reset(wait)
		}
	}
	for {
		ok := true
		select {
		case m := <-f.msgs:
			if _, known := f.shown[m.Peer.String()]; !known {
				ok = f.look(ctx) // or the screen has no place for it
			}
			if !m.Mine {
				later(newsSoon)
			}
			s := onScreen(m)
			ok = ok && f.tell(ctx, chatui.Event{Message: &s})
		case <-f.changed:
			later(max(0, lookGap-time.Since(last)))
		case <-look.C:
			soon = false
			look.Reset(f.d.every)
			ok = f.look(ctx)
			last = time.Now()
		case <-ctx.Done():
			return
		}
		if !ok {
			return
		}
	}
}

// look tells what has changed about the contacts.
func (f *feed) look(ctx context.Context) bool {
	all, err := f.d.Contacts(ctx)
	if err != nil {
		return false
	}
	for _, e := range f.changes(all) {
		if !f.tell(ctx, e) {
			return false
		}
	}
	return true
}

// changes returns what the screen does not know yet, and counts on it being
// told.
func (f *feed) changes(all []chatui.Contact) []chatui.Event {
	var out []chatui.Event
	now := make(map[string]chatui.Contact, len(all))
	for _, k := range all {
		now[k.ID] = k
		if was, ok := f.shown[k.ID]; !ok || was != k {
			out = append(out, chatui.Event{Contact: &k})
		}
	}
	for id := range f.shown {
		if _, still := now[id]; !still {
			out = append(out, chatui.Event{Gone: id})
		}
	}
	f.shown = now
	return out
}

func (f *feed) tell(ctx context.Context, e chatui.Event) bool {
	select {
	case f.out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}
