// Package loopback has peerlink's own carriers for package peerlinktest, over this
// machine's loopback:
//
//	for _, c := range loopback.Carriers() {
//		t.Run(c.Name, func(t *testing.T) {
//			n := peerlinktest.New(t, c)
//			alice, bob := n.Peer("alice"), n.Peer("bob")
//			…
//		})
//	}
//
// A Carrier is for one network. They run in real time, not in a synctest bubble.
// Without Shaped they are as fast as they are, and the network cannot cut them.
// Package carriertest takes them from Table.
package loopback

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"peerlink"
	"peerlink/carriertest"
	"peerlink/ice"
	"peerlink/identity"
	"peerlink/localipc"
	"peerlink/peerlinktest"
	"peerlink/shm"
	"peerlink/tlssock"
	"peerlink/webrtc"
)

// regionSize is how much memory a link through shared memory takes, in bytes:
// little, as tests make many links.
const regionSize = 256 << 10

// Carriers returns a new one of each: TCP, SharedMemory, Unix, ICE over TCP and
// over UDP, WebRTC.
func Carriers() []peerlinktest.Carrier {
	return []peerlinktest.Carrier{TCP(), SharedMemory(), Unix(), ICE("tcp", nil), ICE("udp", nil), WebRTC(nil)}
}

// Table returns the same carriers for package carriertest, and direct besides:
// devices that are reached at their open port of TLS alone, which ICE tells callers.
func Table() []carriertest.Carrier {
	return []carriertest.Carrier{
		{Name: "tcp", Make: makeTCP},
		{Name: "unix", Make: makeUnix},
		{Name: "shm", Make: makeShm},
		{Name: "ice-tcp", Make: makeICE("tcp", nil)},
		{Name: "ice-udp", Make: makeICE("udp", nil)},
		{Name: "webrtc", Make: makeWebRTC(nil)},
		{Name: "direct", Make: makeDirect},
	}
}

// TCP is direct TCP. Dialers are told the addresses of all peers.
func TCP() peerlinktest.Carrier { return on("tcp", makeTCP) }

// Unix is local sockets, in a folder of the test.
func Unix() peerlinktest.Carrier { return onThisSystem("unix", makeUnix) }

// SharedMemory is memory of 256 KiB a link, over local sockets in a folder of the
// test.
func SharedMemory() peerlinktest.Carrier { return onThisSystem("shm", makeShm) }

// ICE is ICE over one engine, "tcp" or "udp", with signals over loopback. A change
// adjusts each peer's Config; nil leaves it as it is.
func ICE(engine string, change func(*ice.Config)) peerlinktest.Carrier {
	return on("ice-"+engine, makeICE(engine, change))
}

// WebRTC is data channels, with signals over loopback. A change adjusts each peer's
// Config; nil leaves it as it is.
func WebRTC(change func(*webrtc.Config)) peerlinktest.Carrier {
	return on("webrtc", makeWebRTC(change))
}

// maker is carriertest.Carrier.Make.
type maker func(context.Context, *carriertest.Site, *identity.Identity, *identity.Trust) (*carriertest.Endpoint, error)

// on returns a carrier with a site of its own, made at the first use.
func on(name string, make maker) peerlinktest.Carrier {
	var site *carriertest.Site
	return peerlinktest.Carrier{Name: name, Open: func(t testing.TB, id *identity.Identity, trust *identity.Trust) (_ peerlink.Dialer, _ peerlink.Listener, err error) {
		if site == nil {
			if site, err = carriertest.NewSite(t); err != nil {
				return nil, nil, err
			}
		}
		end, err := make(context.Background(), site, id, trust)
		if err != nil {
			return nil, nil, err
		}
		if end.Close != nil {
			t.Cleanup(func() { _ = end.Close() })
		}
		return end.Dialer, end.Listeners[0], nil
	}}
}

// onThisSystem is on for carriers that are tried on some systems alone; elsewhere
// a test is skipped.
func onThisSystem(name string, make maker) peerlinktest.Carrier {
	c := on(name, make)
	open := c.Open
	c.Open = func(t testing.TB, id *identity.Identity, trust *identity.Trust) (peerlink.Dialer, peerlink.Listener, error) {
		if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
			t.Skipf("NOT TESTED: local sockets on %s", runtime.GOOS)
		}
		return open(t, id, trust)
	}
	return c
}

