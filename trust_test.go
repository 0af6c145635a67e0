package peerlink_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/identity"
)

// A ban that comes between the first look at a device and the moment when its
// link is known finds nothing to cut, and must not be missed for that.
//
// fault: D5
func TestBanWhileALinkComesUpKeepsItOut(t *testing.T) {
	for _, name := range []string{"the banned device calls", "the banned device is called"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork("memory")
				n.latency = 50 * time.Millisecond // so that hellos come after the ban
				var trust identity.Trust
				alice := n.newDevice(t, "alice", nil)
				bob := n.newDevice(t, "bob", func(c *peerlink.Config) { c.Trust = &trust })
				alice.echo(t, "*")
				bob.echo(t, "*")
				from, to := alice, bob
				if name == "the banned device is called" {
					from, to = bob, alice
				}
				result := make(chan error, 1)
				go func() {
					_, err := from.ConnectDevice(background, to.id.DeviceID(), "chat://", peerlink.ConnectOptions{})
					result <- err
				}()
				time.Sleep(20 * time.Millisecond)
				if !from.IsConnecting(to.id.DeviceID()) || len(bob.Connections()) != 0 {
					t.Error("the link is known before the ban: the test shows nothing")
				}
				if err := trust.Set(alice.id.DeviceID(), identity.Banned); err != nil {
					t.Fatal(err)
				}
				if err := <-result; err == nil || from == bob && !errors.Is(err, identity.ErrNotTrusted) {
					t.Errorf("the connect ended with %v", err)
				}
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if a, b := len(alice.Connections()), len(bob.Connections()); a+b != 0 || bob.Metrics().Opened != 0 {
					t.Errorf("%d and %d links, and the one who banned had %d", a, b, bob.Metrics().Opened)
				}
			})
		})
	}
}

// Rows 20, 52 and 80: an account is all its devices, and nobody else's.
//
// fault: D5
func TestAnAccountsLinksEndTogetherAndNoOthers(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(bob *device, trust *identity.Trust, account identity.AccountID) error{
		"closed": func(bob *device, _ *identity.Trust, account identity.AccountID) error {
			if n := bob.CloseConnectionsWith(account); n != 2 {
				return errors.New("not two links were closed")
			}
			return nil
		},
		"banned": func(_ *device, trust *identity.Trust, account identity.AccountID) error {
			return trust.Set(account, identity.Banned)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork("memory")
				var trust identity.Trust
				bob := n.newDevice(t, "bob", func(c *peerlink.Config) { c.Trust = &trust })
				bob.echo(t, "*")
				var hers []*device
				for _, of := range []string{"laptop", "telephone"} {
					id, err := identity.New(of, key)
					if err != nil {
						t.Fatal(err)
					}
					hers = append(hers, n.deviceOf(t, id, nil))
				}
				carol := n.newDevice(t, "carol", nil)
				other := connect(t, carol, bob, "chat://")
				ended := make(chan error, len(hers))
				for _, d := range hers {
					c := connect(t, d, bob, "chat://")
					exchange(t, c, "hello")
					go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
				}
				began := time.Now()
				if err := end(bob, &trust, hers[0].id.AccountID()); err != nil {
					t.Error(err)
				}
				for range hers {
					if err := <-ended; err == nil || time.Since(began) > time.Second {
						t.Errorf("a channel ended with %v after %v", err, time.Since(began))
					}
				}
				synctest.Wait()
				exchange(t, other, "still here")
				if cs := bob.Connections(); len(cs) != 1 || cs[0].Peer.Device != carol.id.DeviceID() {
					t.Errorf("links left: %+v", cs)
				}
			})
		})
	}
}

