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
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

const (
	dialTimeout = 10 * time.Second
	// answerTimeout is how long a web server may think: programs that wait for
	// news rarely do so for more than a minute or two.
	answerTimeout = 5 * time.Minute
	maxAnswer     = 1 << 20 // of a response's header
)

// upstream passes requests on to a web server.
type upstream struct {
	proxy     *httputil.ReverseProxy
	transport *http.Transport
	target    *url.URL
	log       *slog.Logger
}

func newUpstream(where string, far bool, log *slog.Logger) (*upstream, error) {
	u := &upstream{log: log}
	dial := net.Dialer{Timeout: dialTimeout}
	network, addr := "", ""
	if file, ok := strings.CutPrefix(where, "unix:"); ok {
		if file == "" || strings.ContainsRune(file, 0) {
			return nil, fmt.Errorf("%.200q: want unix:/path/of/a/socket", where)
		}
		network, addr, u.target = "unix", strings.TrimPrefix(file, "//"), &url.URL{Scheme: "http", Host: "localhost"}
	} else {
		t, err := url.Parse(where)
		if err != nil || t.Scheme != "http" || t.Host == "" || t.User != nil || t.RawQuery != "" || t.Fragment != "" {
			return nil, fmt.Errorf("%.200q: want http://127.0.0.1:PORT or unix:/path/of/a/socket", where)
		}
		if !far {
			if !Loopback(t.Hostname()) {
				return nil, fmt.Errorf("%.200q is not on this machine: say so (--far) if you mean it", where)
			}
			dial.Control = onlyLoopback
		}
		u.target = t
	}
	u.transport = &http.Transport{
		DialContext: func(ctx context.Context, n, a string) (net.Conn, error) {
			if network != "" {
				n, a = network, addr
			}
			c, err := dial.DialContext(ctx, n, a)
			if err != nil {
				return nil, err
			}
			return &early{Conn: c}, nil
		},
		DisableCompression:     true, // as it comes
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        30 * time.Second,
		ResponseHeaderTimeout:  answerTimeout,
		MaxResponseHeaderBytes: maxAnswer,
	}
	u.proxy = &httputil.ReverseProxy{
		Rewrite:        u.rewrite,
		Transport:      u.transport,
		FlushInterval:  -1, // streams stay streams
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ModifyResponse: u.redirects,
		ErrorHandler:   u.fail,
	}
	return u, nil
}

// Loopback tells whether a host is this machine to itself. A name counts only
// where no resolver can point it elsewhere (RFC 6761, section 6.3).
func Loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.IsLoopback()
}

// onlyLoopback is a check of the address that a name turned out to have.
func onlyLoopback(_, addr string, _ syscall.RawConn) error {
	if a, err := netip.ParseAddrPort(addr); err != nil || !a.Addr().IsLoopback() {
		return fmt.Errorf("%s is not on this machine", addr)
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !passable(w, r) {
		return
	}
	if strings.Trim(u.target.Path, "/") != "" && climbs(r.URL.EscapedPath()) {
		problem(w, r, http.StatusBadRequest, "The address has a “..” or a backslash; this site takes none.")
		return
	}
	_ = http.NewResponseController(w).EnableFullDuplex() // an answer may begin before the request has ended
	u.proxy.ServeHTTP(w, r)
}

func (u *upstream) close() error {
	u.transport.CloseIdleConnections()
	return nil
}

// rewrite makes the request that the web server gets: one to itself.
func (u *upstream) rewrite(p *httputil.ProxyRequest) {
	p.SetURL(u.target)
	p.Out.Host = ""
	p.Out.Trailer = nil
	onlyWebSocket(p.Out)
	// A Connection header may have named it, so that it was dropped.
	p.Out.Header.Set(DeviceHeader, deviceOf(p.In).String())
	if o, err := url.Parse(p.In.Header.Get("Origin")); err == nil && o.Host != "" && o.Host == p.In.Host {
		p.Out.Header.Set("Origin", u.target.Scheme+"://"+u.target.Host)
	}
}

// redirects makes the web server's addresses of itself into ones that hold
// for the caller, too.
func (u *upstream) redirects(r *http.Response) error {
	relative(r.Header, u.target.Host)
	return switched(r)
}

// relative drops scheme and host of a Location at host.
func relative(h http.Header, host string) {
	to, err := url.Parse(h.Get("Location"))
	if err != nil || to.Host == "" || !strings.EqualFold(to.Host, host) {
		return
	}
	to.Scheme, to.Host, to.User = "", "", nil
	if strings.HasPrefix(to.Path, "//") { // which would be a host again
		to.Path, to.RawPath = "/"+strings.TrimLeft(to.Path, "/"), ""
	}
	to.Path = cmp.Or(to.Path, "/")
	h.Set("Location", to.String())
}

// fail tells why there is no response.
func (u *upstream) fail(w http.ResponseWriter, r *http.Request, err error) {
	u.log.Warn("website: the web server did not answer", "server", u.target.Host, "err", err)
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	switch {
	case r.Context().Err() != nil: // nobody is there to read it
		w.WriteHeader(http.StatusBadGateway)
	case errors.As(err, &tooLarge):
		w.Header().Set("Connection", "close")
		problem(w, r, http.StatusRequestEntityTooLarge, fmt.Sprintf("What you sent is too long; this site takes %d bytes at most.", tooLarge.Limit))
	case errors.As(err, &timeout) && timeout.Timeout():
		problem(w, r, http.StatusGatewayTimeout, "The web server behind this site took too long to answer.")
	case errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT):
		problem(w, r, http.StatusBadGateway, "The web server behind this site does not run. Its owner can start it; then load this page again.")
	default:
		problem(w, r, http.StatusBadGateway, "The web server behind this site failed: "+bare(err)+".")
	}
}

// bare is an error without the addresses of this machine, which are nobody's
// business elsewhere.
func bare(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return err.Error()
}
