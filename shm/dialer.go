package shm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"peerlink/identity"
	"peerlink/internal/trace"
)

// Dialer reaches devices of this machine through shared memory. Set its fields
// before the first use. Its methods may be called concurrently. It keeps no
// goroutine and needs no closing.
type Dialer struct {
	// Local makes the sockets; it is required.
	Local  LocalDialer
	Config Config
}

// Name returns "shm".
func (d *Dialer) Name() string { return "shm" }

// Dial connects to a device of this machine; the conn is a *Conn. It fails as
// Local does if the device is not here, and with errors.ErrUnsupported on
// systems without this carrier. It blocks until the memory is mapped on both
// sides, ctx ends or HandshakeTimeout is over.
func (d *Dialer) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	start := time.Now()
	conn, err := d.dial(ctx, peer)
	if err != nil {
		return nil, identity.Peer{}, fmt.Errorf("shm to %s: %w", peer.Short(), err)
	}
	trace.Note(ctx, trace.Secured, "%s in %s", conn.Path(), time.Since(start).Round(time.Microsecond))
	return conn, conn.peer, nil
}

func (d *Dialer) dial(ctx context.Context, peer identity.DeviceID) (*Conn, error) {
	if err := supported(); err != nil {
		return nil, err
	}
	cfg, err := d.Config.withDefaults()
	if err != nil {
		return nil, err
	}
	if d.Local == nil {
		return nil, errors.New("Dialer.Local is missing: it makes the sockets")
	}
	raw, who, err := d.Local.DialUnix(ctx, Service, peer)
	if err != nil {
		return nil, err
	}
	return cfg.ask(ctx, raw, who)
}
