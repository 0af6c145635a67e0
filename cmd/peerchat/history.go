package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"peerlink/cmd/peerchat/internal/control"
)

// newHistory is the command that prints a conversation.
func newHistory(o *options) *cobra.Command {
	var n int
	cmd := o.toContact("history", counted(cobra.ExactArgs(1)), func(cmd *cobra.Command, args []string) error {
		return o.withDevice(cmd, args[0], func(s *session, to target) error {
			all, err := pages(cmd, s, to, n)
			for _, m := range all {
				from, mark := printable(args[0]), ""
				if m.Mine {
					from = "me"
				}
				if m.Mark != "" && m.Mark != "delivered" {
					mark = " (" + m.Mark + ")"
				}
				o.result(cmd, m, fmt.Sprintf("%s  %s%s: %s", m.At.Local().Format(time.DateTime), from, mark, printable(m.Text)))
			}
			return err
		})
	})
	cmd.Flags().IntVarP(&n, "number", "n", 50, "how many messages at most")
	return cmd
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
