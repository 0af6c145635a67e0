package website

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"

	"peerlink/identity"
	"peerlink/internal/life"
)

const (
	// gatewayConns is how many channels a Gateway has at once: fewer than the
	// other side takes (32), so that two browsers may share a device.
	gatewayConns = 24
	// openTimeout is how long a browser waits for a channel, if not told: a device
	// behind two bad NATs takes half of it.
	openTimeout = 30 * time.Second
	// labelDigits is how much of a device id names its host: a label of DNS has 63
	// bytes at most, and nobody makes two ids that begin with 128 equal bits.
	labelDigits = 32
)

// GatewayConfig is what a Gateway is made of: Device and Dial are required.
type GatewayConfig struct {
	Device identity.DeviceID
	// Name is what the device is called on error pages; empty: by its id.
	Name string
	// Site is the name of one of the device's sites; empty: that without a name.
	Site string
	// Dial opens a channel SiteURI(Device, Site) to the device.
	Dial func(ctx context.Context) (net.Conn, error)
	// Within bounds a Dial; zero: 30 s. Negative: no limit.
	Within time.Duration
	// Check tells why the program at the other end of a connection may not ask; it
	// must not block. nil: all may.
	Check func(net.Conn) error
	// Hosts are names besides the device's own under which browsers may ask.
	Hosts []string
	// Logger gets what went wrong. nil: nothing is logged.
	Logger *slog.Logger
}

// Gateway shows a browser of this machine the site of a device. Its methods may
// be called concurrently.
type Gateway struct {
	cfg       GatewayConfig
	http      *http.Server
	proxy     *httputil.ReverseProxy
	transport *http.Transport
	cross     *http.CrossOriginProtection
	life      life.Group // requests, dials and calls of Serve
}

// NewGateway makes a gateway; Close it.
func NewGateway(cfg GatewayConfig) (*Gateway, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	g := &Gateway{cfg: cfg, cross: http.NewCrossOriginProtection()}
	g.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if !g.life.Enter() {
				return nil, net.ErrClosed
			}
			defer g.life.Leave()
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stop := context.AfterFunc(g.life.Context(), cancel) // a dial outlives its request
			defer stop()
			return g.dial(ctx)
		},
		DisableCompression:     true, // as it comes
		MaxConnsPerHost:        gatewayConns,
		MaxIdleConnsPerHost:    gatewayConns,
		IdleConnTimeout:        90 * time.Second, // as peerlink's own Transport
		MaxResponseHeaderBytes: maxAnswer,
	}
	log := slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug)
	g.proxy = &httputil.ReverseProxy{
		Rewrite:       g.rewrite,
		Transport:     g.transport,
		FlushInterval: -1,
		ErrorLog:      log,
		ModifyResponse: func(r *http.Response) error {
			relative(r.Header, cfg.Device.String())
			if r.Request.Context().Value(bareKey{}) != nil {
				r.Header.Del("Set-Cookie")
			}
			return switched(r)
		},
		ErrorHandler: g.fail,
	}
	g.http = &http.Server{
		Handler:           http.HandlerFunc(g.serve),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader / 2, // the other side must take it with what is added
		BaseContext:       func(net.Listener) context.Context { return g.life.Context() },
		ConnContext:       g.check,
		ErrorLog:          log,
	}
	return g, nil
}

// complete checks a configuration and fills in what is not set.
func (c *GatewayConfig) complete() error {
	if c.Dial == nil {
		return errors.New("website: Dial is required")
	}
	if c.Site != "" {
		if err := CheckSite(c.Site); err != nil {
			return err
		}
	}
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.Within = cmp.Or(c.Within, openTimeout)
	if c.Name == "" {
		c.Name = c.Device.String()
	}
	return nil
}

// dial opens a channel in time.
func (g *Gateway) dial(ctx context.Context) (net.Conn, error) {
	if g.cfg.Within > 0 {
		within, cancel := context.WithTimeoutCause(ctx, g.cfg.Within, fmt.Errorf("no answer within %v: %w", g.cfg.Within, context.DeadlineExceeded))
		defer cancel()
		ctx = within
	}
	return g.cfg.Dial(ctx)
}

// refusedKey is why a connection's program may not ask.
type refusedKey struct{}

// check looks once at each connection.
func (g *Gateway) check(ctx context.Context, c net.Conn) context.Context {
	if g.cfg.Check != nil {
		if err := g.cfg.Check(c); err != nil {
			return context.WithValue(ctx, refusedKey{}, err)
		}
	}
	return ctx
}

// bareKey marks requests to an address of this machine instead of a name.
type bareKey struct{}

