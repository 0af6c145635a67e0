package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"peerlink"
	"peerlink/cmd/peerchat/internal/chat"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
	"peerlink/internal/pause"
)

// newChat is the command for conversations.
func newChat(o *options) *cobra.Command {
	t := &chatting{o: o}
	cmd := o.toContact("chat", counted(cobra.MaximumNArgs(1)), t.run)
	cmd.Flags().BoolVar(&t.plain, "plain", false, "lines, on a terminal too")
	cmd.Flags().BoolVar(&t.queue, "queue", false, "do not wait for the delivery")
	return cmd
}

// chatting is one run of the command.
type chatting struct {
	o            *options
	plain, queue bool
}

var errWithWhom = usageError{errors.New("name a device to chat with: only the chat on a terminal does without")}

func (t *chatting) run(cmd *cobra.Command, args []string) error {
	var to target
	screen := !t.plain && !t.queue && !t.o.json && hasScreen(cmd)
	if len(args) == 0 && !screen {
		return errWithWhom
	}
	if len(args) > 0 {
		var err error
		if to, err = t.o.target(args[0]); err != nil {
			return err
		}
	}
	return t.o.with(cmd, func(s *session) error { return t.talk(cmd, s, to, len(args) > 0, screen) })
}

// talk is the conversation with a device, if one was named, on a screen or as
// lines.
func (t *chatting) talk(cmd *cobra.Command, s *session, to target, named, screen bool) error {
	here := s.close != nil || to.addr != "" // it is not left to a daemon
	switch {
	case here && t.queue:
		return usageError{errors.New("--queue needs the daemon, and no address")}
	case here && named:
		if err := t.reach(cmd, s, to); err != nil {
			return err
		}
	}
	if screen {
		return chatOnScreen(cmd, s, to.device)
	}
	l := &talker{s: s, p: printerOf(cmd), note: cmd.ErrOrStderr(), json: t.o.json, queue: t.queue, to: to}
	return l.run(cmd.Context(), cmd.InOrStdin())
}

// reach makes a link to the device, or says why there is none.
func (t *chatting) reach(cmd *cobra.Command, s *session, to target) error {
	c, err := s.connect(cmd.Context(), to, chat.URI)
	if err != nil {
		return err
	}
	peer, _ := peerlink.PeerOf(c)
	fmt.Fprintf(cmd.ErrOrStderr(), "connected to %s\n", who(peer))
	return c.Close()
}

// patience is how long a command waits before it prints what it waits for.
const patience = 2 * time.Second

// talker is a conversation through the daemon, as plain lines.
type talker struct {
	s     *session
	p     *printer
	note  io.Writer
	json  bool
	queue bool
	to    target

	mu      sync.Mutex
	waiting map[int64]bool // messages of this command that are not delivered
	failed  error
	settled chan struct{} // has room for one: waiting has shrunk
}

func (t *talker) run(ctx context.Context, in io.Reader) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.waiting, t.settled = map[int64]bool{}, make(chan struct{}, 1)
	ended := make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		once := sync.OnceFunc(func() { close(ready) })
		err := control.OpMessages.Follow(ctx, t.s.client, control.None{}, once, t.event)
		once()
		ended <- err
	}()
	<-ready // or an answer could be missed
	said := make(chan error, 1)
	go func() { said <- lines(in, func(s string) error { return t.say(ctx, s) }) }()
	defer func() {
		if n := t.left(); n > 0 && ctx.Err() != nil && !t.json {
			fmt.Fprintf(t.note, "%d not delivered yet: %s\n", n, t.kept())
		}
	}()
	var slow <-chan time.Time
	whyc := make(chan error, 1)
	for {
		select {
		case err := <-ended:
			return err
		case err := <-said:
			if err != nil || t.queue {
				return err
			}
			said, slow = nil, time.After(patience)
		case <-slow:
			if !t.json {
				fmt.Fprintf(t.note, "waiting until the device has taken %d; %s\n", t.left(), t.leave())
				go func() { whyc <- t.refused(ctx) }()
			}
		case err := <-whyc:
			if err != nil {
				fmt.Fprintf(t.note, "refused: %s\n", printable(err.Error()))
			}
		case <-t.settled:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if said == nil && t.left() == 0 {
			t.mu.Lock()
			defer t.mu.Unlock()
			return t.failed
		}
	}
}

// refused says why the device takes nothing, or is told nothing; nil: it is not
// refused, as far as one more call shows, or just not there.
func (t *talker) refused(ctx context.Context) error {
	c, err := t.s.connect(ctx, t.to, chat.URI)
	if err == nil {
		return c.Close()
	}
	for _, cause := range []error{identity.ErrNotTrusted, peerlink.ErrRefused, peerlink.ErrDeclined} {
		if errors.Is(err, cause) {
			return err
		}
	}
	return nil
}

// kept says what becomes of messages that were not delivered.
func (t *talker) kept() string {
	if t.s.close != nil {
		return "they are kept, and delivered when this account runs and the device is there"
	}
	return "the daemon keeps what it was given, and delivers it when the device is there"
}

// leave says how not to wait.
func (t *talker) leave() string {
	if t.s.close != nil {
		return "Ctrl-C leaves them for the next time that this account runs"
	}
	return "it can be left to the daemon (Ctrl-C here, or --queue)"
}

func (t *talker) left() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiting)
}

// say sends a line. The lock is held so that its delivery is not seen before it
// is known.
func (t *talker) say(ctx context.Context, text string) error {
	if text == "" {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	m, err := control.OpSay.Ask(ctx, t.s.client, control.Say{To: t.to.device, Text: text})
	if err != nil {
		return err
	}
	t.waiting[m.Seq] = true
	return nil
}

// event shows what comes from the other side, and notes what was delivered.
func (t *talker) event(m control.Message) error {
	if m.Peer != t.to.device {
		return nil
	}
	t.mu.Lock()
	mine := t.waiting[m.Seq]
	done := mine && (m.Mark == "delivered" || m.Mark == "failed")
	if done {
		delete(t.waiting, m.Seq)
	}
	if done && m.Mark == "failed" {
		t.failed = fmt.Errorf("a message was refused: %s", printable(m.Reason))
	}
	t.mu.Unlock()
	switch {
	case t.json && (mine || !m.Mine):
		t.p.json(m)
	case !m.Mine:
		t.p.print(printable(m.Text))
	}
	if done {
		pause.Tell(t.settled, struct{}{})
	}
	if !m.Mine {
		_, err := control.OpSeen.Ask(context.Background(), t.s.client, control.Seen{Peer: m.Peer, Seq: m.Seq})
		return err
	}
	return nil
}
