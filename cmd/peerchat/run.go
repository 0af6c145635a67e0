package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerlink/account"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/daemon"
	"peerlink/cmd/peerchat/internal/journal"
	"peerlink/webrtc/switchboard"
)

const (
	// logFile, in the account's folder, takes what a daemon in the background
	// says (package journal).
	logFile = "daemon.log"
	// otherWait is how long a daemon that finds the account taken waits for the
	// other one's word, or its end: two that start together need some of it.
	otherWait = 5 * time.Second
)

// newRun is the command that is the daemon.
func newRun(o *options) *cobra.Command {
	r := &runner{o: o}
	cmd := described("run", &cobra.Command{
		Args: usageArgs(func(cmd *cobra.Command, args []string) error {
			return errors.Join(noArgs(cmd, args), r.check())
		}),
		RunE: r.run,
	})
	cmd.Flags().StringVar(&r.metrics, "metrics", "", "HOST:PORT to serve /metrics to Prometheus on; without HOST: 127.0.0.1")
	cmd.Flags().BoolVar(&r.detached, "detached", false, "tell whoever started this when it is ready, on descriptor 3")
	_ = cmd.Flags().MarkHidden("detached")
	return cmd
}

// runner is one run of the daemon.
type runner struct {
	o        *options
	metrics  string
	detached bool

	log  *slog.Logger
	tell starter
	url  string // of the metrics, if they are served
}

// check finds out what cannot be an address of the metrics.
func (r *runner) check() error {
	if r.metrics == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(r.metrics); err != nil {
		return fmt.Errorf("--metrics: %w", err)
	}
	return nil
}

func (r *runner) run(cmd *cobra.Command, _ []string) (err error) {
	if r.detached {
		r.tell = newStarter()
	}
	defer func() { r.tell.end(err) }()
	r.log = r.o.logger(cmd.ErrOrStderr())
	acc, err := r.open(cmd)
	if err != nil || acc == nil {
		return err
	}
	var d *daemon.Daemon
	defer func() {
		ctx, cancel := settling(cmd)
		defer cancel()
		err = errors.Join(err, closeAccount(ctx, acc, r.log))
		if d != nil {
			d.Gone()
		}
	}()
	if r.detached {
		closeLog, err := r.logToFile(acc.Dir())
		if err != nil {
			return err
		}
		defer closeLog()
	}
	if d, err = daemon.New(daemon.Config{Account: acc, Logger: r.log}); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := settling(cmd)
		defer cancel()
		d.Settle(ctx) // commands that have ended well wrote what is still on its way
		err = errors.Join(err, d.Close())
	}()
	if err := r.serve(d, acc); err != nil {
		return err
	}
	stopMetrics, err := r.serveMetrics(d)
	if err != nil {
		return err
	}
	defer stopMetrics()
	r.ready(cmd, acc)
	err = r.wait(cmd.Context(), d)
	if why := d.Why(); err == nil && why != nil { // status 0: to be started again would not help
		fmt.Fprintf(cmd.ErrOrStderr(), "peerchat: %v\n", why)
	}
	return err
}

// settling returns a context for the time of one step of the daemon's end; a signal has
// ended the command's own.
func settling(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(cmd.Context()), settleTimeout)
}

// serve opens the control socket, or takes the one that systemd has opened.
func (r *runner) serve(d *daemon.Daemon, acc *account.Account) error {
	l, err := activated(acc.Dir())
	if err == nil && l == nil {
		l, err = control.Bind(acc.Dir())
	}
	if err != nil {
		return err
	}
	d.Serve(l)
	return nil
}

