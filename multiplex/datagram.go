package multiplex

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"peerlink/channel"
)

// A datagram of a carrier that has them (docs/protocol.md, "Datagrams"):
//
//	channel:uint16 | payload
//
// It belongs to a channel that exists on both sides; what belongs to none is
// dropped and counted, as it may have overtaken the request or come late.
const datagramHeader = 2

// featureDatagrams is the bit of the hello's features that says: this side
// takes the carrier's datagrams.
const featureDatagrams = 1 << 0

// safeDatagram is how long the datagrams of a carrier may be that does not say:
// with the headers of SCTP, DTLS, UDP and IP such a one fits the 1 280 bytes that
// every IPv6 path carries.
const safeDatagram = 1100

// datagramConn is a conn of a carrier that has datagrams, too: see
// peerlink.Dialer, also about the method MaxDatagram() int that it may have.
type datagramConn interface {
	net.Conn
	SendDatagram(p []byte) error // or why it was dropped
	ReceiveDatagram(ctx context.Context) ([]byte, error)
}

// errNoDatagrams is why a datagram is not sent on a link that has none.
var errNoDatagrams = errors.New("the link has no datagrams")

// startDatagrams receives the datagrams of a carrier that has them, and returns
// the features for the hello.
func (s *Socket) startDatagrams() (features uint64) {
	c, ok := s.conn.(datagramConn)
	if !ok || s.cfg.Version < version2 {
		close(s.datagramsDone)
		return 0
	}
	s.datagrams = c
	ctx, cancel := context.WithCancel(context.Background())
	s.stopDatagrams = cancel
	go s.receiveDatagrams(ctx)
	return featureDatagrams
}

// receiveDatagrams hands datagrams to their channels until none can come.
func (s *Socket) receiveDatagrams(ctx context.Context) {
	defer close(s.datagramsDone)
	for {
		b, err := s.datagrams.ReceiveDatagram(ctx)
		if err != nil {
			return
		}
		s.stats.bytesIn.Add(uint64(len(b)))
		if dropped := s.takeDatagram(b); dropped > 0 {
			s.stats.datagramsDropped.Add(uint64(dropped))
		}
	}
}

// takeDatagram hands over one datagram and returns how many were dropped.
func (s *Socket) takeDatagram(b []byte) (dropped int) {
	if len(b) <= datagramHeader {
		return 1
	}
	s.mu.Lock()
	e := s.table[channel.ID(binary.BigEndian.Uint16(b))]
	if e == nil || e.condemned || e.gotEnd || s.crampedLocked(len(b)) {
		s.mu.Unlock()
		return 1
	}
	s.mu.Unlock()
	s.stats.datagramsIn.Add(1)
	return e.stream.DeliverDatagram(b[datagramHeader:])
}

// MaxDatagram implements stream.Link.
func (e *entry) MaxDatagram() int {
	s := e.s
	if s.datagrams == nil || s.features.Load()&featureDatagrams == 0 {
		return 0
	}
	most := safeDatagram
	if c, ok := s.datagrams.(interface{ MaxDatagram() int }); ok {
		most = c.MaxDatagram()
	}
	return max(most-datagramHeader, 0)
}

// SendDatagram implements stream.Link.
func (e *entry) SendDatagram(p []byte) error {
	s := e.s
	if s.datagrams == nil {
		return errNoDatagrams
	}
	b := make([]byte, datagramHeader+len(p))
	binary.BigEndian.PutUint16(b, uint16(e.id))
	copy(b[datagramHeader:], p)
	if err := s.datagrams.SendDatagram(b); err != nil {
		s.stats.blocked.Add(1)
		return fmt.Errorf("link: %w", err)
	}
	s.stats.datagramsOut.Add(1)
	s.stats.bytesOut.Add(uint64(len(b)))
	return nil
}
