package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"peerlink/cmd/peerchat/internal/contacts"
	"peerlink/cmd/peerchat/internal/control"
)

// newContacts is the command for names of devices, and for decisions about them.
func newContacts(o *options) *cobra.Command {
	cmd := plain("contacts", func(cmd *cobra.Command) error { return changeContacts(cmd, o, control.ContactChange{}) })
	cmd.Aliases = []string{"contact"}
	sub := func(name string, n int, change func(args []string) (control.ContactChange, error)) {
		cmd.AddCommand(o.toContact("contacts "+name, counted(cobra.ExactArgs(n)), func(cmd *cobra.Command, args []string) error {
			ch, err := change(args)
			if err != nil {
				return usageError{err}
			}
			return changeContacts(cmd, o, ch)
		}))
	}
	sub("list", 0, func([]string) (control.ContactChange, error) { return control.ContactChange{}, nil })
	sub("add", 2, func(args []string) (control.ContactChange, error) {
		_, err := parseDevice(args[1])
		if err == nil {
			err = contacts.CheckName(args[0])
		}
		return control.ContactChange{Do: "add", Name: args[0], Who: args[1]}, err
	})
	sub("rename", 2, func(args []string) (control.ContactChange, error) {
		return control.ContactChange{Do: "rename", Who: args[0], Name: args[1]}, contacts.CheckName(args[1])
	})
	for _, do := range []string{"remove", "ban", "allow", "forget"} {
		sub(do, 1, func(args []string) (control.ContactChange, error) {
			return control.ContactChange{Do: do, Who: args[0]}, nil
		})
	}
	cmd.AddCommand(newInvite(o), newAccept(o), newMoved(o), newStrangers(o))
	return cmd
}

// changeContacts asks for a change; without one the contacts are printed.
func changeContacts(cmd *cobra.Command, o *options, ch control.ContactChange) error {
	all, err := ask(cmd, o, control.OpContacts, ch)
	if err != nil {
		return err
	}
	if o.json {
		printerOf(cmd).json(all)
		return nil
	}
	if ch.Do != "" {
		return nil
	}
	if all.Strangers == "refuse" {
		defer fmt.Fprintln(cmd.ErrOrStderr(), strangersRefused)
	}
	if len(all.Contacts) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "no contacts yet: peerchat contacts invite makes a code for somebody, peerchat contacts add takes a device id")
		return nil
	}
	for _, c := range all.Contacts {
		if c.Moved != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s's device comes under another account now (%.8s…), where it is not the contact's: if that is right, peerchat contacts moved %[1]s\n", printable(c.Name), c.Moved)
		}
	}
	return contactTable(cmd.OutOrStdout(), all.Contacts)
}

const strangersRefused = "strangers are refused: only contacts that are allowed, what else is allowed, and own devices may connect"

// newStrangers is the command for what becomes of devices about which nothing was
// decided.
func newStrangers(o *options) *cobra.Command {
	return described("contacts strangers", &cobra.Command{
		ValidArgs: []string{"allow", "refuse"},
		Args:      counted(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := ask(cmd, o, control.OpContacts, control.ContactChange{Do: "strangers", Who: args[0]})
			if err != nil {
				return err
			}
			done := "strangers may connect"
			if all.Strangers == "refuse" {
				done = strangersRefused
			}
			o.result(cmd, all, done)
			return nil
		},
	})
}

func contactTable(out io.Writer, all []control.Contact) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tDEVICE\tTRUST\tLINK\tDEVICES")
	for _, c := range all { // of one without a link so far no other device is known
		trust, revoked := c.Trust, 0
		if c.Moved != "" {
			trust += ", moved"
		}
		for _, d := range c.Devices {
			if d.Revoked {
				revoked++
			}
		}
		devices := strconv.Itoa(max(1, len(c.Devices)) - revoked)
		if revoked > 0 {
			devices += fmt.Sprintf(" (%d revoked)", revoked)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", printable(c.Name), c.Device, trust, map[bool]string{true: "yes", false: "no"}[c.Online], devices)
	}
	return w.Flush()
}

// completeContact offers the contacts' names, from their file: completion
// starts nothing.
func (o *options) completeContact(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	book, err := contacts.Open(o.contactsFile())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, c := range book.List() {
		names = append(names, c.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
