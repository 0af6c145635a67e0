package ice

import (
	"net"
	"runtime"
	"testing"
)

// A relay that has come into doubt, as a connection over it went silent, is not
// told to anybody any more, but it is kept for the calls that were told of it.
// fault: F3
func TestARelayInDoubtOutlivesTheCallsThatWereToldOfIt(t *testing.T) {
	s := relayServer(t, true)
	a, b := newApart(t, through(t, s, "tcp"), through(t, s, "tcp"))
	ca, cb := connect(t, a, b)
	exchangeBytes(t, ca, cb, 1<<10)
	var doubted []*relay
	for _, d := range []*device{a, b} {
		r := d.engines[0].(*udpEngine).relays
		n := r.current()
		if n == nil {
			continue // the other's relay carries the stream
		}
		n.doubt()
		doubted = append(doubted, n)
		if r.current() == n {
			t.Error("the relay is still told")
		}
		r.mu.Lock()
		if users := n.users; n.closed || users == 0 && n.idle == nil {
			t.Errorf("the relay is closed %v, with %d users", n.closed, users)
		}
		r.mu.Unlock()
	}
	exchangeBytes(t, ca, cb, 1<<10)
	ca.Close()
	cb.Close()
	for _, n := range doubted {
		r := n.p
		waitFor(t, func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return n.users == 0
		})
		for range 20 { // it would be closed at once
			if _, err := n.packet.WriteTo([]byte{0}, net.UDPAddrFromAddrPort(n.addr)); err != nil {
				t.Fatalf("the relay is closed: %v", err)
			}
			runtime.Gosched()
			r.mu.Lock()
			if n.closed || n.idle == nil {
				t.Error("the relay is closed")
			}
			r.mu.Unlock()
		}
	}
}
