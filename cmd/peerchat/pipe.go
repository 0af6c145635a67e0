package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"peerlink"
	"peerlink/channel"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/forward"
	"peerlink/identity"
)

// pipeScheme begins the URIs of pipes.
const pipeScheme = "pipe://"

// defaultPipe is the name of the pipe where none is given.
const defaultPipe = "default"

// newPipe is the command that joins standard input and output to a channel.
func newPipe(o *options) *cobra.Command {
	p := &piper{o: o}
	cmd := o.toContact("pipe", usageArgs(p.check), p.run)
	cmd.Flags().BoolVarP(&p.listen, "listen", "l", false, "wait for a device to join")
	cmd.Flags().StringSliceVar(&p.from, "from", nil, "devices that may join, by name or id; others are refused")
	cmd.Flags().BoolVar(&p.anyone, "anyone", false, "any device may join that can reach this one")
	cmd.Flags().StringVar(&p.name, "name", defaultPipe, "name of the pipe, where there are several")
	cmd.AddCommand(newPipeRule(o, "allow"), newPipeRule(o, "remove"),
		plain("pipe list", func(cmd *cobra.Command) error {
			return changeForwards(cmd, o, control.ForwardChange{}, func(r control.ForwardRule) bool { return r.May == forward.DoPipe })
		}))
	return cmd
}

// newPipeRule is the command that adds a rule for pipes, or removes it.
func newPipeRule(o *options, do string) *cobra.Command {
	return o.toContact("pipe "+do, counted(cobra.RangeArgs(1, 2)), func(cmd *cobra.Command, args []string) error {
		name := defaultPipe
		if len(args) == 2 {
			name = args[1]
		}
		return changeRule(cmd, o, control.ForwardChange{Do: do, Who: args[0], May: forward.DoPipe, Addr: name})
	})
}

type piper struct {
	o              *options
	listen, anyone bool
	from           []string
	name           string
}

func (p *piper) check(_ *cobra.Command, args []string) error {
	switch {
	case p.name == "" || strings.ContainsAny(p.name, "*/") || identity.CheckName(p.name) != nil:
		return fmt.Errorf("--name %.100q: want 1 to 64 bytes of printable text without * and /", p.name)
	case p.listen && len(args) > 0:
		return errors.New("who may join is told by --from")
	case !p.listen && (len(p.from) > 0 || p.anyone):
		return errors.New("--from and --anyone go with --listen")
	case !p.listen && len(args) != 1:
		return fmt.Errorf("accepts 1 arg(s), received %d", len(args))
	}
	return nil
}

func (p *piper) run(cmd *cobra.Command, args []string) error {
	if p.listen {
		from, err := p.o.devices(p.from)
		if err != nil {
			return err
		}
		return p.o.with(cmd, func(s *session) error {
			c, err := p.await(cmd, s, from)
			if err != nil {
				return err
			}
			return p.join(cmd, s, c, !p.anyone && len(from) == 0)
		})
	}
	return p.o.withDevice(cmd, args[0], func(s *session, to target) error {
		c, err := s.connect(cmd.Context(), to, pipeScheme+p.name)
		if err != nil {
			return err
		}
		return p.join(cmd, s, c, false)
	})
}

