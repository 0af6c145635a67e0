package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"peerlink"
	"peerlink/account"
	"peerlink/cmd/peerchat/internal/contacts"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/daemon"
	"peerlink/identity"
	"peerlink/internal/pause"
)

// noDaemonEnv, if not empty, does what --no-daemon does.
const noDaemonEnv = "PEERCHAT_NO_DAEMON"

// ownFlags say how the process that holds the account runs it. A command that
// is given one holds the account itself.
var ownFlags = []string{"bootstrap", "tcp", "server", "signal", "local", "loopback"}

// settleTimeout is how long a command that holds the account itself waits at its
// end for what it wrote to get on its way: as long as a broken path is noticed in.
const settleTimeout = 3 * time.Second

// session is a command's way to its account: through the daemon, or through one
// in this process. Commands ask both in the same way.
type session struct {
	client *control.Client
	close  func() error // ends what is in this process; nil with a daemon
}

// alone reports whether the command is to hold the account itself.
func (o *options) alone(flags *pflag.FlagSet) bool {
	if o.noDaemon || os.Getenv(noDaemonEnv) != "" {
		return true
	}
	return slices.ContainsFunc(ownFlags, flags.Changed)
}

// open returns the way to the account, and starts a daemon if none runs. Close
// the session.
func (o *options) open(cmd *cobra.Command) (*session, error) {
	if !o.alone(cmd.Flags()) {
		c, err := o.reachDaemon(cmd)
		switch {
		case err == nil:
			return &session{client: c}, nil
		case !errors.Is(err, errors.ErrUnsupported):
			return nil, err
		}
	}
	acc, err := o.start(cmd)
	if err != nil {
		return nil, err
	}
	d, err := daemon.New(daemon.Config{Account: acc, Logger: o.logger(cmd.ErrOrStderr())})
	if err != nil {
		return nil, errors.Join(err, acc.Close())
	}
	l, c := control.Inside()
	d.Serve(l)
	return &session{c, func() error {
		ctx, cancel := context.WithTimeout(cmd.Context(), settleTimeout)
		defer cancel()
		d.Settle(ctx)
		return errors.Join(d.Close(), closeAccount(ctx, acc, o.logger(cmd.ErrOrStderr())))
	}}, nil
}

// closeAccount closes an account. Until ctx ends it waits for the devices to have what
// ended commands have sent: on a slow path that is under way for longer than the second
// that the account's Close gives it. That devices have not confirmed all that was sent
// to them is logged only: what has to arrive, a file or a message, has receipts of its
// own, and its command has told of it.
func closeAccount(ctx context.Context, acc *account.Account, log *slog.Logger) error {
	err := acc.Shutdown(ctx)
	if _, cut := errors.AsType[*peerlink.ShutdownError](err); cut {
		log.Warn("closed", "err", err)
		return nil
	}
	return err
}

// with opens the way to the account for do, and closes it afterwards.
func (o *options) with(cmd *cobra.Command, do func(s *session) error) error {
	s, err := o.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	return do(s)
}

// withDevice is with for a command about a device, which is looked up before an
// account is made.
func (o *options) withDevice(cmd *cobra.Command, device string, do func(s *session, to target) error) error {
	to, err := o.target(device)
	if err != nil {
		return err
	}
	return o.with(cmd, func(s *session) error { return do(s, to) })
}

// ask asks the account one question.
func ask[In, Out any](cmd *cobra.Command, o *options, op control.Op[In, Out], in In) (out Out, err error) {
	err = o.with(cmd, func(s *session) error {
		out, err = op.Ask(cmd.Context(), s.client, in)
		return err
	})
	return out, err
}

// Close ends what is in this process.
func (s *session) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// connect opens a channel to a device.
func (s *session) connect(ctx context.Context, to target, uri string) (*control.Conn, error) {
	c, err := s.client.Connect(ctx, control.Connect{Device: to.device, Addr: to.addr, Any: to.any, URI: uri})
	if err != nil {
		return nil, s.explain(ctx, uri, err)
	}
	return c, nil
}

// noNodes is what to do about a device that is not found, where there is no DHT.
const noNodes = "this device has no bootstrap nodes, so it finds only devices of this machine and those whose address it is told (DEVICE@HOST:PORT); nodes are set by bootstrap in the account's config.json, $" + bootstrapEnv + " or --bootstrap"

