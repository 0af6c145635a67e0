package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/cmd/peerchat/internal/website"
	"peerlink/web"
	"peerlink/webrtc/switchboard"
)

// boardPath is where the switchboard is, beside the page.
const boardPath = "/switchboard"

// site are the flags of the page's server.
type site struct {
	addr      string
	hosts     []string
	signal    string
	cert, key string
	ice       string // file of STUN and TURN servers
	relayOnly bool
}

// newWeb is the command that serves the page.
func newWeb(o *options) *cobra.Command {
	var s site
	cmd := plain("web", func(cmd *cobra.Command) error {
		switch len(o.signals) {
		case 0:
		case 1:
			s.signal = o.signals[0]
		default:
			return usageError{errors.New("--signal: the page uses one switchboard")}
		}
		h, err := s.handler(o.servers, o.logger(cmd.ErrOrStderr()))
		if err != nil {
			return err
		}
		l, err := s.listen(cmd.Context())
		if err != nil {
			return err
		}
		s.announce(printerOf(cmd), l.Addr(), o.json)
		return serveSite(cmd.Context(), l, h, o.logger(cmd.ErrOrStderr()))
	})
	cmd.Flags().StringVar(&s.addr, "addr", "127.0.0.1:8470", "HOST:PORT to serve on")
	cmd.Flags().StringSliceVar(&s.hosts, "host", nil, "names under which browsers may ask for the page, besides loopback ones")
	cmd.Flags().StringVar(&s.cert, "cert", "", "file with the PEM certificate for HTTPS")
	cmd.Flags().StringVar(&s.key, "key", "", "file with its PEM key")
	cmd.Flags().StringVar(&s.ice, "ice", "", "JSON file with the page's STUN and TURN servers (else the stun: ones of --server)")
	cmd.Flags().BoolVar(&s.relayOnly, "relay-only", false, "have the page connect over the TURN servers of --ice alone, which hides its addresses from the other devices")
	return cmd
}

// listen opens the address, with TLS where there is a certificate.
func (s *site) listen(ctx context.Context) (net.Listener, error) {
	host, _, err := net.SplitHostPort(s.addr)
	if err != nil {
		return nil, usageError{fmt.Errorf("--addr: %w", err)}
	}
	if (s.cert == "") != (s.key == "") {
		return nil, usageError{errors.New("--cert and --key belong together")}
	}
	if !website.Loopback(host) && len(s.hosts) == 0 {
		return nil, usageError{fmt.Errorf("--addr %s is not loopback: name the hosts under which browsers ask for the page (--host), which they must do over HTTPS (--cert and --key, or a proxy)", s.addr)}
	}
	l, err := switchboard.Listen(ctx, s.addr, s.cert, s.key)
	if err != nil {
		return nil, fmt.Errorf("serve the page: %w", err)
	}
	return l, nil
}

// announce prints the page's address.
func (s *site) announce(p *printer, at net.Addr, asJSON bool) {
	scheme, signal := "http", s.signal
	if s.cert != "" {
		scheme = "https"
	}
	host := at.String()
	if len(s.hosts) > 0 {
		_, port, _ := net.SplitHostPort(host)
		host = net.JoinHostPort(s.hosts[0], port)
	}
	page := url.URL{Scheme: scheme, Host: host, Path: "/"}
	if signal == "" {
		signal = "ws" + strings.TrimPrefix(scheme, "http") + "://" + host + boardPath
	}
	if asJSON {
		p.json(map[string]any{"step": "ready", "ok": true, "url": page.String(), "signal": signal})
		return
	}
	p.print(page.String())
}

// handler serves the page, its configuration and the switchboard.
func (s *site) handler(servers []string, log *slog.Logger) (http.Handler, error) {
	config, err := s.newConfiguration(servers, log)
	if err != nil {
		return nil, err
	}
	connect := ""
	if s.signal != "" {
		u, err := url.Parse(s.signal)
		if err != nil || u.Host == "" || u.Scheme != "ws" && u.Scheme != "wss" {
			return nil, usageError{fmt.Errorf("--signal: %.200q is no address of a switchboard, want wss://host:port/path", s.signal)}
		}
		connect = " " + u.Scheme + "://" + u.Host
	}
	page := web.Page()
	if _, err := fs.Stat(page, "index.html"); err != nil {
		return nil, fmt.Errorf("this program was built without the page: %w", err)
	}
	files := http.FileServerFS(page)
	mux := http.NewServeMux()
	mux.Handle("GET /config.json", config)
	mux.HandleFunc("GET /assets/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable") // its name is its hash
		files.ServeHTTP(w, r)
	})
	mux.Handle("GET /", files)
	if s.signal == "" {
		mux.Handle("GET "+boardPath, switchboard.NewServer(switchboard.ServerConfig{Logger: log}))
	}
	return s.guard(connect, mux), nil
}

// guard lets through what is asked of this host by its own name, so that no
// other site's name can be pointed here (DNS rebinding), and sets the headers
// that keep the page to itself.
func (s *site) guard(connect string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.ours(r.Host) {
			http.Error(w, "this server does not answer to that name", http.StatusMisdirectedRequest)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
			"connect-src 'self' ws://"+r.Host+" wss://"+r.Host+connect+"; "+
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
		h.Set("Cache-Control", "no-cache")
		next.ServeHTTP(w, r)
	})
}

// ours tells whether a Host header names this server.
func (s *site) ours(hostport string) bool {
	if _, port, err := net.SplitHostPort(hostport); err == nil && !isPort(port) {
		return false // it goes into a header
	}
	host := website.HostOf(hostport)
	return website.Loopback(host) || slices.ContainsFunc(s.hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// serveSite serves until ctx ends, and waits for the lines of the switchboard.
func serveSite(ctx context.Context, l net.Listener, handler http.Handler, log *slog.Logger) error {
	if err := switchboard.ServeSite(ctx, l, handler, log); err != nil {
		return fmt.Errorf("serve the page: %w", err)
	}
	return context.Cause(ctx)
}
