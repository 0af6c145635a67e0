package localipc

import (
	"context"
	"fmt"
	"net"
	"time"

	"peerlink/identity"
	"peerlink/internal/trace"
)

// Dialer reaches devices that listen on this machine. Set Config before the
// first use. Its methods may be called concurrently. It keeps no goroutine and
// needs no closing.
type Dialer struct {
	Config Config
}

// Name returns "unix", on Windows too.
func (d *Dialer) Name() string { return "unix" }

// Dial connects to a device of this machine and proves both ends; the conn is a
// *Conn. If the device is not here the error matches ErrNotHere, at the cost of
// one look into a folder. It blocks until both sides have agreed, ctx ends or
// HandshakeTimeout is over.
func (d *Dialer) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	start := time.Now()
	p, path, err := d.dial(ctx, peer, streamService)
	if err != nil {
		return nil, identity.Peer{}, err
	}
	conn := newConn(p, path)
	trace.Note(ctx, trace.Secured, "%s in %s", conn.Path(), time.Since(start).Round(time.Microsecond))
	return conn, p.peer, nil
}

// DialUnix is Dial for another service than plain streams, which then owns the
// socket: nothing has been read of it beyond the handshake.
func (d *Dialer) DialUnix(ctx context.Context, service string, peer identity.DeviceID) (*net.UnixConn, identity.Peer, error) {
	if err := checkService(service); err != nil {
		return nil, identity.Peer{}, fmt.Errorf("localipc: %w", err)
	}
	p, _, err := d.dial(ctx, peer, service)
	if err != nil {
		return nil, identity.Peer{}, err
	}
	return p.conn.(*net.UnixConn), p.peer, nil // only a Unix socket is ever found for a service
}

// Devices lists the devices that have announcements in the folder. The
// signatures are verified; whether they still run, and are trusted, only Dial
// tells. The error joins what hid a part of them.
func (d *Dialer) Devices() ([]Device, error) {
	cfg, err := d.Config.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("localipc: %w", err)
	}
	return cfg.devices()
}

func (d *Dialer) dial(ctx context.Context, peer identity.DeviceID, service string) (proven, string, error) {
	cfg, err := d.Config.withDefaults()
	if err == nil && peer.IsZero() {
		err = fmt.Errorf("no device id was dialled")
	}
	if err != nil {
		return proven{}, "", fmt.Errorf("localipc: %w", err)
	}
	raw, path, err := cfg.find(ctx, peer, service)
	if err != nil {
		return proven{}, "", fmt.Errorf("unix to %s: %w", peer.Short(), err)
	}
	p, err := cfg.call(ctx, raw, peer, service)
	if err != nil {
		return proven{}, "", fmt.Errorf("unix to %s: %s: %w", peer.Short(), path, err)
	}
	return p, path, nil
}
