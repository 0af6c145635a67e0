package carriertest_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"peerlink"
	"peerlink/carriertest"
	"peerlink/ice"
	"peerlink/identity"
	"peerlink/localipc"
	"peerlink/shm"
	"peerlink/tlssock"
	"peerlink/webrtc"
)

// carriers are all of ours.
var carriers = []carriertest.Carrier{
	{Name: "tcp", Make: makeTCP},
	{Name: "unix", Make: makeUnix},
	{Name: "shm", Make: makeShm},
	{Name: "ice-tcp", Make: makeICE("tcp")},
	{Name: "ice-udp", Make: makeICE("udp")},
	{Name: "webrtc", Make: makeWebRTC},
	{Name: "direct", Make: makeDirect},
	{Name: "adopted", Make: makeTCP, Adopted: true},
}

// TestTable runs all carriers and prints the table.
//
// case: E1, E3, E4
func TestTable(t *testing.T) {
	tables := make([][]carriertest.Row, len(carriers))
	t.Run("of", func(t *testing.T) {
		for i, c := range carriers {
			t.Run(c.Name, func(t *testing.T) {
				t.Parallel()
				if here := runtime.GOOS; (c.Name == "unix" || c.Name == "shm") && here != "linux" && here != "darwin" {
					t.Skipf("NOT TESTED: %s on %s", c.Name, here)
				}
				tables[i] = carriertest.Run(t, c)
			})
		}
	})
	for _, rows := range tables {
		if rows != nil {
			fmt.Println(carriertest.Table(rows))
		}
	}
}

// bookDialer looks addresses up at the site when they are wanted.
type bookDialer struct {
	tlssock.Dialer
	site *carriertest.Site
}

func (d *bookDialer) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	if addr := d.site.Address(peer); addr != "" {
		return d.DialAddr(ctx, addr, peer)
	}
	return d.Dialer.Dial(ctx, peer)
}

func makeTCP(ctx context.Context, site *carriertest.Site, id *identity.Identity, trust *identity.Trust) (*carriertest.Endpoint, error) {
	proof := tlssock.Config{Identity: id, Trust: trust}
	l, err := tlssock.Listen(ctx, proof, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &carriertest.Endpoint{
		Dialer:    &bookDialer{tlssock.Dialer{Config: proof}, site},
		Listeners: []peerlink.Listener{l},
	}, site.Announce(id.DeviceID(), l.Addrs()[0].String())
}

// local is a device's Unix socket.
func local(ctx context.Context, site *carriertest.Site, id *identity.Identity, trust *identity.Trust) (*localipc.Dialer, *localipc.Listener, error) {
	cfg := localipc.Config{Identity: id, Trust: trust, Dir: site.Dir(), Services: []string{shm.Service}}
	l, err := localipc.Listen(ctx, cfg)
	return &localipc.Dialer{Config: cfg}, l, err
}

func makeUnix(ctx context.Context, site *carriertest.Site, id *identity.Identity, trust *identity.Trust) (*carriertest.Endpoint, error) {
	d, l, err := local(ctx, site, id, trust)
	return &carriertest.Endpoint{Dialer: d, Listeners: []peerlink.Listener{l}}, err
}

func makeShm(ctx context.Context, site *carriertest.Site, id *identity.Identity, trust *identity.Trust) (*carriertest.Endpoint, error) {
	d, below, err := local(ctx, site, id, trust)
	if err != nil {
		return nil, err
	}
	cfg := shm.Config{RegionSize: 256 << 10}
	l, err := shm.Listen(cfg, below)
	return &carriertest.Endpoint{Dialer: &shm.Dialer{Local: d, Config: cfg}, Listeners: []peerlink.Listener{l}, Close: below.Close}, err
}

// onLoopback are the addresses that ICE offers here.
func onLoopback() ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

func makeICE(engine string) func(context.Context, *carriertest.Site, *identity.Identity, *identity.Trust) (*carriertest.Endpoint, error) {
	return func(_ context.Context, site *carriertest.Site, id *identity.Identity, trust *identity.Trust) (*carriertest.Endpoint, error) {
		s, err := newSignaller(site, id)
		if err != nil {
			return nil, err
		}
		t, err := ice.New(ice.Config{Identity: id, Trust: trust, Signaller: s, Engines: []string{engine}, Loopback: true, Addresses: onLoopback})
		return &carriertest.Endpoint{Dialer: t, Listeners: []peerlink.Listener{t}, Close: s.Close}, err
	}
}

// makeDirect makes devices that are reached at their open port of TLS alone, which
// ICE tells callers.
func makeDirect(ctx context.Context, site *carriertest.Site, id *identity.Identity, trust *identity.Trust) (*carriertest.Endpoint, error) {
	l, err := tlssock.Listen(ctx, tlssock.Config{Identity: id, Trust: trust}, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s, err := newSignaller(site, id)
	if err != nil {
		return nil, err
	}
	at := netip.MustParseAddrPort(l.Addrs()[0].String())
	t, err := ice.New(ice.Config{
		Identity: id, Trust: trust, Signaller: s, Loopback: true, Engines: []string{"tcp"},
		Addresses: func() ([]netip.Addr, error) { return nil, nil },
		Direct:    func() []netip.AddrPort { return []netip.AddrPort{at} },
	})
	return &carriertest.Endpoint{Dialer: t, Listeners: []peerlink.Listener{l, t}, Close: s.Close}, err
}

func makeWebRTC(_ context.Context, site *carriertest.Site, id *identity.Identity, trust *identity.Trust) (*carriertest.Endpoint, error) {
	s, err := newSignaller(site, id)
	if err != nil {
		return nil, err
	}
	t, err := webrtc.New(webrtc.Config{Identity: id, Trust: trust, Signaller: s, Loopback: true})
	return &carriertest.Endpoint{Dialer: t, Listeners: []peerlink.Listener{t}, Close: s.Close}, err
}
