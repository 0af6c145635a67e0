package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"peerlink"
	"peerlink/account"
	"peerlink/channel"
	"peerlink/cmd/peerchat/internal/contacts"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/daemon"
	"peerlink/identity"
)

// noDaemonEnv, if not empty, does what --no-daemon does.
const noDaemonEnv = "PEERCHAT_NO_DAEMON"

// ownFlags say how the process that holds the account runs it. A command that
// is given one holds the account itself.
var ownFlags = []string{"bootstrap", "tcp", "server", "signal", "local", "loopback"}

// stream is a channel's end, the daemon's or one of this process.
type stream interface {
	net.Conn
	CloseWrite() error
	Reset(code channel.Code) error
}

// session is a command's way to its account: through the daemon, or in this
// process.
type session struct {
	// client asks what a daemon answers; in this process, one without a socket.
	client *control.Client

	acc    *account.Account // nil with a daemon
	daemon *daemon.Daemon   // nil with a daemon
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
	inside := newInside()
	d.Serve(inside)
	return &session{client: control.NewClientOf(inside.dial), acc: acc, daemon: d}, nil
}

// Close ends what is in this process.
func (s *session) Close() error {
	if s.acc == nil {
		return nil
	}
	return errors.Join(s.daemon.Close(), s.acc.Close())
}

// connect opens a channel to a device.
func (s *session) connect(ctx context.Context, to target, uri string) (stream, error) {
	c, err := s.reach(ctx, to, uri)
	if err != nil { // and not a nil conn in an interface
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
	for _, other := range []error{peerlink.ErrDeclined, peerlink.ErrRefused, identity.ErrNotTrusted, control.ErrNoDaemon} {
		if errors.Is(err, other) {
			return refusedInWords(uri, err)
		}
	}
	if ctx.Err() != nil || errors.As(err, &ended) || errors.As(err, &usageError{}) {
		return err
	}
	if st, noStatus := s.status(ctx); noStatus != nil || st.DHT != nil {
		return err
	}
	return fmt.Errorf("%w\n%s", err, noNodes)
}

func (s *session) reach(ctx context.Context, to target, uri string) (stream, error) {
	if s.acc == nil {
		c, err := s.client.Connect(ctx, control.Connect{Device: to.device, Addr: to.addr, Any: to.any, URI: uri})
		if err != nil { // and not a nil *Conn in an interface
			return nil, err
		}
		return c, nil
	}
	if to.addr != "" {
		if err := s.acc.Learn(to.device, to.addr); err != nil {
			return nil, usageError{err}
		}
	}
	call := s.acc.ConnectionManager().ConnectDevice
	if to.any {
		call = s.daemon.ConnectAny
	}
	c, err := call(ctx, to.device, uri, peerlink.ConnectOptions{})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// listen claims the channels of a URI pattern.
func (s *session) listen(ctx context.Context, pattern string) (net.Listener, error) {
	if s.acc == nil {
		return s.client.Listen(ctx, pattern)
	}
	return s.acc.ConnectionManager().Listen(pattern)
}

// watch calls ended if the daemon ends before ctx does; what it is told is that.
// It does not block.
func (s *session) watch(ctx context.Context, ended func(error)) {
	if s.acc != nil {
		return
	}
	go func() {
		err := control.Follow(ctx, s.client, control.OpChanges, nil, func(control.Changed) error { return nil })
		if ctx.Err() == nil {
			ended(err)
		}
	}()
}

// ready waits until others can reach this device, or says why they cannot.
func (s *session) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not within %v", readyTimeout))
	defer cancel()
	if s.acc != nil {
		return s.acc.Ready(ctx)
	}
	return s.client.Call(ctx, control.OpReady, nil, nil)
}

// status tells how the account fares.
func (s *session) status(ctx context.Context) (st control.Status, err error) {
	err = s.client.Call(ctx, control.OpStatus, nil, &st)
	return st, err
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

// among reports whether a proven device is one of some, or of a contact's whose
// first device is: a contact is all devices of its account.
func (o *options) among(ids []identity.DeviceID, p identity.Peer) bool {
	if slices.Contains(ids, p.Device) {
		return true
	}
	book, err := contacts.Open(o.contactsFile())
	if err != nil {
		return false
	}
	c, ok := book.OfAccount(p.Account)
	return ok && slices.Contains(ids, c.Device)
}

func (o *options) contactsFile() string { return filepath.Join(o.account, daemon.ContactsFile) }

// inside is a listener whose connections begin in this process.
type inside struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newInside() *inside { return &inside{conns: make(chan net.Conn), done: make(chan struct{})} }

func (l *inside) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Accept implements net.Listener.
func (l *inside) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, fmt.Errorf("inside: %w", net.ErrClosed)
	}
}

// Close implements net.Listener.
func (l *inside) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *inside) Addr() net.Addr { return &net.UnixAddr{Net: "inside"} }
