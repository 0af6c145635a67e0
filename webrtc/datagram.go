package webrtc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	pion "github.com/pion/webrtc/v4"
)

const (
	// MaxDatagram is the longest datagram, in bytes: with the headers of SCTP,
	// DTLS, UDP and IP it fits the 1 280 bytes that every IPv6 path carries.
	MaxDatagram = 1100
	// datagramSuffix follows the stream's label in that of the second channel.
	datagramSuffix = ".datagrams"
	// datagramsKept is how many wait to be received, and datagramHigh how many
	// bytes to be sent; what comes then is dropped.
	datagramsKept = 64
	datagramHigh  = 64 << 10
)

// ErrDatagramDropped is returned by SendDatagram when the datagram was not even
// sent, as too many wait or the peer's side of the channel is not open yet.
var ErrDatagramDropped = errors.New("webrtc: datagram dropped: too many wait, or the channel is not open yet")

// datagrams is the second channel of a connection: unordered, never repeated.
type datagrams struct {
	raw  atomic.Pointer[channelPair] // nil until it is open
	inc  chan []byte
	endc chan struct{} // closed when nothing more can come
}

func unreliable() *pion.DataChannelInit {
	ordered, repeats := false, uint16(0)
	return &pion.DataChannelInit{Ordered: &ordered, MaxRetransmits: &repeats}
}

func isUnreliable(dc *pion.DataChannel) bool {
	n := dc.MaxRetransmits()
	return !dc.Ordered() && n != nil && *n == 0
}

// receive waits for the channel and takes what comes, until the session ends.
func (d *datagrams) receive(s *session) {
	defer close(d.endc)
	select {
	case raw := <-s.datac:
		d.raw.Store(raw)
	case <-s.lostc:
		return
	}
	buf := make([]byte, MaxDatagram)
	for {
		n, text, err := d.raw.Load().ReadDataChannel(buf)
		if err != nil { // the end, or one that is too long: the peer's fault
			return
		}
		if text {
			continue
		}
		select {
		case d.inc <- append([]byte(nil), buf[:n]...):
		default: // nobody receives
		}
	}
}

// SendDatagram sends p, 1 to MaxDatagram bytes, once: it arrives whole, or not
// at all, and in no order. It does not block. ErrDatagramDropped says that it
// was not sent; another error, that none can be any more.
func (c *Conn) SendDatagram(p []byte) error {
	switch {
	case len(p) == 0 || len(p) > MaxDatagram:
		return fmt.Errorf("webrtc: a datagram of %d bytes, want 1 to %d", len(p), MaxDatagram)
	case closed(c.closedc) || closed(c.lostc):
		return c.opError("write", errLost)
	}
	raw := c.datagrams.raw.Load()
	if raw == nil || raw.BufferedAmount() > datagramHigh {
		return ErrDatagramDropped
	}
	if _, err := raw.WriteDataChannel(p, false); err != nil {
		return c.opError("write", lost(err))
	}
	return nil
}

// ReceiveDatagram returns the next datagram of the peer. It blocks until there
// is one, ctx ends, or none can come any more. Up to 64 wait for it; more are
// dropped.
func (c *Conn) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	select {
	case p := <-c.datagrams.inc:
		return p, nil
	default:
	}
	select {
	case p := <-c.datagrams.inc:
		return p, nil
	case <-c.datagrams.endc:
		return nil, c.opError("read", errLost)
	case <-c.closedc:
		return nil, c.opError("read", errLost)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
