package peerlink_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/identity"
)

// What cannot lead anywhere is found before anything is dialled.
//
// case: E12
func TestArgumentsAreCheckedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		dialled := 0
		alice := n.newDevice(t, "alice", func(c *peerlink.Config) {
			c.Dialers = []peerlink.Dialer{addrPort{c.Dialers[0].(*port)}}
			c.Dialers[0].(addrPort).dials = func(context.Context) error { dialled++; return errNoWay }
		})
		to := n.newDevice(t, "bob", nil).id.DeviceID()
		connect := func(peer identity.DeviceID, uri string, opts peerlink.ConnectOptions) func(context.Context) error {
			return func(ctx context.Context) error {
				_, err := alice.ConnectDevice(ctx, peer, uri, opts)
				return err
			}
		}
		dial := func(uri string) func(context.Context) error {
			return func(ctx context.Context) error { _, err := alice.Dial(ctx, to, uri); return err }
		}
		addr := func(at string) func(context.Context) error {
			return func(ctx context.Context) error { _, err := alice.ConnectAddr(ctx, at, to); return err }
		}
		listen := func(pattern string) func(context.Context) error {
			return func(context.Context) error { _, err := alice.Listen(pattern); return err }
		}
		long := strings.Repeat("x", 256)
		for name, call := range map[string]func(context.Context) error{
			"no URI":                connect(to, "", peerlink.ConnectOptions{}),
			"no URI, unique":        connect(to, "", peerlink.ConnectOptions{UniqueName: true}),
			"no URI, only if":       connect(to, "", peerlink.ConnectOptions{Mode: peerlink.OnlyIfConnected}),
			"a long URI":            connect(to, long, peerlink.ConnectOptions{}),
			"a line feed":           connect(to, "x://\n", peerlink.ConnectOptions{}),
			"a URI of other bytes":  connect(to, "x://\xff", peerlink.ConnectOptions{}),
			"Dial":                  dial(long),
			"mode 77":               connect(to, "x://", peerlink.ConnectOptions{Mode: 77}),
			"mode -1":               connect(to, "x://", peerlink.ConnectOptions{Mode: -1}),
			"a negative time":       connect(to, "x://", peerlink.ConnectOptions{ChannelTimeout: -1}),
			"unknown carriers":      connect(to, "x://", peerlink.ConnectOptions{Carriers: []string{"memory", "pigeon"}}),
			"unknown, unique":       connect(to, "x://", peerlink.ConnectOptions{Carriers: []string{"pigeon"}, UniqueName: true}),
			"no device":             connect(identity.DeviceID{}, "x://", peerlink.ConnectOptions{}),
			"itself":                connect(alice.id.DeviceID(), "x://", peerlink.ConnectOptions{}),
			"no port":               addr("127.0.0.1"),
			"port 0":                addr("127.0.0.1:0"),
			"port 65536":            addr("127.0.0.1:65536"),
			"a port's name":         addr("127.0.0.1:http"),
			"no pattern":            listen(""),
			"a long pattern":        listen(long),
			"a long start":          listen(long + "*"),
			"a pattern of lines":    listen("x://\n*"),
			"a pattern with a NUL":  listen("x://\x00"),
			"a pattern not in UTF8": listen("x://\xff*"),
			"two stars":             listen("x*y*"),
		} {
			ctx, cancel := within(time.Minute)
			began := time.Now()
			err := call(ctx)
			var tried *peerlink.ConnectError
			if err == nil || time.Since(began) > 0 || dialled > 0 || errors.As(err, &tried) || errors.Is(err, net.ErrClosed) || errors.Is(err, peerlink.ErrSelf) != (name == "itself") {
				t.Errorf("%s: %v after %v and %d dials", name, err, time.Since(began), dialled)
			}
			cancel()
		}
		for _, pattern := range []string{"*", long[1:], long[1:] + "*", "x://*"} {
			if _, err := alice.Listen(pattern); err != nil {
				t.Error(err)
			}
		}
	})
}

// notHere is the error of a carrier that reaches some devices only.
type notHere struct{}

func (notHere) Error() string   { return "it is not on this machine" }
func (notHere) Elsewhere() bool { return true }

// A carrier that ends at another device does so again: it is not asked in further
// rounds. Carriers that are no way to the device change nothing about that; where
// there are no others, the device may still come.
//
// case: E17
func TestAnotherDeviceAtTheAddressIsPermanent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		bob, carol := n.newDevice(t, "bob", nil), n.newDevice(t, "carol", nil)
		local := newNetwork("local").port(bob.id)
		local.dials = func(context.Context) error { return notHere{} }
		alice := n.newDevice(t, "alice", func(c *peerlink.Config) {
			c.Dialers = []peerlink.Dialer{local, addrPort{c.Dialers[0].(*port)}}
		})
		n.mu.Lock()
		n.at[bob.id.DeviceID()] = carol.port
		n.mu.Unlock()
		for name, call := range map[string]func(context.Context) error{
			"ConnectDevice": func(ctx context.Context) error {
				_, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{})
				return err
			},
			"ConnectAddr": func(ctx context.Context) error {
				_, err := alice.ConnectAddr(ctx, "127.0.0.1:1", bob.id.DeviceID())
				return err
			},
		} {
			ctx, cancel := within(time.Minute)
			began := time.Now()
			err := call(ctx)
			var failed *peerlink.ConnectError
			if !errors.As(err, &failed) || failed.Rounds != 1 || time.Since(began) > time.Second {
				t.Errorf("%s: %v after %v", name, err, time.Since(began))
			}
			cancel()
		}
		ctx, cancel := within(10 * time.Second)
		defer cancel()
		_, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{Carriers: []string{"local"}})
		var failed *peerlink.ConnectError
		if !errors.As(err, &failed) || failed.Rounds < 2 || ctx.Err() == nil {
			t.Errorf("nowhere: %v", err)
		}
	})
}
