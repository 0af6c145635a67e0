package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/adrg/xdg"
	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"peerlink/account"
	"peerlink/cmd/peerchat/internal/journal"
	"peerlink/identity"
)

// bootstrapEnv names the environment variable with bootstrap nodes, separated
// by commas. The flag goes before it, it before the account's config file.
const bootstrapEnv = "PEERCHAT_BOOTSTRAP"

// readyTimeout is how long a command waits for the DHT before it says so.
const readyTimeout = 10 * time.Second

// options are the flags that every command has.
type options struct {
	account   string
	bootstrap []string
	listen    []string
	servers   []string
	signals   []string
	local     string
	loopback  bool
	noDaemon  bool
	json      bool
	verbose   bool
}

func (o *options) register(f *pflag.FlagSet) {
	f.StringVar(&o.account, "account", filepath.Join(xdg.DataHome, "peerlink", "account"), "folder of the account")
	f.StringSliceVar(&o.bootstrap, "bootstrap", nil, "multiaddresses of bootstrap nodes (else $"+bootstrapEnv+", else the account's config)")
	f.StringSliceVar(&o.listen, "tcp", nil, "HOST:PORT to take direct TCP connections on (else the account's config)")
	f.StringSliceVar(&o.servers, "server", nil, "STUN and TURN servers, such as stun:HOST:PORT (else the account's config, else the bootstrap nodes); \"none\" for none")
	f.StringSliceVar(&o.signals, "signal", nil, "switchboards, such as wss://board.example/, over which devices and browsers call each other up for WebRTC (else the account's config)")
	f.StringVar(&o.local, "local", "", "folder through which devices of this machine find each other (else the account's config, else the user's runtime folder); \"off\" for none")
	f.BoolVar(&o.loopback, "loopback", false, "offer this machine's loopback addresses too, for use on one machine")
	f.BoolVar(&o.noDaemon, "no-daemon", false, "hold the account in this process (as $"+noDaemonEnv+", --bootstrap, --tcp, --server, --local and --loopback do)")
	f.BoolVar(&o.json, "json", false, "print one JSON object a line")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log to standard error")
}

func (o *options) logger(w io.Writer) *slog.Logger {
	if !o.verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(journal.NewHandler(tint.NewTextHandler(w, &tint.Options{Level: slog.LevelDebug, NoColor: os.Getenv("NO_COLOR") != "" || !isTerminal(w)})))
}

// bootstrapNodes returns the nodes of the flag or the environment; nil leaves
// it to the config file.
func (o *options) bootstrapNodes() []string {
	if o.bootstrap != nil {
		return o.bootstrap
	}
	var nodes []string
	for s := range strings.SplitSeq(os.Getenv(bootstrapEnv), ",") {
		if s = strings.TrimSpace(s); s != "" {
			nodes = append(nodes, s)
		}
	}
	return nodes
}

// start opens the account, creating it on first use, and starts it.
func (o *options) start(cmd *cobra.Command) (*account.Account, error) {
	opts := account.Options{
		Bootstrap: o.bootstrapNodes(),
		Listen:    o.listen,
		Servers:   o.servers,
		LocalDir:  o.local,
		Loopback:  o.loopback,

		Switchboards: o.signals,

		Logger: o.logger(cmd.ErrOrStderr()),
	}
	acc, err := account.Open(o.account, opts)
	if errors.Is(err, account.ErrNoAccount) {
		acc, err = account.Create(o.account, opts)
		if err == nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "created an account in %s\n", acc.Dir())
		}
	}
	switch {
	case errors.Is(err, account.ErrInUse):
		return nil, fmt.Errorf("%w; if that is the daemon, “peerchat stop” ends it, and the next command that needs it starts it again", err)
	case err != nil:
		return nil, err
	}
	if err := acc.Start(cmd.Context()); err != nil {
		_ = acc.Close()
		return nil, err
	}
	return acc, nil
}

// awaitReady waits until others can reach the account, or says why they cannot.
func awaitReady(ctx context.Context, acc *account.Account) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return acc.Ready(ctx)
}

// target is a device to connect to, as given on the command line.
type target struct {
	device identity.DeviceID
	addr   string // HOST:PORT for direct TCP; may be empty
	any    bool   // any device of the contact will do of which this is the first
}

// parseDevice reads a device id of the command line.
func parseDevice(s string) (identity.DeviceID, error) {
	id, err := identity.ParseDeviceID(s)
	if err != nil {
		err = errors.New(strings.TrimPrefix(err.Error(), identity.ErrBadID.Error()+": "))
	}
	return id, err
}
