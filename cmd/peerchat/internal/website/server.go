package website

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/quota"
)

const (
	// Pattern is what the channels of a site begin with.
	Pattern = "http://*"
	// DeviceHeader tells a web server which device asks, by its 64 hex digits.
	DeviceHeader = "Peerlink-Device"
	// CGIPath is where the programs of Config.CGI are.
	CGIPath = "/cgi-bin/"

	maxHeader     = 64 << 10         // twice what common browsers send at most
	headerTimeout = 10 * time.Second // as the program's own page has it
	idleTimeout   = 2 * time.Minute  // longer than clients keep theirs (90 s), so that theirs end first
	lingering     = 5 * time.Second  // for a refusal to be read

	maxOfDevice = 32 // connections; browsers open 6, a Gateway 24
	maxInAll    = 256

	// Devices that may not see the site have places of their own, to be told so.
	strangersOfDevice = 2
	strangersInAll    = 32
)

// Config is what a Server is made of: at least one of Folder, Upstream and CGI,
// but not both of the first two, and PeerOf and Allow.
type Config struct {
	// Folder is served with its sub-folders; links that lead out of it are not followed.
	Folder string
	// Hidden serves what begins with a dot, too.
	Hidden bool
	// Upstream is a web server: http://HOST[:PORT][/PATH] or unix:/PATH.
	Upstream string
	// Far allows an Upstream that is not on this machine.
	Far bool
	// CGI is a folder of programs, each served under CGIPath and its name.
	CGI string
	// CGITime is how long a program may run; zero: a minute.
	CGITime time.Duration
	// MaxBody is how many bytes a request may have; zero: 256 MiB.
	MaxBody int64

	// Names are those of sites beside this one; if nothing else is served here,
	// a page tells them.
	Names []string

	// PeerOf tells which device a connection is with.
	PeerOf func(c net.Conn) (identity.DeviceID, bool)
	// Allow tells whether a device may see the site. It must not block.
	Allow func(identity.DeviceID) bool
	// Logger gets what went wrong and who was refused. nil: nothing is logged.
	Logger *slog.Logger

	output int64 // tests: how many bytes a program may print; zero: defaultOutput
}

// Server serves a site. Its methods may be called concurrently.
type Server struct {
	cfg   Config
	http  *http.Server
	close func() error // of what is served
	conns *quota.Quota[identity.DeviceID]
	life  life.Group // requests and calls of Serve
}

type peerKey struct{}

// New makes a server; Close it. The error says which of the Config is wrong.
func New(cfg Config) (*Server, error) {
	cfg = withDefaults(cfg)
	s := &Server{cfg: cfg, conns: quota.NewPools[identity.DeviceID](
		quota.Limits{Each: maxOfDevice, All: maxInAll}, quota.Limits{Each: strangersOfDevice, All: strangersInAll})}
	h, err := s.content()
	if err != nil {
		return nil, err
	}
	s.http = &http.Server{
		Handler:           s.guard(h),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return s.life.Context() },
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c.(*conn).device)
		},
	}
	return s, nil
}

func withDefaults(cfg Config) Config {
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	cfg.CGITime = cmp.Or(cfg.CGITime, time.Minute)
	if cfg.output == 0 {
		cfg.output = defaultOutput
	}
	cfg.MaxBody = cmp.Or(cfg.MaxBody, 256<<20)
	return cfg
}

// content is what the site shows.
func (s *Server) content() (http.Handler, error) {
	cfg := s.cfg
	switch {
	case cfg.PeerOf == nil || cfg.Allow == nil:
		return nil, errors.New("website: PeerOf and Allow are required")
	case cfg.Folder == "" && cfg.Upstream == "" && cfg.CGI == "" && len(cfg.Names) == 0:
		return nil, errors.New("nothing to serve: name a folder, a web server or a folder of CGI programs")
	case cfg.Folder != "" && cfg.Upstream != "":
		return nil, errors.New("either a folder or a web server is served, not both")
	}
	var closers []func() error
	s.close = func() error {
		var errs []error
		for _, f := range closers {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	mux := &split{}
	switch {
	case cfg.Upstream != "":
		u, err := newUpstream(cfg.Upstream, cfg.Far, cfg.Logger)
		if err != nil {
			return nil, err
		}
		closers, mux.rest = append(closers, u.close), u
	case cfg.Folder != "":
		f, err := newFolder(cfg.Folder, cfg.Hidden, cfg.Logger)
		if err != nil {
			return nil, err
		}
		closers, mux.rest = append(closers, f.root.Close), f
	case len(cfg.Names) > 0:
		text := "There are several sites here: " + strings.Join(cfg.Names, ", ") + ". Open one of them by its name, as in “peerchat browse WHO/" + cfg.Names[0] + "”."
		mux.rest = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { problem(w, r, http.StatusNotFound, text) })
	default:
		mux.rest = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			problem(w, r, http.StatusNotFound, "There is no page here. The programs of this site are under "+CGIPath+".")
		})
	}
	if cfg.CGI != "" {
		p, err := newPrograms(cfg)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		closers, mux.programs = append(closers, p.root.Close), p
	}
	return mux, nil
}

