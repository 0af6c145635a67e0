package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/forward"
)

// newForward is the command for ports and sockets of two devices.
func newForward(o *options) *cobra.Command {
	f := &forwarder{o: o}
	cmd := o.toContact("forward", counted(cobra.ExactArgs(1)), f.run)
	cmd.Flags().StringArrayVarP(&f.here, "here", "L", nil, "take here, make there: [BIND:]PORT:HOST:PORT")
	cmd.Flags().StringArrayVarP(&f.there, "there", "R", nil, "take there, make here: [BIND:]PORT:HOST:PORT")
	cmd.Flags().BoolVar(&f.allUsers, "all-users", false, allUsersHelp)
	cmd.AddCommand(newForwardRule(o, "allow"), newForwardRule(o, "remove"),
		plain("forward list", func(cmd *cobra.Command) error {
			return changeForwards(cmd, o, control.ForwardChange{}, func(r control.ForwardRule) bool { return r.May != forward.DoPipe })
		}))
	return cmd
}

// newForwardRule is the command that adds a rule, or removes it.
func newForwardRule(o *options, do string) *cobra.Command {
	var listen bool
	cmd := o.toContact("forward "+do, counted(cobra.ExactArgs(2)), func(cmd *cobra.Command, args []string) error {
		may := forward.DoDial
		if listen {
			may = forward.DoListen
		}
		return changeRule(cmd, o, control.ForwardChange{Do: do, Who: args[0], May: may, Addr: args[1]})
	})
	cmd.Flags().BoolVar(&listen, "listen", false, "about taking connections here (-R), not making them (-L)")
	return cmd
}

// changeRule asks for a change of a rule that can be one.
func changeRule(cmd *cobra.Command, o *options, ch control.ForwardChange) error {
	if err := (forward.Rule{Do: ch.May, Addr: ch.Addr}).CheckAddr(); err != nil {
		return usageError{err}
	}
	return changeForwards(cmd, o, ch, nil)
}

// changeForwards asks for a change; without one the rules are printed that are
// to be shown.
func changeForwards(cmd *cobra.Command, o *options, ch control.ForwardChange, show func(control.ForwardRule) bool) error {
	all, err := ask(cmd, o, control.OpForwards, ch)
	if err != nil {
		return err
	}
	if show != nil {
		all.Rules = slices.DeleteFunc(all.Rules, func(r control.ForwardRule) bool { return !show(r) })
	}
	switch {
	case o.json:
		printerOf(cmd).json(all)
	case ch.Do == "" && len(all.Rules) > 0:
		return forwardTable(cmd.OutOrStdout(), all.Rules)
	case ch.Do == "":
		fmt.Fprintln(cmd.ErrOrStderr(), "no rules: nobody may")
	}
	return nil
}

func forwardTable(out io.Writer, all []control.ForwardRule) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tDEVICE\tMAY\tADDRESS")
	for _, r := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", printable(r.Contact), r.Device, r.May, printable(r.Addr))
	}
	return w.Flush()
}

// forwarder is one run of the command.
type forwarder struct {
	o           *options
	here, there []string
	allUsers    bool

	s    *session
	to   target
	who  string
	p    *printer
	note io.Writer
}

// ready is what is printed for each forward.
type ready struct {
	Step   string `json:"step"`
	OK     bool   `json:"ok"`
	Side   string `json:"side"` // where connections are taken: here or there
	Listen string `json:"listen"`
	Target string `json:"target"`
	Error  string `json:"error,omitempty"` // why they are taken no more, for now
}

func (f *forwarder) run(cmd *cobra.Command, args []string) error {
	here, err := specs(f.here)
	if err != nil {
		return err
	}
	there, err := specs(f.there)
	if err != nil {
		return err
	}
	if len(here)+len(there) == 0 {
		return usageError{errors.New("nothing to forward: say -L or -R")}
	}
	if f.to, err = f.o.target(args[0]); err != nil {
		return err
	}
	if f.s, err = f.o.open(cmd); err != nil {
		return err
	}
	defer f.s.Close()
	f.who, f.p, f.note = printable(args[0]), printerOf(cmd), cmd.ErrOrStderr()
	ctx, cancel := context.WithCancelCause(cmd.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	f.s.watch(ctx, cancel)
	for _, sp := range here {
		if err := f.fromHere(ctx, sp, func(relay func() error) { wg.Go(func() { cancel(relay()) }) }); err != nil {
			return err
		}
	}
	for _, sp := range there {
		if err := f.fromThere(ctx, sp, func(relay func() error) { wg.Go(func() { cancel(relay()) }) }); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func specs(args []string) ([]forward.Spec, error) {
	var out []forward.Spec
	for _, s := range args {
		sp, err := forward.ParseSpec(s)
		if err != nil {
			return nil, usageError{err}
		}
		out = append(out, sp)
	}
	return out, nil
}

// fromHere takes connections here.
func (f *forwarder) fromHere(ctx context.Context, sp forward.Spec, start func(func() error)) error {
	l, err := forward.Listen(ctx, sp.Listen)
	if err != nil {
		return err
	}
	f.tell("here", l.Addr().String(), sp.Target)
	start(func() error {
		return forward.Relay(ctx, l, forward.RelayConfig{
			Note: f.failed(sp.Target),
			Take: f.ours(l),
			Open: func(ctx context.Context) (net.Conn, error) {
				c, err := f.s.connect(ctx, f.to, forward.URIDial)
				if err != nil {
					return nil, err
				}
				if err := forward.Dial(ctx, c, sp.Target); err != nil {
					return nil, err
				}
				return c, nil
			},
		})
	})
	return nil
}

// ours wants the connections of this user's programs.
func (f *forwarder) ours(l net.Listener) func(context.Context, net.Conn) (func(), bool) {
	check := onlyOwn(l, f.allUsers, f.note)
	if check == nil {
		return nil
	}
	return func(_ context.Context, c net.Conn) (func(), bool) { return nil, check(c) == nil }
}

// tell says that connections are taken.
func (f *forwarder) tell(side, at string, to forward.Address) {
	switch {
	case f.o.json:
		f.p.json(ready{Step: "forward", OK: true, Side: side, Listen: at, Target: to.String()})
	case side == "here":
		f.p.print(fmt.Sprintf("%s here goes to %s at %s", printable(at), to, f.who))
	default:
		f.p.print(fmt.Sprintf("%s at %s goes to %s here", printable(at), f.who, to))
	}
}

// failed notes connections that were not joined.
func (f *forwarder) failed(to forward.Address) func(error) {
	return func(err error) { fmt.Fprintf(f.note, "a connection for %s was refused: %v\n", to, err) }
}
