package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peerlink"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/website"
	"peerlink/identity"
)

// newServe is the command that offers a site to other devices.
func newServe(o *options) *cobra.Command {
	s := &server{o: o}
	cmd := described("serve", &cobra.Command{
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs),
		Args:              usageArgs(s.check),
		RunE:              s.run,
	})
	f := cmd.Flags()
	f.StringSliceVar(&s.from, "from", nil, "devices that may see the site, by name or id; others are refused")
	f.BoolVar(&s.anyone, "anyone", false, "any device may see it that can reach this one")
	f.StringVar(&s.cfg.CGI, "cgi", "", "folder of CGI programs, served as "+website.CGIPath+"NAME")
	f.BoolVar(&s.cfg.Hidden, "hidden", false, "serve what begins with a dot, too")
	f.BoolVar(&s.cfg.Far, "far", false, "allow a web server that is not on this machine")
	return cmd
}

// server are the flags of the command.
type server struct {
	o      *options
	cfg    website.Config
	from   []string
	anyone bool
	sites  map[string]string // by name; empty: that without one
}

func (s *server) check(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0 && s.cfg.CGI == "":
		return errors.New("say what to serve: a folder, http://127.0.0.1:PORT, unix:SOCKET or --cgi FOLDER")
	case len(s.from) == 0 && !s.anyone:
		return errors.New("say who may see it: --from NAME, or --anyone")
	case len(s.from) > 0 && s.anyone:
		return errors.New("either --from or --anyone")
	}
	s.sites = map[string]string{}
	for _, arg := range args {
		name, what, named := strings.Cut(arg, "=")
		if !named || website.CheckSite(name) != nil { // a = in a path
			name, what = "", arg
		}
		switch _, twice := s.sites[name]; {
		case what == "":
			return fmt.Errorf("%.200q: say what to serve after the =", arg)
		case twice && name == "":
			return fmt.Errorf("%.200q: of several sites all but one have a name: NAME=%s", arg, arg)
		case twice:
			return fmt.Errorf("two sites are called %q", name)
		}
		s.sites[name] = what
	}
	return nil
}

// open opens the sites.
func (s *server) open() (sites map[string]*website.Server, err error) {
	sites = map[string]*website.Server{}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(s.sites)), func(n string) bool { return n == "" })
	for _, name := range append([]string{""}, names...) {
		cfg := s.cfg
		if name == "" {
			cfg.Names = names
		} else {
			cfg.CGI = ""
		}
		if what := s.sites[name]; strings.Contains(what, "://") || strings.HasPrefix(what, "unix:") {
			cfg.Upstream = what
		} else {
			cfg.Folder = what
		}
		if sites[name], err = website.New(cfg); err != nil {
			delete(sites, name)
			return nil, errors.Join(err, closeSites(sites))
		}
	}
	return sites, nil
}

func closeSites(sites map[string]*website.Server) error {
	var errs []error
	for _, site := range sites {
		errs = append(errs, site.Close())
	}
	return errors.Join(errs...)
}

func (s *server) run(cmd *cobra.Command, _ []string) error {
	from, err := s.o.devices(s.from)
	if err != nil {
		return err
	}
	s.cfg.Allow = func(d identity.DeviceID) bool { return s.anyone || slices.Contains(from, d) }
	s.cfg.PeerOf = func(c net.Conn) (identity.DeviceID, bool) {
		p, ok := peerlink.PeerOf(c)
		if i := slices.IndexFunc(from, func(d identity.DeviceID) bool { return s.o.among([]identity.DeviceID{d}, p) }); i >= 0 {
			return from[i], ok // whichever of the contact's devices asks
		}
		return p.Device, ok && !slices.Contains(from, p.Device) // or it has left its contact's account
	}
	s.cfg.Logger = s.o.logger(cmd.ErrOrStderr())
	return s.serve(cmd)
}

func (s *server) serve(cmd *cobra.Command) error {
	ctx := cmd.Context()
	sites, err := s.open()
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) || errors.Is(err, os.ErrNotExist) {
			return err
		}
		return usageError{err}
	}
	defer func() { _ = closeSites(sites) }()
	held, err := s.o.open(cmd)
	if err != nil {
		return err
	}
	defer held.Close()
	l, err := held.client.Listen(ctx, website.Pattern)
	if err != nil {
		return err
	}
	defer l.Close()
	ended := make(chan error, 1)
	go func() { ended <- website.Share(l, sites) }()
	err = held.announce(cmd, printerOf(cmd), s.o.json, func(st control.Status) []string {
		return []string{"others open it with: peerchat browse " + st.Self.Device.String()}
	})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	}
}
