package dht

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
)

// arrival is a connection that says nothing.
type arrival struct {
	net.Conn
	network.ConnMultiaddrs
	from   netip.Addr
	closed atomic.Bool
}

func (a *arrival) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.from, 1))
}
func (a *arrival) RemoteMultiaddr() ma.Multiaddr { return nil }
func (a *arrival) LocalMultiaddr() ma.Multiaddr  { return nil }
func (a *arrival) Close() error                  { a.closed.Store(true); return nil }

func arrive(n byte) *arrival { return &arrival{from: netip.AddrFrom4([4]byte{127, 0, n, 1})} }

func waiting(d *door) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.places)
}

// Half-open connections, of one address or of many, keep no other one out; loopback is no
// exception. A connection that has proven its key holds no place and is not closed.
// case: S10
func TestHalfOpenConnectionsKeepNobodyOut(t *testing.T) {
	for name, sources := range map[string]byte{"three addresses": 3, "sixteen": 16, "many addresses": 100} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDoor()
				proven := arrive(250)
				if !d.InterceptAccept(proven) {
					t.Fatal("the first one is refused")
				}
				d.InterceptSecured(network.DirInbound, "", proven)
				var all []*arrival
				for i := range 1500 {
					a := arrive(byte(i) % sources)
					if d.InterceptAccept(a) {
						all = append(all, a)
					}
				}
				if n := d.gate.Held(); n > maxUnproven {
					t.Errorf("%d places are taken", n)
				}
				other := arrive(251)
				if !d.InterceptAccept(other) {
					t.Fatal("another address is refused")
				}
				for i := range 1500 { // before the other one has said anything
					if a := arrive(byte(i) % sources); d.InterceptAccept(a) {
						all = append(all, a)
					}
				}
				if other.closed.Load() {
					t.Error("another address has lost its place")
				}
				if n := max(d.gate.Held(), waiting(d)); n > maxUnproven {
					t.Errorf("%d places are taken", n)
				}
				time.Sleep(unprovenLife)
				synctest.Wait()
				for _, a := range all {
					if !a.closed.Load() {
						t.Fatal("a half-open connection is kept")
					}
				}
				if n := d.gate.Held(); n != 0 || waiting(d) != 0 {
					t.Errorf("%d places, %d timers stay", n, waiting(d))
				}
				if proven.closed.Load() {
					t.Error("a proven connection was closed")
				}
			})
		})
	}
}
