// Package connectionmanager_test proves the behaviour of the connection
// manager through the public API alone, over every carrier that can carry it.
// The numbers in the names are those of the list of scenarios.
package connectionmanager_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peerlink"
	"peerlink/account"
	"peerlink/channel"
	"peerlink/dht"
	"peerlink/identity"
	"peerlink/peerlinktest"
	"peerlink/peerlinktest/loopback"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Of libp2p's own, without a way to end them: its process-wide clock of
		// flow metrics.
		goleak.IgnoreAnyFunction("github.com/libp2p/go-flow-metrics.(*sweeper).run"),
		goleak.IgnoreAnyFunction("github.com/libp2p/go-flow-metrics.(*sweeper).runActive"),
	)
}

// patience is how long anything may take before a test fails.
const patience = time.Minute

var background = context.Background()

// device is one device of a world.
type device struct {
	*peerlink.ConnectionManager
	id     *identity.Identity
	trust  func(identity.Subject, identity.Decision) error
	revoke func(*identity.RevocationList) error // takes a list
}

// world makes devices that can reach each other over one carrier.
type world interface {
	device(t *testing.T, name string, change func(*peerlink.Config)) *device
}

// network is the world of one carrier.
type network struct{ *peerlinktest.Network }

func (n network) device(_ *testing.T, name string, change func(*peerlink.Config)) *device {
	if change == nil {
		return ofPeer(n.Peer(name))
	}
	return ofPeer(n.Peer(name, change))
}

func ofPeer(p *peerlinktest.Peer) *device {
	return &device{p.ConnectionManager, p.Identity, p.Trust.Set, p.Trust.AddRevocations}
}

// carriers are those that a test of the table runs over, besides whole accounts.
func carriers() []peerlinktest.Carrier {
	return append(loopback.Carriers(), peerlinktest.InMemory("memory"))
}

// overCarriers runs a test over each carrier, and with accounts.
func overCarriers(t *testing.T, test func(t *testing.T, w world)) {
	overStreams(t, test)
	t.Run("account", func(t *testing.T) {
		t.Parallel()
		test(t, newAccountWorld(t))
	})
}

// overStreams runs a test in each world whose streams it can put its hands on: an
// account makes its dialers itself.
func overStreams(t *testing.T, test func(t *testing.T, w world)) {
	for _, c := range carriers() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			test(t, network{peerlinktest.New(t, c)})
		})
	}
}

// overNetworks runs a test over each carrier with a network that it can cut.
func overNetworks(t *testing.T, test func(t *testing.T, n *peerlinktest.Network)) {
	for _, c := range carriers() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			test(t, peerlinktest.New(t, c.Shaped()))
		})
	}
}

func newIdentity(t *testing.T, name string) *identity.Identity {
	t.Helper()
	id, err := identity.Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// wrapped has the streams that a device dials go through wrap.
func wrapped(wrap func(net.Conn) net.Conn) func(*peerlink.Config) {
	return func(c *peerlink.Config) {
		for i, d := range c.Dialers {
			c.Dialers[i] = wrapper{d, wrap}
		}
	}
}

type wrapper struct {
	peerlink.Dialer
	wrap func(net.Conn) net.Conn
}

func (w wrapper) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	c, p, err := w.Dialer.Dial(ctx, peer)
	if err != nil {
		return nil, p, err
	}
	return w.wrap(c), p, nil
}

// accountWorld is everything: accounts that find each other through the DHT.
type accountWorld struct {
	dir  string
	node *dht.Node
}

func newAccountWorld(t *testing.T) world {
	node, err := dht.Start(background, dht.Config{Mode: dht.Server, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	return &accountWorld{t.TempDir(), node}
}

func (w *accountWorld) device(t *testing.T, name string, change func(*peerlink.Config)) *device {
	opts := account.Options{Name: name, Bootstrap: w.node.Addrs(), Loopback: true, LocalDir: "off"}
	if change != nil {
		change(&opts.Manager)
	}
	acc, err := account.Create(filepath.Join(w.dir, name), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := acc.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := acc.Start(background); err != nil {
		t.Fatal(err)
	}
	if err := acc.Ready(background); err != nil {
		t.Fatal(err)
	}
	return ofAccount(acc)
}

func ofAccount(acc *account.Account) *device {
	return &device{acc.ConnectionManager(), acc.Identity(), acc.SetTrust, func(l *identity.RevocationList) error {
		text, err := l.MarshalText()
		if err == nil {
			_, err = acc.ImportRevocations(text)
		}
		return err
	}}
}

// connect opens a channel that must come about.
func connect(t *testing.T, from, to *device, uri string) *channel.Socket {
	t.Helper()
	ctx, cancel := context.WithTimeout(background, patience)
	defer cancel()
	s, err := from.ConnectDevice(ctx, to.id.DeviceID(), uri, peerlink.ConnectOptions{})
	if err != nil {
		t.Fatalf("connect to %s: %v", uri, err)
	}
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return s
}

// await returns what a goroutine of the test tells. It ends the test with the
// failure of what was to make it tell that, or after patience.
func await[T, F any](t *testing.T, c <-chan T, failed <-chan F) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case f := <-failed:
		t.Fatalf("it ended before: %v", f)
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	return v
}

// never is of what cannot tell that it has failed: patience bounds the wait.
var never chan error

// accepting listens on a pattern and hands its channels over.
func (d *device) accepting(t *testing.T, pattern string) <-chan *channel.Socket {
	t.Helper()
	l, err := d.Listen(pattern)
	if err != nil {
		t.Fatal(err)
	}
	c := make(chan *channel.Socket, 64)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(c)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			c <- conn.(*channel.Socket)
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return c
}

// echoing answers a pattern's channels with what they send.
func (d *device) echoing(t *testing.T, pattern string) {
	t.Helper()
	channels := d.accepting(t, pattern)
	go func() {
		for c := range channels {
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// exchange proves that bytes go to an echo and come back.
func exchange(t *testing.T, c net.Conn, word string) {
	t.Helper()
	if _, err := fmt.Fprint(c, word); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, len(word))
	if _, err := io.ReadFull(c, buf); err != nil {
		t.Fatal(err)
	}
	if string(buf) != word {
		t.Fatalf("sent %q, got %q", word, buf)
	}
}

// eventually waits for a state that no event announces.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("after %v still not: %s", patience, what)
		}
	}
}
