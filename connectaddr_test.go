package peerlink_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/identity"
)

// DialAddr makes a port of the memory network an AddrDialer, where asked for:
// the host part says how it goes.
type addrPort struct{ *port }

func (p addrPort) DialAddr(ctx context.Context, addr string, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	switch host, _, _ := net.SplitHostPort(addr); host {
	case "127.0.0.2":
		return nil, identity.Peer{}, fmt.Errorf("dial %s: nobody there", addr)
	case "127.0.0.3":
		<-ctx.Done()
		return nil, identity.Peer{}, context.Cause(ctx)
	}
	return p.Dial(ctx, peer)
}

func TestConnectAddrMakesALinkOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", func(c *peerlink.Config) { c.Dialers = []peerlink.Dialer{addrPort{n.port(c.Identity)}} })
		bob := n.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		var ids []peerlink.LinkID
		for range 3 {
			id, err := alice.ConnectAddr(background, "127.0.0.1:4100", bob.id.DeviceID())
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		cs := alice.Connections()
		if len(cs) != 3 || cs[2].ID != ids[2] || cs[0].Direction != peerlink.Outbound || cs[0].Carrier != "memory" || bob.Connections()[0].Direction != peerlink.Inbound {
			t.Errorf("links: %+v", cs)
		}
		s, err := alice.ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{Link: ids[1]})
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, s, "hello")
	})
}

func TestConnectAddrTellsAddressAndCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", func(c *peerlink.Config) { c.Dialers = []peerlink.Dialer{addrPort{n.port(c.Identity)}} })
		plain := n.newDevice(t, "plain", nil)
		bob := n.newDevice(t, "bob", nil)
		for _, c := range []struct {
			from *device
			addr string
			to   identity.DeviceID
			want []string
		}{
			{alice, "127.0.0.2:4100", bob.id.DeviceID(), []string{`"127.0.0.2:4100"`, "memory 127.0.0.2:4100: ", "nobody there"}},
			{alice, "127.0.0.2", bob.id.DeviceID(), []string{"HOST:PORT", "missing port"}},
			{alice, ":80", bob.id.DeviceID(), []string{"the host is missing"}},
			{alice, "127.0.0.1:1", alice.id.DeviceID(), []string{"own id"}},
			{alice, "127.0.0.1:1", identity.DeviceID{}, []string{"zero device id"}},
			{plain, "127.0.0.1:1", bob.id.DeviceID(), []string{"no carrier here dials addresses", "memory"}},
		} {
			_, err := c.from.ConnectAddr(background, c.addr, c.to)
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v, want %q in it", c.addr, err, want)
				}
			}
		}
		if _, err := alice.ConnectAddr(background, "127.0.0.1:1", alice.id.DeviceID()); !errors.Is(err, peerlink.ErrSelf) {
			t.Errorf("to itself: %v", err)
		}
		ctx, cancel := within(time.Second)
		defer cancel()
		_, err := alice.ConnectAddr(ctx, "127.0.0.3:4100", bob.id.DeviceID())
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "memory 127.0.0.3:4100: still trying after 1s") {
			t.Errorf("got %v", err)
		}
		if c := alice.Metrics().Carriers["memory"]; c.Failed != 1 {
			t.Errorf("failures are counted as %+v", alice.Metrics().Carriers)
		}
	})
}
