package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"peerlink/cmd/peerchat/internal/control"
)

// newHistory is the command that prints a conversation, or deletes it.
func newHistory(o *options) *cobra.Command {
	var n int
	var forget, strangers bool
	cmd := o.toContact("history", func(cmd *cobra.Command, args []string) error {
		switch {
		case strangers && !forget:
			return usageError{errors.New("--strangers is for --delete")}
		case strangers && len(args) > 0:
			return usageError{fmt.Errorf("--strangers is for all strangers, and %.64q is one device: leave out one of both", args[0])}
		case strangers:
			return nil
		}
		return counted(cobra.ExactArgs(1))(cmd, args)
	}, func(cmd *cobra.Command, args []string) error {
		if strangers {
			return o.with(cmd, func(s *session) error { return o.forget(cmd, s, control.Forget{Strangers: true}) })
		}
		return o.withDevice(cmd, args[0], func(s *session, to target) error {
			if forget {
				return o.forget(cmd, s, control.Forget{Peer: to.device})
			}
			return o.history(cmd, s, args[0], to, n)
		})
	})
	cmd.Flags().IntVarP(&n, "number", "n", 50, "how many messages at most")
	cmd.Flags().BoolVar(&forget, "delete", false, "delete the conversation instead, and what waits to be sent in it")
	cmd.Flags().BoolVar(&strangers, "strangers", false, "with --delete: delete all that was said by devices that are neither contacts nor allowed, and were never written to")
	return cmd
}

// history prints the newest messages of a conversation.
func (o *options) history(cmd *cobra.Command, s *session, name string, to target, n int) error {
	all, err := pages(cmd, s, to, n)
	for _, m := range all {
		from, mark := printable(name), ""
		if m.Mine {
			from = "me"
		}
		if m.Mark != "" && m.Mark != "delivered" {
			mark = " (" + m.Mark + ")"
		}
		o.result(cmd, m, fmt.Sprintf("%s  %s%s: %s", m.At.Local().Format(time.DateTime), from, mark, printable(m.Text)))
	}
	return err
}

// forget deletes messages, and says how many.
func (o *options) forget(cmd *cobra.Command, s *session, what control.Forget) error {
	n, err := control.OpForget.Ask(cmd.Context(), s.client, what)
	if err == nil {
		o.result(cmd, map[string]any{"deleted": n}, fmt.Sprintf("deleted %d messages", n))
	}
	return err
}

// pages reads n messages backwards, and returns them forwards.
func pages(cmd *cobra.Command, s *session, to target, n int) ([]control.Message, error) {
	var all []control.Message
	before := int64(0)
	for len(all) < n {
		page, err := control.OpHistory.Ask(cmd.Context(), s.client, control.History{Peer: to.device, Before: before, N: n - len(all)})
		if err != nil {
			return nil, err
		}
		if len(page) == 0 {
			break
		}
		all = append(page, all...)
		before = page[0].Seq
	}
	return all, nil
}
