package peerlink_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
)

// byHand gives alice a link to bob whose far end is the test's.
func byHand(t *testing.T, alice *device, bob identity.Peer) *multiplex.Socket {
	t.Helper()
	a, b := net.Pipe()
	far := multiplex.Server(b, multiplex.Config{})
	t.Cleanup(func() { _ = far.Close() })
	if _, err := alice.AddConn(background, a, bob, peerlink.Outbound); err != nil {
		t.Fatal(err)
	}
	return far
}

// A peer that closes a link answers what reaches it meanwhile with a code that
// says so. That may arrive before its going away or not at all; either way the caller
// gets its channel on a new link, and never the refusal.
//
// fault: C8
func TestRequestThatMeetsAClosingLinkIsAskedAgain(t *testing.T) {
	for name, end := range map[string]func(far *multiplex.Socket, r *multiplex.Request){
		"the answer first": func(far *multiplex.Socket, r *multiplex.Request) {
			_ = r.DeclineWith(channel.CodeClosing, "back in a moment")
			time.AfterFunc(300*time.Millisecond, func() { _ = far.Close() })
		},
		"going away first": func(far *multiplex.Socket, _ *multiplex.Request) { _ = far.Close() },
		"the answer while draining": func(far *multiplex.Socket, r *multiplex.Request) {
			_ = r.DeclineWith(channel.CodeClosing, "back in a moment")
			time.AfterFunc(300*time.Millisecond, func() { _ = far.Drain(background, 0, "draining") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork("memory")
				alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
				bob.echo(t, "*")
				far := byHand(t, alice, bob.id.Peer())
				go func() {
					r, err := far.Accept(background)
					if err != nil {
						t.Error(err)
						return
					}
					end(far, r)
				}()
				began := time.Now()
				exchange(t, connect(t, alice, bob, "chat://bob"), "hello")
				if d := time.Since(began); d > time.Second {
					t.Errorf("it took %v", d)
				}
			})
		})
	}
}

// A peer that declines for a closing that does not come has declined, after a
// while; one that only says the word (a build without codes, a program), at once.
func TestDeclineThatOnlySaysClosingIsADecline(t *testing.T) {
	for code, most := range map[channel.Code]time.Duration{channel.CodeClosing: 3 * time.Second, 0: 0} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork("memory")
			alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
			far := byHand(t, alice, bob.id.Peer())
			go func() {
				if r, err := far.Accept(background); err == nil {
					_ = r.DeclineWith(code, "closing")
				}
			}()
			began := time.Now()
			_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://bob", peerlink.ConnectOptions{})
			if !errors.Is(err, peerlink.ErrDeclined) || time.Since(began) > most {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		})
	}
}

// What the end of a link means is its code: a peer that gives up three links in a
// row gets the channel asked for on the fourth, whatever its words; one that ends
// them with our words and no code has closed them.
//
// case: E9
func TestLinksThatThePeerGivesUpAreAskedForAgain(t *testing.T) {
	for _, c := range []struct {
		code  channel.Code
		words string
		fails bool
	}{
		{channel.CodeIdle, "link idle", false},
		{channel.CodeNotNeeded, "", false},
		{channel.CodeCrossed, "zwei auf einmal", false},
		{channel.CodeClosed, "no channels for a while", true},
		{300, "not needed any more", true},
	} {
		t.Run(c.code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork("memory")
				alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
				bob.echo(t, "*")
				for range 3 {
					far := byHand(t, alice, bob.id.Peer())
					go func() {
						if _, err := far.Accept(background); err == nil {
							_ = far.CloseWith(c.code, c.words)
						}
					}()
				}
				sock, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://bob", peerlink.ConnectOptions{})
				if bye := (*multiplex.GoingAwayError)(nil); c.fails {
					if !errors.As(err, &bye) || bye.Code != c.code {
						t.Errorf("%v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				exchange(t, sock, "hello")
			})
		})
	}
}

// That no program takes a channel is an answer of its own, told apart from one
// that was decided; both are declines.
//
// It is half of E8: that a program can listen before its device is reachable is
// the other.
func TestNoListenerIsNotPolicysDecline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		strict := n.newDevice(t, "strict", func(c *peerlink.Config) {
			c.OnChannelRequest = func(context.Context, identity.Peer, string) error { return errors.New("nobody listens on chat://x") }
		})
		ask := func(who *device) error {
			_, err := alice.ConnectDevice(background, who.id.DeviceID(), "chat://x", peerlink.ConnectOptions{})
			if !errors.Is(err, peerlink.ErrDeclined) {
				t.Errorf("%v", err)
			}
			return err
		}
		if err := ask(bob); !errors.Is(err, peerlink.ErrNoListener) {
			t.Errorf("no listener: %v", err)
		}
		if err := ask(strict); errors.Is(err, peerlink.ErrNoListener) {
			t.Errorf("policy's decline: %v", err)
		}
		bob.echo(t, "chat://*")
		exchange(t, connect(t, alice, bob, "chat://x"), "hello")
	})
}