// open opens the account and starts it. If another daemon has it, that is told,
// and there is neither an account nor an error; one that is just ending is
// waited for.
func (r *runner) open(cmd *cobra.Command) (*account.Account, error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), otherWait)
	defer cancel()
	c := control.NewClient(r.o.account)
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		acc, err := r.o.start(cmd)
		if !errors.Is(err, account.ErrInUse) {
			return acc, err
		}
		if pid, noDaemon := c.Daemon(ctx); noDaemon == nil {
			r.already(cmd, pid)
			return nil, nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// already says which process is the account's daemon.
func (r *runner) already(cmd *cobra.Command, pid int) {
	if r.o.json {
		printerOf(cmd).json(map[string]any{"step": "ready", "ok": true, "already": pid})
	} else {
		fmt.Fprintf(cmd.ErrOrStderr(), "process %d is this account's daemon already\n", pid)
		given := slices.DeleteFunc(append(slices.Clone(ownFlags), "metrics"), func(f string) bool { return !cmd.Flags().Changed(f) })
		if len(given) > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "it goes on as it was started, without this command's --%s: for that, end it with peerchat stop first\n", strings.Join(given, ", --"))
		}
	}
	r.tell.ready()
}

// ready tells everybody that commands can come.
func (r *runner) ready(cmd *cobra.Command, acc *account.Account) {
	switch {
	case r.detached:
	case r.o.json:
		line := map[string]any{"step": "ready", "ok": true, "device": acc.Identity().DeviceID(), "tcp": acc.Addrs(), "pid": os.Getpid()}
		if r.url != "" {
			line["metrics"] = r.url
		}
		printerOf(cmd).json(line)
	default:
		printerOf(cmd).print(acc.Identity().DeviceID().String())
		if r.url != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "metrics at %s\n", r.url)
		}
	}
	r.log.Info("the daemon is ready", "device", acc.Identity().DeviceID(), "folder", acc.Dir(), "pid", os.Getpid())
	r.tell.ready()
	notify(notifyReady)
}

// wait serves until it is told to end. Settings are read anew on SIGHUP.
func (r *runner) wait(ctx context.Context, d *daemon.Daemon) error {
	reloads, stop := reloadSignals()
	defer stop()
	defer notify(notifyStopping)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-d.Stopped():
			return nil
		case <-reloads:
			notify(notifyReloading)
			applied, restart, err := d.Reload()
			if err != nil {
				r.log.Error("the old settings stay", "err", err)
			} else {
				r.log.Info("settings read anew", "applied", applied, "after a restart", restart)
			}
			notify(notifyReady)
		}
	}
}

// logToFile has the log, and a crash, go into the account's folder. It replaces
// r.log.
func (r *runner) logToFile(dir string) (done func(), err error) {
	f, err := journal.Open(filepath.Join(dir, logFile))
	if err != nil {
		return nil, fmt.Errorf("the daemon's log: %w", err)
	}
	level := slog.LevelInfo
	if r.o.verbose {
		level = slog.LevelDebug
	}
	h := journal.NewHandler(slog.NewTextHandler(f, &slog.HandlerOptions{Level: level}))
	r.log = slog.New(h)
	return func() {
		h.Flush()
		_ = f.Close()
	}, nil
}

// serveMetrics serves Prometheus, if there is an address for it.
func (r *runner) serveMetrics(d *daemon.Daemon) (stop func(), err error) {
	if r.metrics == "" {
		return func() {}, nil
	}
	host, port, err := net.SplitHostPort(r.metrics)
	if err != nil {
		return nil, err // which check has seen
	}
	if host == "" {
		host = "127.0.0.1"
	}
	h, err := d.MetricsHandler()
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("--metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = switchboard.ServeSite(ctx, l, mux, r.log)
	}()
	r.url = "http://" + l.Addr().String() + "/metrics"
	r.log.Info("metrics", "url", r.url)
	return func() {
		cancel()
		<-done
	}, nil
}

// newStop is the command that ends the daemon.
func newStop(o *options) *cobra.Command {
	return plain("stop", func(cmd *cobra.Command) error {
		err := stopDaemon(cmd.Context(), control.NewClient(o.account))
		if errors.Is(err, control.ErrNoDaemon) {
			fmt.Fprintln(cmd.ErrOrStderr(), err)
			return nil
		}
		return err
	})
}

// stopDaemon asks the daemon to end and waits until it has.
func stopDaemon(ctx context.Context, c *control.Client) error {
	err := control.OpStop.Follow(ctx, c, control.None{}, nil, func(control.None) error { return nil })
	if _, ok := errors.AsType[*control.EndedError](err); ok {
		return nil // it has said yes, and then ended
	}
	return err
}