// host is the site's own name under localhost.
func (g *Gateway) host() string {
	host := g.cfg.Device.String()[:labelDigits] + ".localhost"
	if g.cfg.Site != "" {
		host = g.cfg.Site + "-" + host
	}
	return host
}

// URL is what to open in a browser for a listener's address.
func (g *Gateway) URL(at net.Addr) string {
	host := g.host()
	if len(g.cfg.Hosts) > 0 {
		host = g.cfg.Hosts[0]
	}
	return g.at(host, at.String())
}

// at is the page's address at a host, with the port of another address.
func (g *Gateway) at(host, addr string) string {
	if _, port, err := net.SplitHostPort(addr); err == nil && port != "80" {
		host = net.JoinHostPort(host, port)
	}
	return (&url.URL{Scheme: "http", Host: host, Path: "/"}).String()
}

// serve lets through what is asked of this site by its name, by this site or by
// the user.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) {
	if !g.life.Enter() {
		w.Header().Set("Connection", "close")
		problem(w, r, http.StatusServiceUnavailable, "This gateway is being closed.")
		return
	}
	defer g.life.Leave()
	if err, refused := r.Context().Value(refusedKey{}).(error); refused {
		part(w)
		problem(w, r, http.StatusForbidden, "This gateway asks in the name of the user that started it, and answers no other one: "+err.Error()+".\nThat user can let others ask, too: “peerchat browse --all-users”.")
		return
	}
	if !passable(w, r) {
		return
	}
	host := HostOf(r.Host)
	named := host == g.host() || slices.ContainsFunc(g.cfg.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
	switch {
	case !named && !Loopback(host):
		problem(w, r, http.StatusMisdirectedRequest, "This gateway does not answer to that name.")
		return
	case !named && r.Header.Get("Sec-Fetch-Site") != "": // a browser's
		w.Header().Set("Location", strings.TrimSuffix(g.at(g.host(), r.Host), "/")+"/"+strings.TrimLeft(r.URL.RequestURI(), "/"))
		problem(w, r, http.StatusTemporaryRedirect, "The site has a name of its own, so that no other site's cookies go there.")
		return
	case g.cross.Check(r) != nil || foreign(r):
		problem(w, r, http.StatusForbidden, "A page of another site asked for this. It may link here, no more.")
		return
	}
	if !named {
		r = r.WithContext(context.WithValue(r.Context(), bareKey{}, true))
		r.Header.Del("Cookie")
	}
	_ = http.NewResponseController(w).EnableFullDuplex() // an answer may begin before the request has ended
	g.proxy.ServeHTTP(w, r)
}

// HostOf returns a Host header without the port, in lower case.
func HostOf(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		hostport = h
	}
	return strings.ToLower(strings.Trim(hostport, "[]"))
}

// foreign tells whether a request for a WebSocket, which pages of all sites
// could read, comes from another one.
func foreign(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if r.Header.Get("Upgrade") == "" || origin == "" {
		return false
	}
	o, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(o.Host, r.Host)
}

// rewrite makes the request that the device gets: one to itself.
func (g *Gateway) rewrite(p *httputil.ProxyRequest) {
	device := g.cfg.Device.String()
	p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", device, device
	p.Out.Trailer = nil
	onlyWebSocket(p.Out)
	if p.Out.Header.Get("Origin") != "" {
		o, err := url.Parse(p.Out.Header.Get("Origin"))
		if err == nil && strings.EqualFold(o.Host, p.In.Host) {
			p.Out.Header.Set("Origin", "http://"+device)
		}
	}
}

// fail tells why there is no response, with all that is known.
func (g *Gateway) fail(w http.ResponseWriter, r *http.Request, err error) {
	g.cfg.Logger.Debug("website: no answer", "device", g.cfg.Device, "err", err)
	var timeout net.Error
	code := http.StatusBadGateway
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		code = http.StatusGatewayTimeout
	}
	problem(w, r, code, fmt.Sprintf("The site of %s is not to be had: %v.\nIt must run “peerchat serve”; “peerchat doctor” tells more about the way there.", g.cfg.Name, err))
}

// Serve answers the connections of a listener, which it closes, until that or
// the gateway ends. The error of Accept is returned unless the gateway was closed.
func (g *Gateway) Serve(l net.Listener) error {
	if !g.life.Enter() {
		return l.Close()
	}
	defer g.life.Leave()
	if err := g.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends all connections and channels, and waits for what runs.
func (g *Gateway) Close() error {
	g.life.End() // what was upgraded, too
	err := g.http.Close()
	g.life.Wait()
	g.transport.CloseIdleConnections()
	return err
}
