package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
)

// pipeScheme begins the URIs of pipes.
const pipeScheme = "pipe://"

// newPipe is the command that joins standard input and output to a channel.
func newPipe(o *options) *cobra.Command {
	p := &piper{o: o}
	cmd := &cobra.Command{
		Use:   "pipe NAME|DEVICE[@HOST:PORT] | pipe --listen --from NAME",
		Short: "Join standard input and output to a device, as nc does",
		Long: "Join standard input and output to a channel. One side listens, for certain devices only;\n" +
			"the other one names it. The end of the input ends one direction; the command ends when both\n" +
			"directions have. A side that fails resets the channel, so the other one fails, too: a cut never\n" +
			"looks like an end.",
		Example:           "  peerchat pipe --listen --from alice > backup.tar\n  tar c . | peerchat pipe bob\n  peerchat pipe --listen --from alice --name log",
		ValidArgsFunction: o.completeContact,
		Args:              usageArgs(p.check),
		RunE:              p.run,
	}
	cmd.Flags().BoolVarP(&p.listen, "listen", "l", false, "wait for a device to join")
	cmd.Flags().StringSliceVar(&p.from, "from", nil, "devices that may join, by name or id; others are refused")
	cmd.Flags().BoolVar(&p.anyone, "anyone", false, "any device may join that can reach this one")
	cmd.Flags().StringVar(&p.name, "name", "default", "name of the pipe, where there are several")
	return cmd
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
	case p.listen && len(p.from) == 0 && !p.anyone:
		return errors.New("--listen: say who may join: --from NAME, or --anyone")
	case !p.listen && (len(p.from) > 0 || p.anyone):
		return errors.New("--from and --anyone go with --listen")
	case !p.listen && len(args) != 1:
		return fmt.Errorf("accepts 1 arg(s), received %d", len(args))
	}
	return nil
}

func (p *piper) run(cmd *cobra.Command, args []string) error {
	var to target
	var from []identity.DeviceID
	for _, who := range append(slices.Clone(args), p.from...) {
		t, err := p.o.target(who)
		if err != nil {
			return err
		}
		to, from = t, append(from, t.device)
	}
	s, err := p.o.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	var c stream
	if p.listen {
		c, err = p.await(cmd, s, from)
	} else {
		c, err = s.connect(cmd.Context(), to, pipeScheme+p.name)
	}
	if err != nil {
		return err
	}
	peer, _ := peerlink.PeerOf(c)
	fmt.Fprintf(cmd.ErrOrStderr(), "joined to %s\n", who(peer))
	return join(cmd.Context(), c, cmd.InOrStdin(), cmd.OutOrStdout())
}

// await returns the first channel of a device that may join.
func (p *piper) await(cmd *cobra.Command, s *session, from []identity.DeviceID) (stream, error) {
	ctx := cmd.Context()
	l, err := s.listen(ctx, pipeScheme+p.name)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, err
		}
		peer, _ := peerlink.PeerOf(c)
		sock, ok := c.(stream)
		if ok && (p.anyone || slices.Contains(from, peer.Device)) {
			return sock, nil
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "refused %s: not in --from\n", who(peer))
		if ok {
			_ = sock.Reset(channel.CodeUser)
		}
		_ = c.Close()
	}
}

// join copies both ways until both have ended. A failure of either resets the
// channel.
func join(ctx context.Context, c stream, in io.Reader, out io.Writer) error {
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