func endpoint(d peerlink.Dialer, ls ...peerlink.Listener) *carriertest.Endpoint {
	return &carriertest.Endpoint{Dialer: d, Listeners: ls}
}

// bookDialer looks addresses up at the site when they are wanted: peers come one
// after another.
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
	cfg := tlssock.Config{Identity: id, Trust: trust}
	l, err := tlssock.Listen(ctx, cfg, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return endpoint(&bookDialer{tlssock.Dialer{Config: cfg}, site}, l), site.Announce(id.DeviceID(), l.Addrs()[0].String())
}

// local is a device's Unix socket.
func local(ctx context.Context, site *carriertest.Site, id *identity.Identity, trust *identity.Trust) (*localipc.Dialer, *localipc.Listener, error) {
	cfg := localipc.Config{Identity: id, Trust: trust, Dir: site.Dir(), Services: []string{shm.Service}}
	l, err := localipc.Listen(ctx, cfg)
	return &localipc.Dialer{Config: cfg}, l, err
}

func makeUnix(ctx context.Context, site *carriertest.Site, id *identity.Identity, trust *identity.Trust) (*carriertest.Endpoint, error) {
	d, l, err := local(ctx, site, id, trust)
	return endpoint(d, l), err
}

func makeShm(ctx context.Context, site *carriertest.Site, id *identity.Identity, trust *identity.Trust) (*carriertest.Endpoint, error) {
	d, below, err := local(ctx, site, id, trust)
	if err != nil {
		return nil, err
	}
	cfg := shm.Config{RegionSize: regionSize}
	l, err := shm.Listen(cfg, below)
	end := endpoint(&shm.Dialer{Local: d, Config: cfg}, l)
	end.Close = below.Close
	return end, err
}

func makeICE(engine string, change func(*ice.Config)) maker {
	return func(ctx context.Context, site *carriertest.Site, id *identity.Identity, trust *identity.Trust) (*carriertest.Endpoint, error) {
		return overICE(ctx, site, ice.Config{Identity: id, Trust: trust, Engines: []string{engine}, Addresses: onLoopback}, change)
	}
}

// onLoopback are the addresses that ICE offers here.
func onLoopback() ([]netip.Addr, error) {
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
}

// overICE is what ICE carriers have in common.
func overICE(ctx context.Context, site *carriertest.Site, cfg ice.Config, change func(*ice.Config)) (*carriertest.Endpoint, error) {
	s, err := newSignaller(ctx, site, cfg.Identity)
	if err != nil {
		return nil, err
	}
	cfg.Signaller, cfg.Loopback = s, true
	if change != nil {
		change(&cfg)
	}
	t, err := ice.New(cfg)
	end := endpoint(t, t)
	end.Close = s.Close
	return end, err
}

func makeDirect(ctx context.Context, site *carriertest.Site, id *identity.Identity, trust *identity.Trust) (*carriertest.Endpoint, error) {
	l, err := tlssock.Listen(ctx, tlssock.Config{Identity: id, Trust: trust}, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	at := netip.MustParseAddrPort(l.Addrs()[0].String())
	end, err := overICE(ctx, site, ice.Config{
		Identity: id, Trust: trust, Engines: []string{"tcp"},
		Addresses: func() ([]netip.Addr, error) { return nil, nil },
		Direct:    func() []netip.AddrPort { return []netip.AddrPort{at} },
	}, nil)
	if err != nil {
		return nil, err
	}
	end.Listeners = append(end.Listeners, l)
	return end, nil
}

func makeWebRTC(change func(*webrtc.Config)) maker {
	return func(ctx context.Context, site *carriertest.Site, id *identity.Identity, trust *identity.Trust) (*carriertest.Endpoint, error) {
		s, err := newSignaller(ctx, site, id)
		if err != nil {
			return nil, err
		}
		cfg := webrtc.Config{Identity: id, Trust: trust, Signaller: s, Loopback: true}
		if change != nil {
			change(&cfg)
		}
		t, err := webrtc.New(cfg)
		end := endpoint(t, t)
		end.Close = s.Close
		return end, err
	}
}
