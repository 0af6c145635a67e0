package tlssock

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"peerlink/identity"
	"peerlink/internal/rawsock"
)

// Client is Config.Client without a trust store: the dialled id alone decides.
func Client(ctx context.Context, conn net.Conn, id *identity.Identity, peer identity.DeviceID) (*Conn, error) {
	return Config{Identity: id}.Client(ctx, conn, peer)
}

// Server is Config.Server with the default time-out.
func Server(ctx context.Context, conn net.Conn, id *identity.Identity, trust *identity.Trust) (*Conn, error) {
	return Config{Identity: id, Trust: trust}.Server(ctx, conn)
}

// Client runs the caller's side of the handshake over conn and checks that
// peer is at the other end; another one is a *WrongDeviceError. It owns conn
// from here on and closes it when it fails. It blocks until the handshake is
// done, ctx ends, or HandshakeTimeout is over. The peer may still refuse: see
// the package comment.
func (c Config) Client(ctx context.Context, conn net.Conn, peer identity.DeviceID) (*Conn, error) {
	return c.handshake(ctx, conn, tls.Client, func(cs tls.ConnectionState) (identity.Peer, error) {
		return c.checkDialled(cs, peer)
	})
}

// Server runs the callee's side of the handshake over conn, with the same
// conditions as Client. When it returns, the caller is proven.
func (c Config) Server(ctx context.Context, conn net.Conn) (*Conn, error) {
	return c.handshake(ctx, conn, tls.Server, c.check)
}

func (c Config) handshake(ctx context.Context, conn net.Conn, role func(net.Conn, *tls.Config) *tls.Conn,
	check func(tls.ConnectionState) (identity.Peer, error),
) (*Conn, error) {
	raw := rawsock.New(conn)
	under := &carrier{Conn: conn, in: intake{conn: conn, raw: raw}, out: outlet{conn: conn, raw: raw}}
	out := &Conn{carrier: under}
	out.Conn = role(under, c.base(func(cs tls.ConnectionState) (err error) {
		out.peer, err = check(cs) // a claim; out leaves here only when it is proven
		return err
	}))
	if err := c.run(ctx, out.Conn); err != nil {
		linger(under)
		return nil, fmt.Errorf("tls with %s: %w", conn.RemoteAddr(), err)
	}
	under.proven = true
	return out, nil
}

func (c Config) run(ctx context.Context, conn *tls.Conn) error {
	if c.Identity == nil {
		return errors.New("Config.Identity is missing")
	}
	hctx, limit := ctx, cmp.Or(c.HandshakeTimeout, defaultHandshakeTimeout)
	if limit > 0 {
		var cancel context.CancelFunc
		hctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	if err := conn.HandshakeContext(hctx); err != nil {
		return handshakeError(ctx, hctx, limit, err)
	}
	return nil
}

// handshakeError says which clock ran out, and which side refused.
func handshakeError(ctx, hctx context.Context, limit time.Duration, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("handshake: %w (%w)", os.ErrDeadlineExceeded, ctx.Err())
	case ctx.Err() != nil:
		return fmt.Errorf("handshake: %w", ctx.Err())
	case hctx.Err() != nil:
		return fmt.Errorf("handshake not finished after %s: %w", limit, os.ErrDeadlineExceeded)
	case isAlert(err):
		return fmt.Errorf("handshake: %w: %w", ErrRefused, err)
	default:
		return fmt.Errorf("handshake: %w", err)
	}
}

const (
	lingerTime  = 200 * time.Millisecond
	lingerBytes = 64 << 10
)

// linger closes a connection on which our alert may be under way. Closing a
// TCP socket that holds unread bytes resets it, and a reset overtakes the
// alert: the peer would read "connection reset" where we told it why. So what
// an eager peer has sent by then is read and dropped, for a moment.
func linger(under *carrier) {
	defer func() { _ = under.Close() }()
	half, ok := under.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || under.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, under.Conn, lingerBytes)
}
