package switchboard

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"peerlink/internal/proving"
	"peerlink/internal/quota"
)

// Bounds of the connections of a site.
const (
	// requestTimeout is what a request, its body too, may take to come.
	requestTimeout = 10 * time.Second
	// answerTimeout is what a browser has to take an answer: a page of some
	// megabytes over a slow line.
	answerTimeout = 2 * time.Minute
	// idleTimeout ends a connection that asks for nothing more.
	idleTimeout = time.Minute
	// A twentieth of the files that the process may open are for connections that are
	// no lines, at most mostConns. Lines take a fifth (NewServer), a DHT node
	// beside takes half, and its data, relays and STUN need some.
	shareOfFiles = 20
	mostConns    = 4096
	// connsOfAddress bounds those of one address: eight times what it may have of lines.
	connsOfAddress = 8 * defaultPerAddress
)

// ServeSite answers the requests of l, which it closes, until ctx ends. It returns
// nil then, once all requests have ended: also the lines of a Server that is part
// of h. log gets what no caller is told.
//
// A request has 10 s to come, an answer two minutes to be read, and a connection
// may be idle for one. Connections that are not hijacked, as a Server's lines are,
// take a twentieth of the files that the process may open, at most 4 096, and 512
// of one IPv4 address or IPv6 /64. A newcomer that finds no room takes the place of
// the oldest one of its address, or of the address with most.
func ServeSite(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	places := mostConns
	if files, known := openFiles(); known {
		places = max(2, min(files/shareOfFiles, mostConns))
	}
	return serveSite(ctx, l, h, log, newConns(places, min(connsOfAddress, places/2)))
}

func serveSite(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger, open *conns) error {
	var running sync.WaitGroup
	lines, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running.Add(1)
			defer running.Done()
			h.ServeHTTP(w, r)
		}),
		ReadTimeout:    requestTimeout,
		WriteTimeout:   answerTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: 16 << 10,
		BaseContext:    func(net.Listener) context.Context { return lines },
		ConnState:      open.follow,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	err := srv.Serve(l)
	stop()
	cancel()
	running.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// conns counts the connections of an http.Server from when they are accepted,
// before TLS and the first request, until they end or are hijacked.
type conns struct {
	gate   proving.Gate
	places sync.Map // of net.Conn: its *proving.Place
}

func newConns(all, each int) *conns {
	return &conns{gate: proving.Gate{Places: all, PerSource: each, Source: func(c net.Conn) (netip.Prefix, bool) {
		return quota.Host(c.RemoteAddr().String()), true
	}}}
}

// follow is the server's ConnState. A new connection is told of before anything is
// read from it.
func (c *conns) follow(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		v := c.gate.Admit(conn, time.Now()) // there is always one that gives way
		c.places.Store(conn, v.In)
		if v.Out == nil {
			return
		}
		out := v.Out.Conn
		if t, ok := out.(*tls.Conn); ok {
			out = t.NetConn() // its Close would wait for the peer to read it
		}
		_ = out.Close()
	case http.StateHijacked, http.StateClosed:
		if p, ok := c.places.LoadAndDelete(conn); ok {
			p.(*proving.Place).Leave()
		}
	}
}
