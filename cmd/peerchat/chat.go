package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/spf13/cobra"

	"peerlink"
	"peerlink/internal/control"
)

// newChat is the command for a conversation of lines.
func newChat(o *options) *cobra.Command {
	var live, queue bool
	cmd := &cobra.Command{
		Use:   "chat NAME|DEVICE[@HOST:PORT]",
		Short: "Chat with a device: lines in, lines out",
		Long: "Chat with a device. Each line that is typed is a message; what comes is printed. The daemon\n" +
			"keeps both, and delivers what the device could not take yet, once. At the end of the input the\n" +
			"command waits until all it sent is delivered; with --queue it leaves that to the daemon.\n\n" +
			"With --live, and where no daemon is used, nothing is kept: lines go to a device that listens now\n" +
			"(peerchat listen), the end of the input ends one direction, and the command ends when the other\n" +
			"side does too. With an address the device is tried there first, by direct TCP.",
		Example:           "  peerchat chat bob\n  echo 'the build is done' | peerchat chat --queue bob\n  peerchat chat --live bob@192.0.2.7:7000",
		ValidArgsFunction: o.completeContact,
		Args:              usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := o.target(args[0])
			if err != nil {
				return err
			}
			s, err := o.open(cmd)
			if err != nil {
				return err
			}
			defer s.Close()
			p := &printer{out: cmd.OutOrStdout()}
			if s.acc == nil && !live && to.addr == "" {
				t := &talker{s: s, p: p, note: cmd.ErrOrStderr(), json: o.json, queue: queue, to: to}
				return t.run(cmd.Context(), cmd.InOrStdin())
			}
			if queue {
				return usageError{errors.New("--queue needs the daemon, and no --live or address")}
			}
			c, err := s.connect(cmd.Context(), to, "chat://"+to.device.Short())
			if err != nil {
				return err
			}
			defer c.Close()
			peer, _ := peerlink.PeerOf(c)
			fmt.Fprintf(cmd.ErrOrStderr(), "connected to %s\n", who(peer))
			return converse(cmd.Context(), c, cmd.InOrStdin(), p, o.json)
		},
	}
	cmd.Flags().BoolVar(&live, "live", false, "lines to a device that listens now; nothing is kept")
	cmd.Flags().BoolVar(&queue, "queue", false, "do not wait for the delivery")
	return cmd
}

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
		err := control.FollowReady(ctx, t.s.client, control.OpMessages, nil, once, t.event)
		once()
		ended <- err
	}()
	<-ready // or an answer could be missed
	said := make(chan error, 1)
	go func() { said <- lines(in, func(s string) error { return t.say(ctx, s) }) }()
	for {
		select {
		case err := <-ended:
			return err
		case err := <-said:
			if err != nil || t.queue {
				return err
			}
			said = nil
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
	var m control.Message
	if err := t.s.client.Call(ctx, control.OpSay, control.Say{To: t.to.device, Text: text}, &m); err != nil {
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
		select {
		case t.settled <- struct{}{}:
		default:
		}
	}
	if !m.Mine {
		return t.s.client.Call(context.Background(), control.OpSeen, control.Seen{Peer: m.Peer, Seq: m.Seq}, nil)
	}
	return nil
}

// converse sends the lines of in and prints those that come, until the peer
// has ended or ctx has.
func converse(ctx context.Context, c stream, in io.Reader, p *printer, asJSON bool) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	peer, _ := peerlink.PeerOf(c)
	go func() {
		_ = lines(in, func(s string) error {
			_, err := io.WriteString(c, s+"\n")
			return err
		})
		_ = c.CloseWrite()
	}()
	err := lines(c, func(s string) error {
		if asJSON {
			p.json(event{Step: "chat", OK: true, From: peer.Device, Text: s})
		} else {
			p.print(printable(s))
		}
		return nil
	})
	if ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
		return context.Cause(ctx)
	}
	return err
}
