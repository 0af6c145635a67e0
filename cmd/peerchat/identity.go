package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/mdp/qrterminal/v3"
	"github.com/spf13/cobra"
	"rsc.io/qr"

	"peerlink/account"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/identity"
)

// newInit is the command that makes an account.
func newInit(o *options) *cobra.Command {
	var name string
	cmd := described("init", &cobra.Command{
		Args: usageArgs(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			acc, err := account.Create(o.account, account.Options{Name: name, Logger: o.logger(cmd.ErrOrStderr())})
			if err != nil {
				return err
			}
			defer acc.Close()
			fmt.Fprintf(cmd.ErrOrStderr(), "made an account in %s; keep a copy of identity.pem, which nothing replaces\n", acc.Dir())
			return o.printID(cmd.OutOrStdout(), acc.Identity().Peer(), false)
		},
	})
	cmd.Flags().StringVar(&name, "name", "", "what the device is called, as others see it (default the host's name)")
	return cmd
}

// newID is the command that prints the device id.
func newID(o *options) *cobra.Command {
	var asQR bool
	cmd := described("id", &cobra.Command{
		Args: usageArgs(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := o.self(cmd.Context())
			if err != nil {
				return err
			}
			return o.printID(cmd.OutOrStdout(), self, asQR)
		},
	})
	cmd.Flags().BoolVar(&asQR, "qr", false, "draw the id as a QR code, too")
	return cmd
}

// self asks the daemon who it is, or else the account's folder.
func (o *options) self(ctx context.Context) (identity.Peer, error) {
	st, err := control.OpStatus.Ask(ctx, control.NewClient(o.account), control.None{})
	if err == nil {
		return st.Self, nil
	}
	if !errors.Is(err, control.ErrNoDaemon) {
		return identity.Peer{}, err
	}
	acc, err := account.Open(o.account, account.Options{})
	if errors.Is(err, account.ErrNoAccount) {
		err = fmt.Errorf("%w: make one with peerchat init", err)
	}
	if err != nil {
		return identity.Peer{}, err
	}
	defer acc.Close()
	return acc.Identity().Peer(), nil
}

func (o *options) printID(out io.Writer, self identity.Peer, asQR bool) error {
	p := &printer{out: out}
	if o.json {
		p.json(self)
		return nil
	}
	p.print(self.Device.String())
	if !asQR {
		return nil
	}
	// Whoever reads it off a screen gets half as many rows, and without NO_COLOR
	// the colours a camera expects whatever the terminal's are.
	cfg := qrterminal.Config{
		Level: qr.M, Writer: out, HalfBlocks: true, QuietZone: 2,
		BlackChar: qrterminal.BLACK_BLACK, WhiteChar: qrterminal.WHITE_WHITE,
		WhiteBlackChar: qrterminal.WHITE_BLACK, BlackWhiteChar: qrterminal.BLACK_WHITE,
	}
	if os.Getenv("NO_COLOR") == "" && isTerminal(out) {
		cfg.HalfBlocks, cfg.BlackChar, cfg.WhiteChar = false, qrterminal.BLACK, qrterminal.WHITE
	}
	qrterminal.GenerateWithConfig(self.Device.String(), cfg)
	return nil
}
