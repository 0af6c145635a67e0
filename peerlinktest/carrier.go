package peerlinktest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"

	"peerlink"
	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/tlssock"
)

// Carrier is what the peers of a network reach each other by: one in memory, or
// one of package loopback, or a program's own.
type Carrier struct {
	// Name is that of its dialers and listeners.
	Name string
	// Open returns a device's dialer and listener. It is called once for each peer
	// of a network, on the test's goroutine. The peer's manager closes the listener;
	// what Open makes besides, it closes by t.Cleanup, which comes later. A nil Open is
	// a carrier in memory.
	Open func(t testing.TB, id *identity.Identity, trust *identity.Trust) (peerlink.Dialer, peerlink.Listener, error)

	shaped bool
}

// InMemory returns a carrier in memory: streams with datagrams, shaped by Line, on
// which mutual TLS proves the devices as it does over TCP. Two of them, by other
// names, are two ways between the same peers.
func InMemory(name string) Carrier { return Carrier{Name: name} }

// Shaped returns the carrier with streams that obey the network, as those in memory
// do anyway. They go through memory on the dialling side, above the carrier: they
// have no datagrams and none of its shortcuts, and ConnectAddr does not use them.
// The carrier itself goes on: ICE keeps sending its checks while the network is cut.
func (c Carrier) Shaped() Carrier {
	c.shaped = true
	return c
}

// obeys reports whether the network shapes the carrier's streams.
func (c Carrier) obeys() bool { return c.Open == nil || c.shaped }

// of returns a peer's dialer and listener.
func (c Carrier) of(p *Peer) (peerlink.Dialer, peerlink.Listener, error) {
	if c.Open == nil {
		port := newPort(c.Name, p)
		return port, port, nil
	}
	d, l, err := c.Open(p.f.t, p.Identity, p.Trust)
	if c.shaped {
		d = shapedDialer{d, p.f, c.Name, p.Name}
	}
	return d, l, err
}

type portKey struct {
	carrier string
	device  identity.DeviceID
}

// port is a peer on a carrier in memory: its dialer and its listener.
type port struct {
	f       *fabric
	carrier string
	name    string
	proof   tlssock.Config
	ready   chan *conn
	life    life.Group
}

func newPort(carrier string, p *Peer) *port {
	port := &port{f: p.f, carrier: carrier, name: p.Name, ready: make(chan *conn), proof: tlssock.Config{Identity: p.Identity, Trust: p.Trust}}
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.f.ports[portKey{carrier, p.ID()}] = port
	return port
}

// conn is a proven stream with the datagrams of the one below.
type conn struct {
	*tlssock.Conn
	below *stream
}

func (c *conn) SendDatagram(p []byte) error { return c.below.SendDatagram(p) }

func (c *conn) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	return c.below.ReceiveDatagram(ctx)
}

func (c *conn) MaxDatagram() int { return maxDatagram }

// Name is the carrier's.
func (p *port) Name() string { return p.carrier }

// Dial reaches a peer as TCP and TLS do: one round trip each, and waiting as long
// as the lines are cut.
func (p *port) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	c, err := p.dial(ctx, peer)
	if err != nil {
		return nil, identity.Peer{}, fmt.Errorf("%s to %s: %w", p.carrier, peer.Short(), err)
	}
	return c, c.Peer(), nil
}

var errNoSuchDevice = errors.New("the device is not on the network")

func (p *port) dial(ctx context.Context, peer identity.DeviceID) (*conn, error) {
	f := p.f
	f.mu.Lock()
	to := f.ports[portKey{p.carrier, peer}]
	f.mu.Unlock()
	if to == nil {
		return nil, errNoSuchDevice
	}
	if err := f.cross(ctx, p.carrier, p.name, to.name); err != nil {
		return nil, err
	}
	here, there := f.pipe(p.carrier, p.name, to.name)
	taken := to.take(there)
	if err := f.cross(ctx, p.carrier, to.name, p.name); err != nil {
		_ = here.Close()
		return nil, err
	}
	if !taken {
		_ = here.Close()
		return nil, syscall.ECONNREFUSED
	}
	c, err := p.proof.Client(ctx, here, peer)
	if err != nil {
		return nil, err
	}
	return &conn{c, here}, nil
}

// take has the caller at a stream's other end prove itself.
func (p *port) take(s *stream) bool {
	taken := p.life.Go(func(ctx context.Context) {
		c, err := p.proof.Server(ctx, s)
		if err != nil {
			return
		}
		select {
		case p.ready <- &conn{c, s}:
		case <-ctx.Done():
			_ = c.Close()
		}
	})
	if !taken {
		_ = s.Close()
	}
	return taken
}

// Accept returns the next proven stream.
func (p *port) Accept(ctx context.Context) (net.Conn, identity.Peer, error) {
	select {
	case c := <-p.ready:
		return c, c.Peer(), nil
	case <-p.life.Done():
		return nil, identity.Peer{}, fmt.Errorf("%s: accept: %w", p.carrier, net.ErrClosed)
	case <-ctx.Done():
		return nil, identity.Peer{}, fmt.Errorf("%s: accept: %w", p.carrier, context.Cause(ctx))
	}
}

// StopAccepting is Close: streams need nothing of their listener.
func (p *port) StopAccepting() { p.life.Close() }

// Close refuses callers from now on, and ends the proofs under way.
func (p *port) Close() error {
	p.life.Close()
	return nil
}
