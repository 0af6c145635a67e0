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
	cmd := plain("init", func(cmd *cobra.Command) error {
		acc, err := account.Create(o.account, account.Options{Name: name, Logger: o.logger(cmd.ErrOrStderr())})
		if err != nil {
			return err
		}
		defer acc.Close()
		fmt.Fprintf(cmd.ErrOrStderr(), "made an account in %s; keep a copy of identity.pem, which nothing replaces\n", acc.Dir())
		self := acc.Identity().Peer()
		o.result(cmd, self, self.Device.String())
		return nil
	})
	cmd.Flags().StringVar(&name, "name", "", "what the device is called, as others see it (default the host's name)")
	return cmd
}

// newID is the command that prints the device id.
func newID(o *options) *cobra.Command {
	var asQR bool
	cmd := plain("id", func(cmd *cobra.Command) error {
		self, err := o.self(cmd.Context())
		if err != nil {
			return err
		}
		o.result(cmd, self, self.Device.String())
		if asQR && !o.json {
			drawQR(cmd.OutOrStdout(), self.Device.String())
		}
		return nil
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

// drawQR draws a text with half as many rows as it has squares; on a screen,
// without NO_COLOR, in the colours that a camera expects whatever the terminal's
// are.
func drawQR(out io.Writer, text string) {
	cfg := qrterminal.Config{
		Level: qr.M, Writer: out, HalfBlocks: true, QuietZone: 2,
		BlackChar: qrterminal.BLACK_BLACK, WhiteChar: qrterminal.WHITE_WHITE,
		WhiteBlackChar: qrterminal.WHITE_BLACK, BlackWhiteChar: qrterminal.BLACK_WHITE,
	}
	if os.Getenv("NO_COLOR") == "" && isTerminal(out) {
		cfg.HalfBlocks, cfg.BlackChar, cfg.WhiteChar = false, qrterminal.BLACK, qrterminal.WHITE
	}
	qrterminal.GenerateWithConfig(text, cfg)
}
