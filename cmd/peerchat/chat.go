package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/spf13/cobra"

	"peerlink"
)

// newChat is the command for a conversation of lines.
func newChat(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "chat DEVICE[@HOST:PORT]",
		Short: "Chat with a device: lines in, lines out",
		Long:  "Chat with a device. What is typed goes there, what comes is printed. The end of the\ninput ends one direction; the command ends when the other side does too. With an address the\ndevice is tried there first, by direct TCP.",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			acc, err := o.startFor(cmd, to)
			if err != nil {
				return err
			}
			defer acc.Close()
			c, err := acc.ConnectionManager().ConnectDevice(cmd.Context(), to.device, "chat://"+to.device.Short(), peerlink.ConnectOptions{})
			if err != nil {
				return err
			}
			defer c.Close()
			peer, _ := peerlink.PeerOf(c)
			fmt.Fprintf(cmd.ErrOrStderr(), "connected to %s\n", who(peer))
			return converse(cmd.Context(), c, cmd.InOrStdin(), &printer{out: cmd.OutOrStdout()}, o.json)
		},
	}
}

// converse sends the lines of in and prints those that come, until the peer
// has ended or ctx has.
func converse(ctx context.Context, c interface {
	net.Conn
	CloseWrite() error
}, in io.Reader, p *printer, asJSON bool,
) error {
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
