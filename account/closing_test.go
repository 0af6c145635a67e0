package account_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"peerlink"
	"peerlink/account"
	"peerlink/channel"
	"peerlink/dht"
	"peerlink/identity"
	"peerlink/multiplex"
)

// ways are one carrier each, and what an account needs to have it.
var ways = map[string]struct {
	carrier string
	options func(t *testing.T) account.Options
}{
	"tcp":  {"tcp", func(*testing.T) account.Options { return account.Options{Listen: []string{"127.0.0.1:0"}} }},
	"unix": {"unix", func(t *testing.T) account.Options { return account.Options{LocalDir: runtimeFolder(t)} }},
	"shm":  {"shm", func(t *testing.T) account.Options { return account.Options{LocalDir: runtimeFolder(t)} }},
	"ICE over TCP": {"ice", func(t *testing.T) account.Options {
		return account.Options{Bootstrap: bootstrap(t), Engines: []string{"tcp"}}
	}},
	"ICE over UDP": {"ice", func(t *testing.T) account.Options {
		return account.Options{Bootstrap: bootstrap(t), Engines: []string{"udp"}}
	}},
	"webrtc": {"webrtc", func(t *testing.T) account.Options { return account.Options{Switchboards: []string{board(t)}} }},
}

// bootstrap runs a node of the DHT and returns its addresses.
func bootstrap(t *testing.T) []string {
	t.Helper()
	node, err := dht.Start(t.Context(), dht.Config{Mode: dht.Server, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	return node.Addrs()
}

// ends are the ways to end a device's life.
var ends = map[string]struct {
	end   func(ctx context.Context, acc *account.Account) error
	waits bool // until channels have ended
}{
	"Account.Close":    {func(_ context.Context, acc *account.Account) error { return acc.Close() }, false},
	"Account.Shutdown": {func(ctx context.Context, acc *account.Account) error { return acc.Shutdown(ctx) }, true},
	"Close": {func(_ context.Context, acc *account.Account) error {
		return acc.ConnectionManager().Close()
	}, false},
	"Shutdown": {func(ctx context.Context, acc *account.Account) error {
		return acc.ConnectionManager().Shutdown(ctx)
	}, true},
}

// What Write has returned arrives, whole, however its device is then closed and
// over whichever carrier: what streams share is given back after the links. A
// channel that was ended has a true end, and one that was not has none.
//
// case: E3
func TestWhatWasWrittenArrivesBeforeTheCarriersClose(t *testing.T) {
	for way, w := range ways {
		t.Run(way, func(t *testing.T) {
			opts := w.options(t)
			bob := reachable(t, "bob", opts)
			l, err := bob.ConnectionManager().Listen("x://*")
			if err != nil {
				t.Fatal(err)
			}
			for name, e := range ends {
				t.Run(name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
					defer cancel()
					alice := reachable(t, "alice", opts)
					whole := written(ctx, t, alice, bob, l, w.carrier, (*channel.Socket).CloseWrite)
					var cut <-chan error
					if !e.waits {
						cut = written(ctx, t, alice, bob, l, w.carrier, func(*channel.Socket) error { return nil })
					}
					if err := e.end(ctx, alice); err != nil {
						t.Error(err)
					}
					if err := <-whole; err != nil {
						t.Error(err)
					}
					if bye := (*multiplex.GoingAwayError)(nil); cut != nil && !errors.As(<-cut, &bye) {
						t.Error("a channel was cut, and its reader read another end than the device's")
					}
				})
			}
		})
	}
}

// reachable starts a new account.
func reachable(t *testing.T, name string, opts account.Options) *account.Account {
	t.Helper()
	opts.Name, opts.Loopback = name, true
	if opts.LocalDir == "" {
		opts.LocalDir = "off"
	}
	acc, err := account.Create(filepath.Join(t.TempDir(), name), opts)
	acc = direct(t, acc, err)
	if err := acc.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return acc
}

// written opens a channel, writes a MiB and ends. What it returns tells how the
// far end's reading ended; nil is io.EOF after all bytes.
func written(ctx context.Context, t *testing.T, from, to *account.Account, l net.Listener, carrier string, end func(*channel.Socket) error) <-chan error {
	t.Helper()
	device := to.Identity().DeviceID()
	if err := from.Learn(device, to.Addrs()...); err != nil {
		t.Fatal(err)
	}
	sock, err := from.ConnectionManager().ConnectDevice(ctx, device, "x://", peerlink.ConnectOptions{Carriers: []string{carrier}})
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	sent := bytes.Repeat([]byte("peerlink"), 1<<17)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			read <- err
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		got, err := io.ReadAll(conn)
		if !bytes.Equal(got, sent) {
			err = fmt.Errorf("%d of %d bytes arrived, then %v", len(got), len(sent), err) //nolint:errorlint // no end is right then
		}
		read <- err
	}()
	if _, err := sock.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := end(sock); err != nil {
		t.Fatal(err)
	}
	return read
}

// deaf is one end of a stream whose program stops to read.
type deaf struct {
	net.Conn
	gate chan struct{} // closed: it reads no more
	end  chan struct{} // closed with it
}

func (d deaf) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	select {
	case <-d.gate:
		<-d.end
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

// What a device did not take before an account was closed is told, once.
func TestClosingAnAccountSaysWhatWasCut(t *testing.T) {
	for name, e := range ends {
		t.Run(name, func(t *testing.T) {
			acc, err := account.New(account.Options{Manager: peerlink.Config{Link: multiplex.Config{CloseTimeout: 50 * time.Millisecond}}})
			if err != nil {
				t.Fatal(err)
			}
			defer acc.Close()
			if err := acc.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			bob, err := identity.Generate("bob")
			if err != nil {
				t.Fatal(err)
			}
			a, b := net.Pipe()
			there := deaf{b, make(chan struct{}), make(chan struct{})}
			far := multiplex.Server(there, multiplex.Config{})
			defer far.Close()
			defer close(there.end)
			m := acc.ConnectionManager()
			if _, err := m.AddConn(t.Context(), a, bob.Peer(), peerlink.Outbound); err != nil {
				t.Fatal(err)
			}
			go func() {
				if r, err := far.Accept(t.Context()); err == nil {
					_, _ = r.Accept()
				}
			}()
			sock, err := m.ConnectDevice(t.Context(), bob.DeviceID(), "x://", peerlink.ConnectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			close(there.gate)
			if _, err := sock.Write(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			err = e.end(ctx, acc)
			if cut, ok := errors.AsType[*peerlink.ShutdownError](err); !ok || len(cut.Cut) != 1 || cut.Cut[0].Peer.Device != bob.DeviceID() {
				t.Errorf("%v", err)
			}
			if err := errors.Join(acc.Close(), m.Close()); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}