// The stream of a dialer that says itself that it ends elsewhere is none.
//
// fault: D1
func TestStreamThatEndsAtAnotherDeviceIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob, mallory := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil), n.newDevice(t, "mallory", nil)
		mallory.echo(t, "*")
		n.mu.Lock()
		n.at[bob.id.DeviceID()] = mallory.port // who asks for bob gets mallory, proven as such
		n.mu.Unlock()
		s, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://", peerlink.ConnectOptions{})
		if err == nil {
			_ = s.Close()
		}
		if err == nil || alice.IsConnected(bob.id.DeviceID()) || alice.IsConnected(mallory.id.DeviceID()) {
			t.Errorf("connected, or an error that does not say so: %v", err)
		}
	})
}

// A panic in the decision about a device refuses it, and nobody else.
//
// fault: C9
func TestPanicAboutADeviceRefusesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, carol := n.newDevice(t, "alice", nil), n.newDevice(t, "carol", nil)
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.OnICERequest = func(_ context.Context, p identity.Peer) error {
				if p.Name == "alice" {
					panic("as asked")
				}
				return nil
			}
		})
		bob.echo(t, "*")
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://", peerlink.ConnectOptions{}); !errors.Is(err, peerlink.ErrRefused) {
			t.Errorf("alice got %v", err)
		}
		exchange(t, connect(t, carol, bob, "chat://"), "hello")
		if p := bob.Metrics().Panics; p != 1 {
			t.Errorf("%d panics counted", p)
		}
	})
}

// About a banned device nobody is asked, and nothing goes out to it.
//
// fault: D5
func TestBannedDeviceIsNeitherAskedAboutNorDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		var trust identity.Trust
		alice := n.newDevice(t, "alice", nil)
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.Trust = &trust
			c.OnICERequest = func(_ context.Context, p identity.Peer) error {
				t.Errorf("asked about %v", p)
				return nil
			}
		})
		dials := bob.dialsAt(func(int) bool { return true })
		if err := trust.Set(alice.id.DeviceID(), identity.Banned); err != nil {
			t.Fatal(err)
		}
		for _, opts := range []peerlink.ConnectOptions{{}, {UniqueName: true}, {Mode: peerlink.NewLink}, {Carriers: []string{"memory"}}} {
			if _, err := bob.ConnectDevice(background, alice.id.DeviceID(), "chat://", opts); !errors.Is(err, identity.ErrNotTrusted) {
				t.Errorf("%+v: %v", opts, err)
			}
		}
		if dials.count() != 0 {
			t.Errorf("%d dials", dials.count())
		}
		began := time.Now()
		_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://", peerlink.ConnectOptions{})
		if !errors.Is(err, peerlink.ErrRefused) || !strings.Contains(err.Error(), `"not trusted"`) || time.Since(began) > time.Second {
			t.Errorf("the banned one got %v after %v", err, time.Since(began))
		}
	})
}

// A device that is banned is not called, whether an address is given or not.
func TestABannedDeviceIsNotDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dialled := newNetwork("memory"), 0
		var trust identity.Trust
		alice := n.newDevice(t, "alice", func(c *peerlink.Config) {
			c.Trust = &trust
			c.Dialers = []peerlink.Dialer{addrPort{c.Dialers[0].(*port)}}
			c.Dialers[0].(addrPort).dials = func(context.Context) error { dialled++; return nil }
		})
		bob := n.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		to := bob.id.DeviceID()
		calls := map[string]func() error{
			"ConnectDevice": func() error {
				_, err := alice.ConnectDevice(background, to, "x://", peerlink.ConnectOptions{})
				return err
			},
			"ConnectDevice, unique": func() error { _, err := alice.ConnectDevice(background, to, "x://", unique); return err },
			"ConnectAddr":           func() error { _, err := alice.ConnectAddr(background, "127.0.0.1:1", to); return err },
		}
		if err := trust.Set(to, identity.Banned); err != nil {
			t.Fatal(err)
		}
		for name, call := range calls {
			if err := call(); !errors.Is(err, identity.ErrBanned) || dialled > 0 || len(bob.Connections()) > 0 {
				t.Errorf("%s: %v after %d dials", name, err, dialled)
			}
		}
		if err := trust.Set(to, identity.Allowed); err != nil {
			t.Fatal(err)
		}
		for name, call := range calls {
			if err := call(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
