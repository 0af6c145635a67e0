package ice

import (
	"context"
	"net"
	"net/netip"
	"time"

	"peerlink/identity"
	"peerlink/internal/pause"
	"peerlink/internal/route"
)

// A device may take plain TLS connections at a port of its own (package tlssock),
// which is open in a firewall that lets nothing else in. A caller that knows only the
// device's id hears of that port in the answer, and dials it beside the engine's.
// TLS proves the device, as everywhere; the stream comes out of the device's other
// listener, so the caller tells it by a refusal that this negotiation is over.
const (
	// maxDirect is how many such addresses are told.
	maxDirect = 4
	// directDelay is the head start of the other candidates: it is seldom that only
	// this one works, and the device's listener knows nothing of negotiations.
	directDelay = 100 * time.Millisecond
)

// directCandidates are the addresses of Config.Direct.
func (t *Transport) directCandidates(own []netip.Addr) (out []candidate) {
	if t.cfg.Direct == nil {
		return nil
	}
	for _, at := range t.cfg.Direct() {
		addrs := []netip.Addr{at.Addr().Unmap()}
		if at.Addr().IsUnspecified() {
			addrs = own
		}
		for _, a := range addrs {
			c := candidate{directCandidate, netip.AddrPortFrom(a, at.Port())}
			fits := a.Is4() || !at.Addr().Is4()
			if fits && checkCandidate(c, t.cfg.Loopback) == nil && len(out) < maxDirect {
				out = append(out, c)
			}
		}
	}
	return out
}

// pursueDirect dials such a candidate, on the calling side, until the negotiation
// ends.
func (e *tcpEngine) pursueDirect(ctx context.Context, n *negotiation, c candidate) {
	if n.role != controlling || pause.For(ctx, directDelay) != nil {
		return
	}
	for pauses := pause.Backoff(redialPause, maxRedialPause); ; {
		d := net.Dialer{Timeout: dialTimeout}
		conn, err := d.DialContext(ctx, "tcp", c.addr.String())
		if err != nil {
			n.tried(engineTCP, c.String(), err)
		} else {
			select {
			case <-e.reachedDirect(n, conn.(*net.TCPConn), c):
			case <-ctx.Done():
			}
		}
		if pause.For(ctx, pauses.NextBackOff()) != nil {
			return
		}
	}
}

// reachedDirect makes a path of a connection. The result is closed when it has
// come to nothing.
func (e *tcpEngine) reachedDirect(n *negotiation, conn *net.TCPConn, c candidate) <-chan struct{} {
	lost := make(chan struct{})
	tcp := newTCPConn(conn, route.Between(engineTCP, c.typ.String(), conn.LocalAddr(), conn.RemoteAddr()))
	n.worked(engineTCP, c.String())
	n.addPath(&path{
		Path:  tcp.path,
		class: classOf(c.typ),
		near:  true,
		apart: true,
		drop:  func() { tcp.Close() },
		take: func(ctx context.Context) (net.Conn, identity.Peer, error) {
			s, err := e.t.tls.Client(ctx, tcp, n.peer)
			if err != nil {
				close(lost)
				return nil, identity.Peer{}, err
			}
			return s, s.Peer(), nil
		},
	})
	return lost
}
