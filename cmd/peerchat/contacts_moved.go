package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/cmd/peerchat/internal/control"
)

// newMoved is the command that says that a contact has moved into another account. It
// makes that whole account the contact, so it tells so, and asks, before it does.
func newMoved(o *options) *cobra.Command {
	var yes bool
	cmd := o.toContact("contacts moved", counted(cobra.ExactArgs(1)), func(cmd *cobra.Command, args []string) error {
		return o.with(cmd, func(s *session) error { return moveContact(cmd, o, s, args[0], yes) })
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// errUnconfirmed is for commands that nobody can be asked about.
var errUnconfirmed = usageError{errors.New("nobody can be asked here: --yes does it without")}

func moveContact(cmd *cobra.Command, o *options, s *session, name string, yes bool) error {
	change := control.ContactChange{Do: "moved", Who: name}
	all, err := control.OpContacts.Ask(cmd.Context(), s.client, control.ContactChange{})
	if err != nil {
		return err
	}
	c, known := contactOf(all, name)
	if known && (c.Moved != "" || all.Strangers == "refuse") {
		change.Account = c.Moved
		note(cmd, beforeMove(all, c))
		if err := confirmed(cmd, o, yes); err != nil {
			return err
		}
	} // else the daemon says what is missing
	if all, err = control.OpContacts.Ask(cmd.Context(), s.client, change); err != nil {
		return err
	}
	now, _ := contactOf(all, name)
	o.result(cmd, all, afterMove(c, now))
	return nil
}

func contactOf(all control.Contacts, name string) (control.Contact, bool) {
	i := slices.IndexFunc(all.Contacts, func(c control.Contact) bool {
		return strings.EqualFold(c.Name, name) || strings.EqualFold(c.Device.String(), name)
	})
	if i < 0 {
		return control.Contact{}, false
	}
	return all.Contacts[i], true
}

// beforeMove says what the move of a contact would mean.
func beforeMove(all control.Contacts, c control.Contact) []string {
	name := printable(c.Name)
	if c.Moved == "" {
		return []string{
			fmt.Sprintf("%s's device %s may connect once more, under whichever account it comes next: that is not known yet, as strangers are refused.", name, c.Device),
			fmt.Sprintf("From then on every device of that account is %s.", name),
		}
	}
	lines := []string{fmt.Sprintf("%s's device %s is in account %s now.", name, c.Device, c.Moved)}
	if i := slices.IndexFunc(all.Contacts, func(k control.Contact) bool { return k.Account == c.Moved }); i >= 0 {
		return append(lines, fmt.Sprintf("That account is your contact %s. The device alone is %s from then on.", printable(all.Contacts[i].Name), name))
	}
	lines = append(lines, fmt.Sprintf("From then on every device of that account is %s, also one that its owner adds later.", name))
	for _, d := range c.MovedWith {
		lines = append(lines, fmt.Sprintf("  %s (%s) is connected", d.Device, printable(d.Name)))
	}
	if len(c.MovedWith) == 0 {
		lines = append(lines, "  no other device of it is connected; it may have others")
	}
	return append(lines, "Is it still theirs? Ask them, by another way than over this device.")
}

func afterMove(was, now control.Contact) string {
	name := printable(now.Name)
	switch {
	case was.Moved == "":
		return fmt.Sprintf("%s is the account under which the device comes next", name)
	case now.Account == "":
		return fmt.Sprintf("%s is the device %s in account %s now (%s)", name, now.Device, was.Moved, now.Trust)
	}
	return fmt.Sprintf("%s is account %s now, with all its devices (%s)", name, now.Account, now.Trust)
}

// confirmed asks on a terminal whether to go on; nil: yes.
func confirmed(cmd *cobra.Command, o *options, yes bool) error {
	switch in := cmd.InOrStdin(); {
	case yes:
		return nil
	case o.json || !isTerminal(in) || !isTerminal(cmd.ErrOrStderr()):
		return errUnconfirmed
	default:
		fmt.Fprint(cmd.ErrOrStderr(), "Go on? [y]es, [n]o: ")
		return agreed(cmd.Context(), in)
	}
}

// agreed reads the answer; nil: yes.
func agreed(ctx context.Context, in io.Reader) error {
	answer := make(chan string, 1)
	go func() { // ends with the process, at the latest
		line, _ := bufio.NewReader(in).ReadString('\n')
		answer <- line
	}()
	select {
	case line := <-answer:
		if a := strings.ToLower(strings.TrimSpace(line)); a == "y" || a == "yes" {
			return nil
		}
		return errors.New("nothing was changed")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
