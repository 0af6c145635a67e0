package ice

import (
	"context"
	"errors"
	"fmt"
	"net"

	"peerlink/identity"
	"peerlink/internal/calls"
	"peerlink/internal/route"
)

// refresh puts the candidates as they are now into an offer or answer that is
// sent once more.
func (t *Transport) refresh(n *negotiation, m *message) {
	now, err := t.candidates(n)
	if err != nil {
		return // as before, then
	}
	if m.tcp != nil {
		m.tcp.candidates = now.tcpCandidates()
	}
	if m.udp != nil {
		m.udp.candidates = now.udpCandidates()
	}
}

// delivered is what the one path that a callee has taken led to.
type delivered struct {
	conn net.Conn
	peer identity.Peer
	err  error
}

// admitted returns what a path led to. Where the signaller did not prove the
// caller, the program is asked about it now that the stream does.
func (d delivered) admitted(ctx context.Context, v *calls.Visit[*message]) (net.Conn, identity.Peer, error) {
	if d.err == nil && calls.Unproven(v.From) {
		if err := v.Admit(ctx, d.peer); err != nil {
			d.conn.Close()
			return nil, identity.Peer{}, err
		}
	}
	return d.conn, d.peer, d.err
}

// Answer starts the engines, sends the answer, and returns once a stream was
// delivered or the time is over.
func (t carrier) Answer(ctx context.Context, v *calls.Visit[*message], offer *message) (net.Conn, identity.Peer, error) {
	n, end, err := t.negotiate(ctx, controlled, v.ID, v.From.Device)
	if err != nil {
		return nil, identity.Peer{}, err
	}
	defer end()
	n.price.Store(v.Price())
	if offer.tcp != nil {
		n.key = offer.tcp.key
	}
	m := &message{kind: calls.Answer, id: n.id}
	if err := t.describe(n, m); err != nil {
		v.Refuse(calls.CodeInternal, "internal error")
		return nil, identity.Peer{}, err
	}
	if offer.tcp == nil {
		m.tcp = nil
	}
	if offer.udp == nil {
		m.udp = nil
	}
	v.Attach(n)
	if len(n.start(t.engines, offer)) == 0 {
		v.Refuse(0, fmt.Sprintf("no common engine, here are %v", t.cfg.Engines))
		return nil, identity.Peer{}, errors.New("no common engine")
	}
	for trickling := false; ; {
		n.tell(m)
		if err := t.Post(n.ctx, n.peer, m); err != nil {
			n.tried("signaller", "answer", err)
		} else if !trickling {
			trickling = n.spawn(func(ctx context.Context) { t.trickle(ctx, n) })
		}
		select {
		case d := <-n.deliveredc:
			return d.admitted(ctx, v)
		case <-v.Again: // the answer may have been lost
			t.refresh(n, m)
		case <-n.ctx.Done():
			if n.win() { // nothing else does
				return nil, identity.Peer{}, v.Failure("the caller reached no candidate and was not reached", t.tale(n))
			}
			d := <-n.deliveredc
			return d.admitted(ctx, v)
		}
	}
}

// deliver has a proven stream be what the negotiation leads to, unless it has
// another one or the device is not the one that made the offer. greet sends what
// the caller's Dial waits for.
func (t *Transport) deliver(n *negotiation, conn net.Conn, peer identity.Peer, way string, greet func() error) error {
	switch {
	case peer.Device != n.peer:
		conn.Close()
		return fmt.Errorf("device %s is at the other end", peer.Device)
	case !n.win():
		conn.Close()
		return errEnded
	}
	err := greet()
	if err != nil {
		conn.Close()
	} else if p, ok := conn.(interface{ Path() route.Path }); ok {
		t.log.Debug("ice: accepted", "peer", peer.Device, "way", way, "path", p.Path())
	}
	n.deliveredc <- delivered{conn, peer, err} // its one value
	return err
}
