package peerlink_test

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
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

// A peer that closes a link answers what reaches it meanwhile with “closing”.
// That may arrive before its going away or not at all; either way the caller
// gets its channel on a new link, and never the refusal.
//
// fault: C8
func TestRequestThatMeetsAClosingLinkIsAskedAgain(t *testing.T) {
	for name, end := range map[string]func(far *multiplex.Socket, r *multiplex.Request){
		"the answer first": func(far *multiplex.Socket, r *multiplex.Request) {
			_ = r.Decline("closing")
			time.AfterFunc(300*time.Millisecond, func() { _ = far.Close() })
		},
		"going away first": func(far *multiplex.Socket, _ *multiplex.Request) { _ = far.Close() },
		"the answer while draining": func(far *multiplex.Socket, r *multiplex.Request) {
			_ = r.Decline("closing")
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

// A program may say the same; then it is the truth, after a while.
func TestDeclineThatOnlySaysClosingIsADecline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		far := byHand(t, alice, bob.id.Peer())
		go func() {
			if r, err := far.Accept(background); err == nil {
				_ = r.Decline("closing")
			}
		}()
		began := time.Now()
		_, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://bob", peerlink.ConnectOptions{})
		if !errors.Is(err, peerlink.ErrDeclined) || time.Since(began) > 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
