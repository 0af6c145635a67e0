package interop_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"peerlink"
	"peerlink/account"
	"peerlink/dht"
	"peerlink/identity"
)

// patience is how long one test may take before its context ends.
const patience = 2 * time.Minute

// limited returns a context for one test.
func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// A way is one of the ways that bytes take from a device to another one.
type way struct {
	name, carrier, engine string
	local, listen, dht    bool // what the way needs
}

var ways = []way{
	{name: "tcp", carrier: "tcp", engine: "tcp", listen: true},
	{name: "unix", carrier: "unix", engine: "unix", local: true},
	{name: "shm", carrier: "shm", engine: "shm", local: true},
	{name: "ice-tcp", carrier: "ice", engine: "tcp", dht: true},
	{name: "ice-udp", carrier: "ice", engine: "udp", dht: true},
	{name: "webrtc", carrier: "webrtc", engine: "webrtc", dht: true},
}

// overWays runs a test over each way, from alice to bob, whom a link of this way
// joins already: all calls use it.
func overWays(t *testing.T, test func(t *testing.T, alice, bob *device)) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			world := newWorld(t, w)
			alice, bob := world.device(t, "alice"), world.device(t, "bob")
			world.introduce(t, alice, bob)
			if c, err := alice.dial(limited(t), bob.id(), "nothing://"); !errors.Is(err, peerlink.ErrDeclined) {
				t.Fatalf("a link was to come up, and nobody to listen: %v, %v", c, err)
			}
			test(t, alice, bob)
			alice.took(t, w)
		})
	}
}

// A world is what devices need besides themselves to reach each other by one way.
type world struct {
	way
	options account.Options
	dir     string
}

func newWorld(t *testing.T, w way) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "interop") // short, as a socket's path must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	o := account.Options{Loopback: true, LocalDir: "off"}
	if w.local {
		o.LocalDir = filepath.Join(dir, "run")
		if err := os.Mkdir(o.LocalDir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if w.listen {
		o.Listen = []string{"127.0.0.1:0"}
	}
	if w.dht {
		node, err := dht.Start(t.Context(), dht.Config{Mode: dht.Server, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = node.Close() })
		o.Bootstrap = node.Addrs()
		if w.carrier == "webrtc" {
			o.WebRTC = "on"
		} else {
			o.Engines = []string{w.engine}
		}
	}
	return &world{w, o, dir}
}

// A device is an account that calls others by its world's way only.
type device struct {
	*account.Account
	carrier string
}

// device makes and starts a device.
func (w *world) device(t *testing.T, name string) *device {
	t.Helper()
	o := w.options
	o.Name = name
	acc, err := account.Create(filepath.Join(w.dir, name), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := acc.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx := limited(t)
	if err := acc.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := acc.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return &device{acc, w.carrier}
}

// introduce tells devices each other's addresses, where the way needs that.
func (w *world) introduce(t *testing.T, devices ...*device) {
	t.Helper()
	for _, d := range devices {
		for _, o := range devices {
			if d != o && w.listen {
				if err := d.Learn(o.id(), o.Addrs()...); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func (d *device) id() identity.DeviceID { return d.Identity().DeviceID() }

// listen claims a name until the test is over.
func (d *device) listen(t *testing.T, uri string) net.Listener {
	t.Helper()
	l, err := d.ConnectionManager().Listen(uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// serve serves HTTP/1.1 and HTTP/2 to devices until the test is over.
func (d *device) serve(t *testing.T, handler http.Handler) {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: handler, Protocols: protocols, ReadHeaderTimeout: patience}
	listener := d.listen(t, "http://*")
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { _ = server.Close() })
}

// dial opens a channel by the device's way.
func (d *device) dial(ctx context.Context, to identity.DeviceID, uri string) (net.Conn, error) {
	c, err := d.ConnectionManager().ConnectDevice(ctx, to, uri, peerlink.ConnectOptions{Carriers: []string{d.carrier}})
	if err != nil {
		return nil, err // and not a nil *channel.Socket in an interface
	}
	return c, nil
}

// took checks that the device has links, and all of them by this way.
func (d *device) took(t *testing.T, w way) {
	t.Helper()
	links := d.ConnectionManager().Connections()
	other := slices.IndexFunc(links, func(c peerlink.Connection) bool {
		return c.Carrier != w.carrier || c.Path.Engine != w.engine
	})
	switch {
	case len(links) == 0:
		t.Error("no link is left")
	case other >= 0:
		t.Errorf("a link by %s (%s), want %s (%s)", links[other].Carrier, links[other].Path, w.carrier, w.engine)
	}
}