// explain adds to the error of a connect what this device lacks, if that may be
// its cause.
func (s *session) explain(ctx context.Context, uri string, err error) error {
	var ended *control.EndedError
	for _, other := range []error{peerlink.ErrDeclined, peerlink.ErrRefused, peerlink.ErrBusy, identity.ErrNotTrusted, control.ErrNoDaemon} {
		if errors.Is(err, other) {
			return refusedInWords(uri, err)
		}
	}
	if ctx.Err() != nil || errors.As(err, &ended) {
		return err
	}
	if st, noStatus := s.status(ctx); noStatus != nil || st.DHT != nil {
		return err
	}
	return fmt.Errorf("%w\n%s", err, noNodes)
}

// watch calls ended with the reason if the daemon ends before ctx does. It does
// not block.
func (s *session) watch(ctx context.Context, ended func(error)) {
	go func() {
		err := control.OpChanges.Follow(ctx, s.client, control.None{}, nil, func(control.Changed) error { return nil })
		if ctx.Err() == nil {
			ended(err)
		}
	}()
}

// ready waits until others can reach this device, or says why they cannot.
func (s *session) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not within %v", readyTimeout))
	defer cancel()
	_, err := control.OpReady.Ask(ctx, s.client, control.None{})
	return err
}

// announce prints the id of this device, and on standard error the notes, once
// others can reach it, or why they cannot.
func (s *session) announce(cmd *cobra.Command, p *printer, asJSON bool, notes func(control.Status) []string) error {
	ctx := cmd.Context()
	st, err := s.status(ctx)
	if err != nil {
		return err
	}
	unreachable := s.ready(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if asJSON {
		line := map[string]any{"step": "ready", "ok": unreachable == nil, "device": st.Self.Device, "tcp": st.Listens}
		if unreachable != nil {
			line["error"] = unreachable.Error()
		}
		p.json(line)
		return nil
	}
	p.print(st.Self.Device.String())
	note(cmd, notes(st))
	noteUnreachable(cmd, unreachable)
	return nil
}

func note(cmd *cobra.Command, notes []string) {
	for _, n := range notes {
		fmt.Fprintln(cmd.ErrOrStderr(), n)
	}
}

// noteUnreachable says why others cannot reach this device; nil: they can.
func noteUnreachable(cmd *cobra.Command, err error) {
	if err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "not reachable through the DHT yet: %v\n", err)
	}
}

// firstError returns a channel that gets the first error which tell is called
// with; tell drops the others.
func firstError() (first <-chan error, tell func(error)) {
	c := make(chan error, 1)
	return c, func(err error) { pause.Tell(c, err) }
}

// await blocks until ctx ends, and returns its cause, or until an error comes,
// and returns that.
func await(ctx context.Context, ended <-chan error) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case err := <-ended:
		return err
	}
}

// status tells how the account fares.
func (s *session) status(ctx context.Context) (control.Status, error) {
	return control.OpStatus.Ask(ctx, s.client, control.None{})
}

// target reads NAME, DEVICE, and either with @HOST:PORT. A name alone means any
// of the contact's devices. The contacts are a file that is replaced whole, so it
// is read beside a daemon that writes it.
func (o *options) target(s string) (target, error) {
	who, addr, at := strings.Cut(s, "@") // names have none
	book, err := contacts.Open(o.contactsFile())
	if err != nil {
		return target{}, err
	}
	device, err := book.Resolve(who)
	if err == nil && at {
		_, _, err = net.SplitHostPort(addr)
	}
	if err != nil {
		return target{}, usageError{err}
	}
	return target{device: device, addr: addr, any: !at && !strings.EqualFold(who, device.String())}, nil
}

// devices are the first devices of those named.
func (o *options) devices(names []string) ([]identity.DeviceID, error) {
	var ids []identity.DeviceID
	for _, name := range names {
		t, err := o.target(name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, t.device)
	}
	return ids, nil
}

// among reports whether a proven device is one of some, or of a contact's whose
// first device is: a contact is all devices of its account, and no others.
func (o *options) among(ids []identity.DeviceID, p identity.Peer) bool {
	book, err := contacts.Open(o.contactsFile())
	if err != nil {
		return false
	}
	c, ok := book.OfPeer(p)
	if ok && slices.Contains(ids, c.Device) {
		return true
	}
	home, known := book.AtHome(p)
	return slices.Contains(ids, p.Device) && (home || !known)
}

func (o *options) contactsFile() string { return filepath.Join(o.account, daemon.ContactsFile) }
