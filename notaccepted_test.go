package peerlink_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
)

// A channel that no program takes is reset, with a code of its own: its opener
// must not find that all that it wrote, and the end, went well.
//
// case: E4
func TestChannelsThatNobodyTookAreReset(t *testing.T) {
	for name, drop := range map[string]func(t *testing.T, bob *device, l net.Listener){
		"the listener is closed": func(_ *testing.T, _ *device, l net.Listener) { _ = l.Close() },
		"the manager is closed":  func(_ *testing.T, bob *device, _ net.Listener) { _ = bob.Close() },
		"the manager is shut down": func(t *testing.T, bob *device, _ net.Listener) {
			ctx, cancel := within(time.Minute)
			defer cancel()
			if err := bob.Shutdown(ctx); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork("memory")
				alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
				l, err := bob.Listen("file://*")
				if err != nil {
					t.Fatal(err)
				}
				var socks []*channel.Socket
				for range 3 {
					socks = append(socks, written(t, alice, bob))
				}
				drop(t, bob, l)
				for _, s := range socks {
					notAccepted(t, s)
				}
			})
		})
	}
}

// written opens a channel and sends a whole message on it.
func written(t *testing.T, from, to *device) *channel.Socket {
	t.Helper()
	s := connect(t, from, to, "file://x")
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return s
}

func notAccepted(t *testing.T, s *channel.Socket) {
	t.Helper()
	got, err := io.ReadAll(s)
	var reset *channel.ResetError
	if len(got) > 0 || !errors.Is(err, peerlink.ErrNotAccepted) || !errors.As(err, &reset) || reset.Code != channel.CodeNotAccepted {
		t.Errorf("nobody took the channel, and its opener read %q, %v", got, err)
	}
}

// OnChannelRequest accepts, and there is nothing that gets the channel.
//
// case: E4
func TestChannelsWithoutOnConnectionReadyAreReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			c.OnChannelRequest = func(context.Context, identity.Peer, string) error { return nil }
		})
		s := connect(t, alice, bob, "file://x")
		_, _ = s.Write([]byte("hello"))
		_ = s.CloseWrite()
		notAccepted(t, s)
	})
}
