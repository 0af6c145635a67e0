package ice

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/quic-go/quic-go"

	"peerlink/identity"
	"peerlink/internal/route"
)

// base is a place that datagrams leave from: the socket, or an address at a
// relay. STUN and QUIC share it.
type base struct {
	e     *udpEngine
	relay *relay // nil: the socket
	quic  *quic.Transport
	ln    *quic.Listener
}

// newBase takes QUIC connections on conn. It does not own conn.
func newBase(e *udpEngine, conn net.PacketConn, r *relay) (*base, error) {
	b := &base{e: e, relay: r, quic: &quic.Transport{Conn: conn, ConnContext: e.connContext, DisableVersionNegotiationPackets: true}}
	var err error
	if b.ln, err = b.quic.Listen(e.t.tls.ServerTLS(), e.config()); err != nil {
		return nil, fmt.Errorf("ice: listen for QUIC: %w", err)
	}
	return b, nil
}

// run takes packets and connections until the base or the Transport is closed;
// done tells when that is over.
func (b *base) run(done func()) bool {
	return b.e.t.board.Go(func(ctx context.Context) {
		defer done()
		stop := context.AfterFunc(ctx, func() { _ = b.ln.Close() })
		defer stop()
		read := make(chan struct{})
		go func() {
			defer close(read)
			b.readSTUN(ctx)
		}()
		b.accept(ctx)
		<-read
	})
}

// close ends taking packets; connections that live on the base are lost.
func (b *base) close() {
	_ = b.ln.Close()
	_ = b.quic.Close()
}

func (b *base) readSTUN(ctx context.Context) {
	p := make([]byte, 1500)
	for {
		n, from, err := b.quic.ReadNonQUICPacket(ctx, p)
		if err != nil {
			return
		}
		if isPulse(p[:n]) {
			b.pulseFrom(p[:n], from)
			continue
		}
		b.e.mux.receive(p[:n], from, b.relay != nil)
	}
}

// accept takes QUIC connections.
func (b *base) accept(ctx context.Context) {
	for {
		conn, err := b.ln.Accept(ctx)
		if err != nil {
			return
		}
		if !b.e.t.board.Go(func(ctx context.Context) { b.e.serve(ctx, b, conn) }) {
			conn.CloseWithError(codeGone, "")
		}
	}
}

// dial makes the QUIC connection of the controlling side and its one stream.
// early may have one under way already.
func (b *base) dial(ctx context.Context, n *negotiation, remote net.Addr, desc route.Path, early func(context.Context, netip.AddrPort) *quic.Conn) (net.Conn, identity.Peer, error) {
	var conn *quic.Conn
	if b.relay == nil {
		conn = early(ctx, addrPort(remote))
	}
	if conn == nil {
		var err error
		if conn, err = b.quic.Dial(ctx, remote, b.e.t.tls.ClientTLS(n.peer), b.e.config()); err != nil {
			return nil, identity.Peer{}, fmt.Errorf("quic: %w", err)
		}
	}
	stream, peer, err := b.e.greet(ctx, conn, n)
	if err == nil && !b.keep(conn) {
		err = errClosed
	}
	if err != nil {
		conn.CloseWithError(codeRefused, "")
		return nil, identity.Peer{}, err
	}
	return newQUICConn(b, conn, stream, desc, controlling), peer, nil
}

// wasSilent reports whether a connection has ended because nothing was heard.
func wasSilent(cause error) bool {
	_, idle := errors.AsType[*quic.IdleTimeoutError](cause)
	app, ended := errors.AsType[*quic.ApplicationError](cause)
	return idle || ended && !app.Remote && app.ErrorCode == codeSilent
}

// keep remembers a live connection for close; false where that has run. A
// connection keeps its relay.
func (b *base) keep(c *quic.Conn) bool {
	e := b.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conns == nil {
		return false
	}
	e.conns[c] = struct{}{}
	if b.relay != nil {
		b.relay.hold()
	}
	context.AfterFunc(c.Context(), func() {
		e.mu.Lock()
		delete(e.conns, c)
		e.mu.Unlock()
		if b.relay == nil {
			return
		}
		if wasSilent(context.Cause(c.Context())) {
			b.relay.doubt() // either the peer has died, or the relay has
		}
		b.relay.release()
	})
	return true
}
