package switchboard

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

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
	// shareOfFiles of those that the process may open are for connections: a DHT
	// node beside takes half of them, and its data, relays and STUN need some.
	shareOfFiles = 4
	mostConns    = 1 << 16 // also where more files can be opened
	fallbackOpen = 3 * defaultDevices
	// connsOfAddress bounds those of one address that are no lines: eight times what
	// it may have of those.
	connsOfAddress = 8 * defaultPerAddress
)

// ServeSite answers the requests of l, which it closes, until ctx ends. It returns
// nil then, once all requests have ended: also the lines of a Server that is part
// of h. log gets what no caller is told.
//
// A request has 10 s to come, an answer two minutes to be read, and a connection
// may be idle for one. Connections take a quarter of the files that the process may
// open, at most 65 536 (12 288 where the limit is not known). Of those that were not
// hijacked, as a Server's lines are, 512 can be of one IPv4 address or IPv6 /64. A
// newcomer that finds no room takes the place of the oldest one, idle ones first, of
// the address with most.
func ServeSite(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	all := fallbackOpen
	if files, known := openFiles(); known {
		all = max(2, min(files/shareOfFiles, mostConns))
	}
	return serveSite(ctx, l, h, log, newConns(all, min(connsOfAddress, all/2)))
}

func serveSite(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger, open *conns) error {
	var running sync.WaitGroup
	lines, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running.Add(1)
			defer running.Done()
			defer open.served(r.Context())
			h.ServeHTTP(w, r)
		}),
		ReadTimeout:    requestTimeout,
		WriteTimeout:   answerTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: 16 << 10,
		BaseContext:    func(net.Listener) context.Context { return lines },
		ConnState:      open.follow,
		ConnContext:    func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
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
// before TLS and the first request.
type conns struct {
	all, each int

	mu     sync.Mutex
	notes  uint64
	open   map[net.Conn]*connection
	asking map[netip.Prefix]int // of open, those that are no lines
}

type connection struct {
	from  netip.Prefix
	state http.ConnState
	since uint64 // of the notes: no two are of one moment
}

type connKey struct{}

func newConns(all, each int) *conns {
	return &conns{all: all, each: each, open: make(map[net.Conn]*connection), asking: make(map[netip.Prefix]int)}
}

// follow is the server's ConnState. A new connection is told of before anything is
// read from it.
func (c *conns) follow(conn net.Conn, state http.ConnState) {
	if shed := c.note(conn, state); shed != nil {
		if t, ok := shed.(*tls.Conn); ok {
			shed = t.NetConn() // its Close would wait for the peer to read it
		}
		_ = shed.Close()
	}
}

// note keeps what a connection does, and returns the one that has to go for it.
func (c *conns) note(conn net.Conn, state http.ConnState) (shed net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.open[conn]
	if state == http.StateNew {
		k = &connection{from: quota.Host(conn.RemoteAddr().String())}
		c.open[conn] = k
		c.asking[k.from]++
	}
	if k == nil {
		return nil // it was shed
	}
	c.notes++
	k.state, k.since = state, c.notes
	switch state {
	case http.StateNew:
		return c.surplus(k.from)
	case http.StateHijacked:
		c.answered(k.from)
	case http.StateClosed:
		c.answered(k.from)
		delete(c.open, conn)
	}
	return nil
}

// surplus forgets and returns the connection that has to go as a newcomer came;
// nil: there is room. The caller holds mu.
func (c *conns) surplus(newcomer netip.Prefix) (worst net.Conn) {
	crowded := c.asking[newcomer] > c.each
	if !crowded && len(c.open) <= c.all {
		return nil
	}
	var k *connection
	for conn, o := range c.open {
		if o.state != http.StateHijacked && (!crowded || o.from == newcomer) && (k == nil || c.goesBefore(o, k)) {
			worst, k = conn, o
		}
	}
	c.answered(k.from) // there is one: the newcomer
	delete(c.open, worst)
	return worst
}

// goesBefore reports whether a has to go before b. The caller holds mu.
func (c *conns) goesBefore(a, b *connection) bool {
	if by := cmp.Compare(c.asking[a.from], c.asking[b.from]); by != 0 {
		return by > 0
	}
	if busy := a.state == http.StateActive; busy != (b.state == http.StateActive) {
		return !busy
	}
	return a.since < b.since
}

// answered counts one connection less that asks. The caller holds mu.
func (c *conns) answered(from netip.Prefix) {
	if c.asking[from]--; c.asking[from] <= 0 {
		delete(c.asking, from)
	}
}

// served notes that a handler is done. A connection that it hijacked has ended: the
// server says nothing of it any more.
func (c *conns) served(ctx context.Context) {
	conn, _ := ctx.Value(connKey{}).(net.Conn)
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.open[conn]; k != nil && k.state == http.StateHijacked {
		delete(c.open, conn)
	}
}