// split tells programs from the rest. An http.ServeMux would redirect paths
// that the web server behind may want as they are.
type split struct{ programs, rest http.Handler }

// ServeHTTP implements http.Handler.
func (s *split) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.programs != nil && strings.HasPrefix(r.URL.Path, CGIPath) {
		s.programs.ServeHTTP(w, r)
		return
	}
	s.rest.ServeHTTP(w, r)
}

// guard lets in the devices that may see the site, and tells the site which one asks.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.life.Enter() {
			w.Header().Set("Connection", "close")
			problem(w, r, http.StatusServiceUnavailable, "This site is being closed.")
			return
		}
		defer s.life.Leave()
		device := deviceOf(r)
		if !s.cfg.Allow(device) {
			s.cfg.Logger.Info("website: refused", "device", device)
			part(w)
			problem(w, r, http.StatusForbidden, fmt.Sprintf("This site is not open to your device, %s. Ask its owner to let you in (peerchat serve --from).", device))
			return
		}
		disown(r)
		r.Header.Set(DeviceHeader, device.String())
		if r.ContentLength > s.cfg.MaxBody {
			part(w)
			problem(w, r, http.StatusRequestEntityTooLarge, fmt.Sprintf("What you sent has %d bytes; this site takes %d at most.", r.ContentLength, s.cfg.MaxBody))
			return
		}
		r = r.WithContext(r.Context()) // a copy: net/http looks in its own for a body that was left unread
		r.Body = http.MaxBytesReader(w, r.Body, s.cfg.MaxBody)
		next.ServeHTTP(w, r)
	})
}

// part ends a connection after this answer, soon.
func part(w http.ResponseWriter) {
	rc, soon := http.NewResponseController(w), time.Now().Add(lingering)
	_ = rc.SetWriteDeadline(soon)
	_ = rc.SetReadDeadline(soon) // of a body that nobody wants
	w.Header().Set("Connection", "close")
}

// deviceOf is the proven device that sent a request.
func deviceOf(r *http.Request) identity.DeviceID {
	return r.Context().Value(peerKey{}).(identity.DeviceID)
}

// disown drops what tells a web server who the caller is: that is for this
// server to say. Some take "_" for "-", and CGI does.
func disown(r *http.Request) {
	for name := range r.Header {
		plain := strings.ToLower(strings.Map(func(c rune) rune {
			if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
				return c
			}
			return '-'
		}, name))
		switch plain {
		case "forwarded", "remote-user", "remote-addr", "x-real-ip", "x-remote-user", "x-remote-addr", "x-client-ip", "true-client-ip", "proxy":
			delete(r.Header, name) // Del finds the canonical spelling only
		}
		for _, prefix := range []string{"peerlink-", "x-forwarded-", "x-auth-request-"} {
			if strings.HasPrefix(plain, prefix) {
				delete(r.Header, name)
			}
		}
	}
	r.Trailer = nil
	r.Header.Del("Trailer")
}

// Serve answers the connections of a listener, which it closes, until that or
// the server ends. The error of Accept is returned unless the server was closed.
func (s *Server) Serve(l net.Listener) error {
	if !s.life.Enter() {
		return l.Close()
	}
	defer s.life.Leave()
	err := s.http.Serve(&door{Listener: l, s: s})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close ends all connections, and waits for what runs.
func (s *Server) Close() error {
	s.life.End()
	err := s.http.Close()
	s.life.Wait()
	return errors.Join(err, s.close())
}

// door is a listener that lets in so many of each device.
type door struct {
	net.Listener
	s *Server
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		device, ok := d.s.cfg.PeerOf(c)
		take := d.s.conns.TakeStranger
		if ok && d.s.cfg.Allow(device) {
			take = d.s.conns.Take
		}
		if ok && take(device) == nil {
			return d.s.admit(c, device), nil
		}
		d.s.cfg.Logger.Warn("website: a connection was refused, too many at once", "device", device)
		_ = c.Close()
	}
}

// admit counts a connection until it is closed.
func (s *Server) admit(c net.Conn, device identity.DeviceID) *conn {
	// http forgets the connections that were upgraded: the server's end closes them.
	stop := context.AfterFunc(s.life.Context(), func() { _ = c.Close() })
	return &conn{Conn: c, device: device, leave: sync.OnceFunc(func() {
		stop()
		s.conns.Release(device)
	})}
}

// conn is a connection that counts.
type conn struct {
	net.Conn
	device identity.DeviceID
	leave  func()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// CloseWrite ends one direction, where the connection can; http asks for it.
func (c *conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}
