package connectionmanager_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
)

// What a program branches on (docs/go-api.md) is the same over every carrier.
//
// case: E18
func TestErrorsAreTheSameOverEveryCarrier(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice := w.device(t, "alice", func(c *peerlink.Config) { c.Capacity = 2 })
		bob := w.device(t, "bob", func(c *peerlink.Config) {
			c.OnChannelRequest = func(context.Context, identity.Peer, string) error { return errors.New("not today") }
		})
		carol := w.device(t, "carol", nil)
		incoming, idle := bob.accepting(t, "chat://*"), carol.accepting(t, "idle://*")
		ctx, cancel := context.WithTimeout(background, patience)
		defer cancel()
		ask := func(to *device, uri string, opts peerlink.ConnectOptions) error {
			_, err := alice.ConnectDevice(ctx, to.id.DeviceID(), uri, opts)
			return err
		}
		is := func(what string, err error, targets ...error) {
			t.Helper()
			for _, target := range targets {
				if !errors.Is(err, target) {
					t.Errorf("%s: %v; want what matches %q", what, err, target)
				}
			}
		}
		is("no link", ask(bob, "chat://", peerlink.ConnectOptions{Mode: peerlink.OnlyIfConnected}), peerlink.ErrNotConnected)
		is("a bad name", ask(bob, strings.Repeat("x", 256), peerlink.ConnectOptions{}), multiplex.ErrBadName)
		c := connect(t, alice, bob, "chat://")
		far := await(t, incoming, never)
		channelErrors(t, is, c, far)
		err := ask(bob, "photos://", peerlink.ConnectOptions{})
		is("declined by a callback", err, peerlink.ErrDeclined)
		if no, said := errors.AsType[*multiplex.DeclinedError](err); !said || no.Reason != "not today" || errors.Is(err, peerlink.ErrNoListener) {
			t.Errorf("declined by a callback: %v", err)
		}
		is("nobody listens", ask(carol, "chat://", peerlink.ConnectOptions{}), peerlink.ErrNoListener, peerlink.ErrDeclined)
		dave := w.device(t, "dave", nil)
		is("two links of two", ask(dave, "chat://", peerlink.ConnectOptions{}), peerlink.ErrCapacity)
		full := w.device(t, "full", func(c *peerlink.Config) { c.Capacity = 1 })
		full.accepting(t, "chat://*")
		connect(t, dave, full, "chat://")
		_, err = bob.ConnectDevice(background, full.id.DeviceID(), "chat://", peerlink.ConnectOptions{})
		is("no room there", err, peerlink.ErrBusy)
		if errors.Is(err, peerlink.ErrRefused) || errors.Is(err, peerlink.ErrCapacity) {
			t.Errorf("no room there: %v", err)
		}
		late, stop := context.WithTimeoutCause(ctx, 0, errors.New("supper"))
		defer stop()
		<-late.Done()
		if _, err := alice.ConnectDevice(late, bob.id.DeviceID(), "chat://", peerlink.ConnectOptions{}); !errors.Is(err, context.Cause(late)) {
			t.Errorf("out of time: %v", err)
		}
		closedThere := connect(t, alice, carol, "idle://")
		<-idle
		if err := carol.CloseLink(carol.Connections()[0].ID); err != nil {
			t.Error(err)
		}
		_, err = closedThere.Read(make([]byte, 1))
		if bye, is := errors.AsType[*multiplex.GoingAwayError](err); !is || bye.Code != channel.CodeClosed {
			t.Errorf("a link that the peer closed: %v", err)
		}
		c = connect(t, alice, bob, "chat://")
		await(t, incoming, never)
		if err := alice.Close(); err != nil {
			t.Error(err)
		}
		_, err = c.Read(make([]byte, 1))
		is("a closed manager's channel", err, net.ErrClosed)
		is("a closed manager", ask(bob, "chat://", peerlink.ConnectOptions{}), net.ErrClosed)
	})
}

// channelErrors ends the channel between c and far.
func channelErrors(t *testing.T, is func(string, error, ...error), c, far *channel.Socket) {
	t.Helper()
	_ = c.SetReadDeadline(time.Unix(1, 0))
	_, err := c.Read(make([]byte, 1))
	is("a deadline", err, os.ErrDeadlineExceeded)
	if timeout, said := errors.AsType[net.Error](err); !said || !timeout.Timeout() {
		t.Errorf("a deadline: %v is no time-out", err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	is("too much at once", c.TrySend(make([]byte, c.MaxSend()+1)), peerlink.ErrTooLong)
	for err = nil; err == nil; { // nobody reads
		err = c.TrySend(make([]byte, 64<<10))
	}
	is("no room now", err, peerlink.ErrWouldBlock)
	if most := c.MaxDatagram(); most > 0 {
		is("too long a datagram", c.SendUnreliable(make([]byte, most+1)), channel.ErrTooLong)
	}
	is("too long a message", peerlink.NewMessages(c).Send(make([]byte, peerlink.MaxMessage+1)), peerlink.ErrMessageTooLong)
	if err := far.CloseWrite(); err != nil {
		t.Error(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("a clean end: %d, %v", n, err)
	}
	if err := far.Reset(300); err != nil {
		t.Error(err)
	}
	for err = error(nil); err == nil; {
		_, err = c.Write(make([]byte, 1000))
	}
	if reset, said := errors.AsType[*channel.ResetError](err); !said || reset.Code != 300 || !reset.Remote {
		t.Errorf("reset there: %v", err)
	}
	_, err = far.Read(make([]byte, 1))
	is("reset here", err, net.ErrClosed)
	_ = c.Close()
	_, err = c.Read(make([]byte, 1))
	is("closed here", err, net.ErrClosed)
}
