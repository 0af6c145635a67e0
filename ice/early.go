package ice

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"peerlink/internal/pause"
)

// earlyGap is how far a handshake follows the first check to an address: the
// peer takes it only once it has read the check, and they must not change places.
const earlyGap = 2 * time.Millisecond

// earlyDial is a QUIC handshake that goes out right behind the first check to
// an address, and so saves the round trip of waiting for its answer. If the
// check is lost or the peer is slow, nothing is lost either: it is refused, and
// the path is dialled when it has been found.
type earlyDial struct {
	to   netip.AddrPort
	done chan struct{}
	conn *quic.Conn // set before done is closed; nil where it failed
}

// dialEarly starts one, on the controlling side: to the first address at which
// a server sees the peer, as nothing better than UDP will be found there.
func (s *udpSession) dialEarly(w checkedWay) {
	if s.n.role != controlling || w.way == overRelay || s.early.Load() != nil ||
		s.n.typeOf(engineUDP, w.addr) != srflxCandidate.String() {
		return
	}
	d := &earlyDial{to: w.addr, done: make(chan struct{})}
	if s.n.spawn(func(ctx context.Context) { s.runEarly(ctx, d) }) {
		s.early.Store(d)
	}
}

// runEarly makes the connection and, unless a path takes it, ends it with the
// negotiation.
func (s *udpSession) runEarly(ctx context.Context, d *earlyDial) {
	if pause.For(ctx, earlyGap) != nil {
		close(d.done)
		return
	}
	conn, err := s.e.base.quic.Dial(ctx, net.UDPAddrFromAddrPort(d.to), s.e.t.tls.ClientTLS(s.n.peer), s.e.config())
	if err == nil {
		d.conn = conn
	}
	close(d.done)
	if err != nil {
		return
	}
	<-ctx.Done()
	if s.early.Swap(nil) == d {
		conn.CloseWithError(codeRefused, "")
	}
}

// take returns the connection, once, if it leads to remote and has come about,
// or is about to.
func (s *udpSession) takeEarly(ctx context.Context, remote netip.AddrPort) *quic.Conn {
	d := s.early.Load()
	if d == nil || d.to != remote {
		return nil
	}
	select {
	case <-d.done:
	case <-ctx.Done():
		return nil
	}
	if d.conn == nil || !s.early.CompareAndSwap(d, nil) {
		return nil
	}
	return d.conn
}
