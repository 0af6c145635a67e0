package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/spf13/pflag"

	"peerlink/webrtc/switchboard"
)

// signalBoard are the flags of the switchboard beside a node.
type signalBoard struct {
	listen    string
	cert, key string
	cfg       switchboard.ServerConfig
}

func (b *signalBoard) register(f *pflag.FlagSet) {
	f.StringVar(&b.listen, "signal", "", "HOST:PORT for a switchboard, over which devices and browsers call each other up for WebRTC (default: none)")
	f.StringVar(&b.cert, "signal-cert", "", "PEM file with the switchboard's TLS certificate, read again when it changes; without: plain HTTP, for loopback or behind a proxy")
	f.StringVar(&b.key, "signal-key", "", "PEM file with the certificate's key")
	f.StringSliceVar(&b.cfg.Origins, "signal-origin", nil, "hosts whose web pages may use the switchboard, besides its own, such as app.example or \"localhost:*\"; \"*\" for all")
	f.IntVar(&b.cfg.MaxDevices, "signal-max", 4096, "devices on the switchboard at once")
	f.IntVar(&b.cfg.MaxPerAddress, "signal-max-address", 64, "of one IPv4 address or IPv6 /64; a proxy has one for all")
}

// board is a running switchboard.
type board struct {
	url   string
	stop  context.CancelFunc
	donec chan error // holds 1: why it ended
}

// start runs the switchboard until ctx ends or close; fail is told if it ends
// by itself. nil without --signal.
func (b *signalBoard) start(ctx context.Context, log *slog.Logger, fail func(error)) (*board, error) {
	switch {
	case b.listen == "" && (b.cert != "" || b.key != "" || len(b.cfg.Origins) > 0):
		return nil, usageError{errors.New("--signal-cert, --signal-key and --signal-origin are for --signal HOST:PORT")}
	case b.listen == "":
		return nil, nil
	case (b.cert == "") != (b.key == ""):
		return nil, usageError{errors.New("--signal-cert and --signal-key: want both or none")}
	case b.cfg.MaxDevices <= 0 || b.cfg.MaxPerAddress <= 0:
		return nil, usageError{errors.New("--signal-max and --signal-max-address: want more than 0")}
	}
	if _, _, err := net.SplitHostPort(b.listen); err != nil {
		return nil, usageError{fmt.Errorf("--signal %q: want HOST:PORT", b.listen)}
	}
	l, err := switchboard.Listen(ctx, b.listen, b.cert, b.key)
	if err != nil {
		return nil, fmt.Errorf("--signal %s: %w", b.listen, err)
	}
	cfg := b.cfg
	cfg.Logger = log
	ctx, stop := context.WithCancel(ctx)
	out := &board{url: boardURL(l.Addr(), b.cert != ""), stop: stop, donec: make(chan error, 1)}
	go func() {
		err := switchboard.NewServer(cfg).Serve(ctx, l)
		if err != nil {
			fail(fmt.Errorf("--signal %s: %w", b.listen, err))
		}
		out.donec <- err
	}()
	return out, nil
}

// close ends the switchboard and waits for its lines.
func (b *board) close() {
	if b != nil {
		b.stop()
		<-b.donec //nolint:errcheck // the end that stop asked for
	}
}

// boardURL is what devices of this machine would dial; others put in its name.
func boardURL(at net.Addr, secure bool) string {
	scheme := "ws"
	if secure {
		scheme = "wss"
	}
	ap, err := netip.ParseAddrPort(at.String())
	if err == nil && ap.Addr().IsUnspecified() {
		return fmt.Sprintf("%s://HOST:%d/", scheme, ap.Port())
	}
	return scheme + "://" + at.String() + "/"
}
