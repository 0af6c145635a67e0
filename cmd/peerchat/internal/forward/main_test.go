package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peerlink/channel"
	"peerlink/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var alice, bob = identity.DeviceID{1}, identity.DeviceID{2}

// within bounds every wait of a test.
const within = 20 * time.Second

// tcpPair returns two ends of a TCP connection.
func tcpPair(t testing.TB) (here, there *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// line is a net.Listener of channels.
type line struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newLine() *line { return &line{conns: make(chan net.Conn), done: make(chan struct{})} }

func (l *line) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *line) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *line) Addr() net.Addr { return &net.UnixAddr{Name: "line"} }

// world is a server and the channels to it, and back.
type world struct {
	t      *testing.T
	rules  *Rules
	server *Server
	line   *line
	back   chan net.Conn // what the server opens

	mu       sync.Mutex
	contacts map[identity.DeviceID]identity.DeviceID // by whose rules a device may do things, too
}

// belongs says that a device is of the contact of another one; none if it is the
// zero id.
func (w *world) belongs(device, to identity.DeviceID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.contacts[device] = to
	if to.IsZero() {
		delete(w.contacts, device)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	rules, err := OpenRules(filepath.Join(t.TempDir(), "forwards.json"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, rules: rules, line: newLine(), back: make(chan net.Conn, 16), contacts: map[identity.DeviceID]identity.DeviceID{}}
	w.server = NewServer(Config{
		Rules: rules,
		PeerOf: func(c net.Conn) (identity.Peer, string, bool) {
			x, ok := c.(named)
			return identity.Peer{Device: x.device}, x.uri, ok
		},
		Contact: func(p identity.Peer) (identity.DeviceID, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			d, ok := w.contacts[p.Device]
			return d, ok
		},
		Open: func(_ context.Context, device identity.DeviceID, uri string) (net.Conn, error) {
			a, b := tcpPair(t)
			w.back <- named{b, device, uri}
			return a, nil
		},
	})
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(w.line) }()
	t.Cleanup(func() {
		_ = w.server.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return w
}

// named is the end of a channel that the server gets: a TCP connection, which
// has ends as channels have, and is cut as they are.
type named struct {
	*net.TCPConn
	device identity.DeviceID
	uri    string
}

// Reset cuts the channel.
func (n named) Reset(channel.Code) error {
	_ = n.SetLinger(0)
	return n.Close()
}

// open opens a channel of a device to the server.
func (w *world) open(device identity.DeviceID, uri string) *net.TCPConn {
	w.t.Helper()
	a, b := tcpPair(w.t)
	_ = a.SetDeadline(time.Now().Add(within))
	w.line.conns <- named{b, device, uri}
	return a
}

// dial has the server connect to a target.
func (w *world) dial(device identity.DeviceID, to string) (*net.TCPConn, error) {
	w.t.Helper()
	a, err := ParseAddress(to)
	if err != nil {
		w.t.Fatal(err)
	}
	c := w.open(device, URIDial)
	return c, Dial(w.t.Context(), c, a)
}

// target is a listener whose connections are handed to do.
func target(t *testing.T, network, addr string, do func(c net.Conn)) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				do(c)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l
}

// echo answers all it got once it has got the end.
func echo(c net.Conn) {
	b, err := io.ReadAll(c)
	if err == nil {
		_, _ = c.Write(b)
	}
}

// isCut tells whether an error says that a connection was cut, and did not end.
func isCut(err error) bool {
	var late net.Error
	return err != nil && err != io.EOF && (!errors.As(err, &late) || !late.Timeout())
}