// join copies both ways until both have ended, or, with byRule, the rules no
// longer let the device join.
func (p *piper) join(cmd *cobra.Command, s *session, c *control.Conn, byRule bool) error {
	peer, _ := peerlink.PeerOf(c)
	fmt.Fprintf(cmd.ErrOrStderr(), "joined to %s\n", who(peer))
	ctx, cancel := context.WithCancelCause(cmd.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	if byRule {
		wg.Go(func() { cancel(p.watchRules(ctx, s, peer)) })
	}
	return leftBy(peer, join(ctx, c, cmd.InOrStdin(), cmd.OutOrStdout()))
}

// leftBy says of an error that the other command's end caused that it did.
func leftBy(peer identity.Peer, err error) error {
	var reset *channel.ResetError
	switch {
	case !errors.As(err, &reset) || !reset.Remote:
		return err
	case errors.Is(err, channel.ErrNotAccepted):
		return &inWords{who(peer) + " has taken another device's channel", err}
	case reset.Code == channel.CodeClosed:
		return &inWords{who(peer) + " stopped reading", err}
	}
	return &inWords{who(peer) + " stopped sending", err}
}

// watchRules returns once the rules no longer let a device join, or ctx ends.
func (p *piper) watchRules(ctx context.Context, s *session, peer identity.Peer) error {
	check := func() error {
		now, err := p.mayJoin(ctx, s, nil)
		if err == nil && !p.o.among(now, peer) {
			err = fmt.Errorf("the pipe was cut: the rule by which %s joined was taken back", who(peer))
		}
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := control.OpChanges.Follow(ctx, s.client, control.None{}, func() {
		if err := check(); err != nil { // it may have changed before this was followed
			cancel(err)
		}
	}, func(ch control.Changed) error {
		if !ch.Contacts {
			return nil
		}
		return check()
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// mayJoin returns the devices that may join: those of the flags, or else of the
// rules as they are now.
func (p *piper) mayJoin(ctx context.Context, s *session, from []identity.DeviceID) ([]identity.DeviceID, error) {
	if p.anyone || len(from) > 0 {
		return from, nil
	}
	all, err := control.OpForwards.Ask(ctx, s.client, control.ForwardChange{})
	if err != nil {
		return nil, err
	}
	for _, r := range all.Rules {
		if (forward.Rule{Do: r.May, Addr: r.Addr}).CoversPipe(p.name) {
			from = append(from, r.Device)
		}
	}
	return from, nil
}

var errWhoJoins = usageError{errors.New("--listen: say who may join: --from NAME, --anyone, or, to stay, peerchat pipe allow NAME")}

// await returns the first channel of a device that may join. The daemon declines
// the others.
func (p *piper) await(cmd *cobra.Command, s *session, from []identity.DeviceID) (*control.Conn, error) {
	ctx := cmd.Context()
	what := control.Listen{Pattern: pipeScheme + p.name, From: from, One: true}
	switch now, err := p.mayJoin(ctx, s, from); {
	case err != nil:
		return nil, err
	case p.anyone:
		what.From = nil
	case len(now) == 0:
		return nil, errWhoJoins
	case len(from) == 0:
		what.Pipe = p.name
	}
	l, err := s.client.ListenTo(ctx, what, func(peer identity.Peer) {
		fmt.Fprintf(cmd.ErrOrStderr(), "refused %s: it may not join (--from, or peerchat pipe allow)\n", who(peer))
	})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	told, err := p.tell(cmd, s)
	if err != nil {
		return nil, err
	}
	defer told()
	c, err := l.Accept()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	return c.(*control.Conn), nil
}

// tell says on standard error that the pipe listens and how it is joined, and later
// if others cannot reach this device. told ends that.
func (p *piper) tell(cmd *cobra.Command, s *session) (told func(), err error) {
	ctx, cancel := context.WithCancel(cmd.Context())
	st, err := s.status(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	name := ""
	if p.name != defaultPipe {
		name = fmt.Sprintf("--name %s ", printable(p.name))
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "the pipe listens; on the other device: peerchat pipe %s%s\n", name, st.Self.Device)
	note(cmd, directly(st))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.ready(ctx); ctx.Err() == nil {
			noteUnreachable(cmd, err)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}, nil
}

// join copies both ways until both have ended. A failure of either resets the
// channel.
func join(ctx context.Context, c *control.Conn, in io.Reader, out io.Writer) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Reset(channel.CodeUser) })
	defer stop()
	up := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, in)
		if err == nil {
			err = c.CloseWrite()
		}
		up <- err
	}()
	_, err := io.Copy(out, c)
	if err != nil {
		_ = c.Reset(channel.CodeUser)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return err
	}
	select {
	case err = <-up:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		_ = c.Reset(channel.CodeUser)
		return err
	}
	return c.Close()
}
