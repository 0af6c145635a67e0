package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"peerlink/cmd/peerchat/internal/control"
)

// newHistory is the command that prints a conversation.
func newHistory(o *options) *cobra.Command {
	var n int
	cmd := described("history", &cobra.Command{
		ValidArgsFunction: o.completeContact,
		Args:              counted(cobra.ExactArgs(1)),
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
			all, err := pages(cmd, s, to, n)
			if err != nil {
				return err
			}
			p := &printer{out: cmd.OutOrStdout()}
			for _, m := range all {
				if o.json {
					p.json(m)
					continue
				}
				from, mark := printable(args[0]), ""
				if m.Mine {
					from = "me"
				}
				if m.Mark != "" && m.Mark != "delivered" {
					mark = " (" + m.Mark + ")"
				}
				p.print(fmt.Sprintf("%s  %s%s: %s", m.At.Local().Format("2006-01-02 15:04:05"), from, mark, printable(m.Text)))
			}
			return nil
		},
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
