package main

import (
	"context"
	"fmt"
	"io"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/spf13/cobra"

	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
	"peerlink/internal/quota"
)

// maxHeard is how many devices get what is typed: those of the latest messages.
const maxHeard = 256

// newListen is the command that makes this device reachable.
func newListen(o *options) *cobra.Command {
	var reply string
	f := takeFlags{into: "."}
	cmd := plain("listen", func(cmd *cobra.Command) error {
		return o.taking(cmd, f, func(s *session, t *taker) error {
			h := &host{o: o, p: t.p, s: s, taker: t, reply: reply, heard: quota.NewLRU[identity.DeviceID, struct{}](maxHeard)}
			return h.run(cmd)
		})
	})
	cmd.Flags().StringVar(&f.into, "into", ".", "folder for received files")
	f.register(cmd)
	cmd.Flags().StringVar(&reply, "reply", "", "answer each message with this text")
	return cmd
}

// host serves the devices that call this one.
type host struct {
	o     *options
	p     *printer
	s     *session
	taker *taker
	reply string

	heard *lru.Cache[identity.DeviceID, struct{}] // devices that a message came from
}

// run serves until the command or the daemon ends.
func (h *host) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	ended, err := h.serve(ctx)
	if err != nil {
		return err
	}
	if err := h.s.announce(cmd, h.p, h.o.json, directly); err != nil {
		return err
	}
	go h.typed(ctx, cmd.InOrStdin())
	return await(ctx, ended)
}

// directly tells where a device takes direct TCP.
func directly(st control.Status) (notes []string) {
	for _, addr := range st.Listens {
		notes = append(notes, "direct TCP on "+addr)
	}
	return notes
}

// serve takes messages and files. ended tells why it cannot go on.
func (h *host) serve(ctx context.Context) (ended <-chan error, err error) {
	ended, failed := firstError()
	following := make(chan struct{})
	go func() {
		failed(control.OpMessages.Follow(ctx, h.s.client, control.None{}, func() { close(following) },
			func(m control.Message) error { return h.message(ctx, m) }))
	}()
	select {
	case <-following:
	case err := <-ended:
		return nil, err
	}
	return ended, h.taker.serve(ctx, h.s, failed)
}

// event is a line of --json.
type event struct {
	Step    string            `json:"step"`
	OK      bool              `json:"ok"`
	From    identity.DeviceID `json:"from"`
	Contact string            `json:"contact,omitempty"` // this account's name for it
	Text    string            `json:"text,omitempty"`
	File    *fileReport       `json:"file,omitempty"`
	Error   string            `json:"error,omitempty"`
}

// message shows one that came, and answers it.
func (h *host) message(ctx context.Context, m control.Message) error {
	if m.Mine {
		return nil
	}
	h.heard.Add(m.Peer, struct{}{})
	from := h.know(ctx, m.Peer)
	if h.o.json {
		h.p.json(event{Step: "chat", OK: true, From: m.Peer, Contact: from.contact, Text: m.Text})
	} else {
		h.p.print(fmt.Sprintf("%s: %s", from.name, printable(m.Text)))
	}
	if h.reply != "" {
		h.say(ctx, m.Peer, h.reply)
	}
	_, _ = control.OpSeen.Ask(ctx, h.s.client, control.Seen{Peer: m.Peer, Seq: m.Seq}) // else it counts as unread
	return nil
}

// say sends a message; what cannot be sent is told. It goes to each that has written, so
// it keeps no stranger's conversation: a line for 256 of them would take as much of the
// contacts' room.
func (h *host) say(ctx context.Context, to identity.DeviceID, text string) {
	_, err := control.OpReply.Ask(ctx, h.s.client, control.Say{To: to, Text: text})
	switch {
	case err == nil || ctx.Err() != nil:
	case h.o.json:
		h.p.json(event{Step: "chat", From: to, Contact: h.know(ctx, to).contact, Text: text, Error: err.Error()})
	default:
		h.p.print(fmt.Sprintf("-- not sent to %s: %s", h.know(ctx, to).name, printable(err.Error())))
	}
}

func who(p identity.Peer) string { return fmt.Sprintf("%s (%s)", printable(p.Name), p.Device.Short()) }

// know tells what this account calls a device, and with a link what it calls itself.
func (h *host) know(ctx context.Context, device identity.DeviceID) visitor {
	p := identity.Peer{Device: device}
	st, err := h.s.status(ctx)
	for _, l := range st.Links {
		if err == nil && l.Peer.Device == device {
			p = l.Peer
		}
	}
	return h.taker.consent.know(ctx, p)
}

// typed sends lines of the terminal to all devices that a message came from.
func (h *host) typed(ctx context.Context, in io.Reader) {
	_ = lines(in, func(s string) error {
		if h.taker.consent.prompt.typed(s) || s == "" {
			return nil
		}
		for _, to := range h.heard.Keys() {
			h.say(ctx, to, s)
		}
		return nil
	})
}
