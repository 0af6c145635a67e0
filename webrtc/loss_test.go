package webrtc

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/transport/v5"
)

// lossy loses every tenth large datagram on its way out.
type lossy struct {
	transport.UDPConn
	sent, lost *atomic.Int64
}

// largeDatagram is more than ICE's checks and SCTP's acknowledgements have.
const largeDatagram = 400

func (l lossy) WriteTo(p []byte, to net.Addr) (int, error) {
	if len(p) >= largeDatagram && l.sent.Add(1)%10 == 0 {
		l.lost.Add(1)
		return len(p), nil
	}
	return l.UDPConn.WriteTo(p, to)
}

// A lost message that no other one follows is sent again after a probe time-out,
// which is of the round trip's order. pion/sctp v1.12.0 (association.go, RACK and
// TLP) does so; v1.8.39 waited for the retransmission time-out, 1 s at least.
func TestLossOfTheLastMessageCostsLittle(t *testing.T) {
	var sent, lost atomic.Int64
	x := newExchange()
	a := x.newDevice(t, "alice", func(c *Config) {
		c.wrap = func(u transport.UDPConn) transport.UDPConn { return lossy{u, &sent, &lost} }
	})
	near, far := connect(t, a, x.newDevice(t, "bob"))
	go func() { _, _ = io.Copy(far, far) }()
	message, worst := make([]byte, 500), time.Duration(0)
	for range 60 {
		before, start := lost.Load(), time.Now()
		if _, err := near.Write(message); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(near, message); err != nil {
			t.Fatal(err)
		}
		if lost.Load() > before {
			worst = max(worst, time.Since(start))
		}
	}
	t.Logf("%d of %d datagrams lost, at worst %s for a message there and back", lost.Load(), sent.Load(), worst)
	if lost.Load() < 5 || worst > 900*time.Millisecond {
		t.Errorf("%d datagrams lost, at worst %s; want less than the 1 s of a retransmission time-out", lost.Load(), worst)
	}
}
