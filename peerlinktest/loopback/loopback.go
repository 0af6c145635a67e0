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
package loopback

import (
	"context"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"

	"peerlink"
	"peerlink/ice"
	"peerlink/identity"
	"peerlink/internal/calls/callstest"
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

// TCP is direct TCP. Dialers are told the addresses of all peers.
func TCP() peerlinktest.Carrier {
	w := &book{addrs: map[identity.DeviceID]string{}}
	return peerlinktest.Carrier{Name: "tcp", Open: func(_ testing.TB, id *identity.Identity, trust *identity.Trust) (peerlink.Dialer, peerlink.Listener, error) {
		cfg := tlssock.Config{Identity: id, Trust: trust}
		l, err := tlssock.Listen(context.Background(), cfg, "127.0.0.1:0")
		if err != nil {
			return nil, nil, err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.addrs[id.DeviceID()] = l.Addrs()[0].String()
		return &bookDialer{tlssock.Dialer{Config: cfg}, w}, l, nil
	}}
}

type book struct {
	mu    sync.Mutex
	addrs map[identity.DeviceID]string
}

type bookDialer struct {
	tlssock.Dialer
	w *book
}

// Dial looks the address up when it is wanted: peers come one after another.
func (d *bookDialer) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	d.w.mu.Lock()
	addr := d.w.addrs[peer]
	d.w.mu.Unlock()
	if addr == "" {
		return d.Dialer.Dial(ctx, peer)
	}
	return d.DialAddr(ctx, addr, peer)
}

// Unix is local sockets, in a folder of the test.
func Unix() peerlinktest.Carrier {
	open := local()
	return peerlinktest.Carrier{Name: "unix", Open: func(t testing.TB, id *identity.Identity, trust *identity.Trust) (peerlink.Dialer, peerlink.Listener, error) {
		d, l, err := open(t, id, trust)
		return d, l, err
	}}
}

// SharedMemory is memory of 256 KiB a link, over local sockets in a folder of the
// test.
func SharedMemory() peerlinktest.Carrier {
	open, cfg := local(), shm.Config{RegionSize: regionSize}
	return peerlinktest.Carrier{Name: "shm", Open: func(t testing.TB, id *identity.Identity, trust *identity.Trust) (peerlink.Dialer, peerlink.Listener, error) {
		d, l, err := open(t, id, trust)
		if err != nil {
			return nil, nil, err
		}
		mem, err := shm.Listen(cfg, l)
		if err != nil {
			return nil, nil, err
		}
		return &shm.Dialer{Local: d, Config: cfg}, mem, nil
	}}
}

// local returns what opens local sockets in one folder, made at the first use. A
// test on a system that these rooms are not tried on is skipped.
func local() func(testing.TB, *identity.Identity, *identity.Trust) (*localipc.Dialer, *localipc.Listener, error) {
	var dir string
	return func(t testing.TB, id *identity.Identity, trust *identity.Trust) (*localipc.Dialer, *localipc.Listener, error) {
		if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
			t.Skipf("NOT TESTED: local sockets on %s", runtime.GOOS)
		}
		if dir == "" {
			var err error
			if dir, err = os.MkdirTemp("", "run"); err != nil { // short, as a socket's path must be
				return nil, nil, err
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
		}
		cfg := localipc.Config{Identity: id, Trust: trust, Dir: dir, Services: []string{shm.Service}}
		l, err := localipc.Listen(context.Background(), cfg)
		if err != nil {
			return nil, nil, err
		}
		t.Cleanup(func() { _ = l.Close() })
		return &localipc.Dialer{Config: cfg}, l, nil
	}
}

// ICE is ICE over one engine, "tcp" or "udp", with signals in memory. A change
// adjusts each peer's Config; nil leaves it as it is.
func ICE(engine string, change func(*ice.Config)) peerlinktest.Carrier {
	signals := callstest.New()
	return peerlinktest.Carrier{Name: "ice-" + engine, Open: func(t testing.TB, id *identity.Identity, trust *identity.Trust) (peerlink.Dialer, peerlink.Listener, error) {
		cfg := ice.Config{Identity: id, Trust: trust, Signaller: signals.Join(id), Engines: []string{engine}, Loopback: true}
		if change != nil {
			change(&cfg)
		}
		tr, err := ice.New(cfg)
		if err != nil {
			return nil, nil, err
		}
		return tr, tr, nil
	}}
}

// WebRTC is data channels, with signals in memory. A change adjusts each peer's
// Config; nil leaves it as it is.
func WebRTC(change func(*webrtc.Config)) peerlinktest.Carrier {
	signals := callstest.New()
	return peerlinktest.Carrier{Name: "webrtc", Open: func(t testing.TB, id *identity.Identity, trust *identity.Trust) (peerlink.Dialer, peerlink.Listener, error) {
		cfg := webrtc.Config{Identity: id, Trust: trust, Signaller: signals.Join(id), Loopback: true}
		if change != nil {
			change(&cfg)
		}
		tr, err := webrtc.New(cfg)
		if err != nil {
			return nil, nil, err
		}
		return tr, tr, nil
	}}
}
