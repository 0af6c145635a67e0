package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"peerlink/cmd/peerchat/internal/localuser"
	"peerlink/cmd/peerchat/internal/website"
)

// newBrowse is the command that opens a device's site in a local browser.
func newBrowse(o *options) *cobra.Command {
	b := &browser{o: o}
	cmd := o.toContact("browse", counted(cobra.ExactArgs(1)), func(cmd *cobra.Command, args []string) error { return b.run(cmd, args[0]) })
	cmd.Flags().StringVar(&b.addr, "addr", "127.0.0.1:0", "HOST:PORT to show it on; port 0: a free one")
	cmd.Flags().StringSliceVar(&b.hosts, "host", nil, "names under which browsers of other machines may ask; to the device they are you")
	cmd.Flags().BoolVar(&b.allUsers, "all-users", false, allUsersHelp)
	cmd.Flags().DurationVar(&b.within, "within", 30*time.Second, "how long to try to reach the device before a page says why not")
	return cmd
}

const allUsersHelp = "let other users of this machine ask, too; to the device they are you"

// onlyOwn returns the check of connections to a listener on loopback, which notes
// what it refuses; nil: everybody who reaches the listener may ask.
func onlyOwn(l net.Listener, everybody bool, note io.Writer) func(net.Conn) error {
	at, tcp := l.Addr().(*net.TCPAddr)
	if everybody || !tcp || !at.IP.IsLoopback() {
		return nil
	}
	said := rate.Sometimes{First: 1, Interval: time.Minute} // another user could fill the terminal
	return func(c net.Conn) error {
		err := localuser.Check(c)
		if err != nil {
			said.Do(func() { fmt.Fprintf(note, "a connection was refused: %v (--all-users takes them)\n", err) })
		}
		return err
	}
}

// browser are the flags of the command.
type browser struct {
	o     *options
	addr  string
	hosts []string

	allUsers bool
	within   time.Duration
}

// check refuses flags that cannot be meant.
func (b *browser) check() error {
	host, _, err := net.SplitHostPort(b.addr)
	switch {
	case err != nil:
		return fmt.Errorf("--addr: %w", err)
	case !website.Loopback(host) && len(b.hosts) == 0:
		return fmt.Errorf("--addr %s is not loopback: whoever reaches it would ask in your name; if you mean it, name the hosts under which browsers may ask (--host)", b.addr)
	case b.within <= 0:
		return errors.New("--within: want more than 0")
	}
	return nil
}

func (b *browser) run(cmd *cobra.Command, name string) error {
	ctx := cmd.Context()
	name, site, named := strings.Cut(name, "/")
	if named {
		if err := website.CheckSite(site); err != nil {
			return usageError{err}
		}
	}
	to, err := b.o.target(name)
	if err != nil {
		return err
	}
	if err := b.check(); err != nil {
		return usageError{err}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", b.addr)
	if err != nil {
		return fmt.Errorf("show the site: %w", err)
	}
	s, err := b.o.open(cmd)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer s.Close()
	g, err := website.NewGateway(website.GatewayConfig{
		Device: to.device,
		Name:   name,
		Site:   site,
		Hosts:  b.hosts,
		Within: b.within,
		Logger: b.o.logger(cmd.ErrOrStderr()),
		Check:  onlyOwn(l, b.allUsers || len(b.hosts) > 0, cmd.ErrOrStderr()),
		Dial: func(ctx context.Context) (net.Conn, error) {
			c, err := s.connect(ctx, to, website.SiteURI(to.device, site))
			if err != nil { // and not a nil *Conn in an interface
				return nil, err
			}
			return c, nil
		},
	})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer g.Close()
	url := g.URL(l.Addr())
	b.o.result(cmd, map[string]any{"step": "ready", "ok": true, "device": to.device, "url": url, "addr": l.Addr().String()}, url)
	ended := make(chan error, 2)
	go func() { ended <- g.Serve(l) }()
	s.watch(ctx, func(err error) { ended <- err })
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case err := <-ended:
		return fmt.Errorf("show the site: %w", err)
	}
}
