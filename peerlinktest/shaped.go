package peerlinktest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"peerlink"
	"peerlink/identity"
)

// shapedDialer has the streams of a carrier go through the network.
type shapedDialer struct {
	peerlink.Dialer
	f             *fabric
	carrier, name string
}

// Dial takes a round trip longer than the carrier does, and waits as long as the
// lines are cut.
func (d shapedDialer) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	to := d.f.nameOf(peer)
	for _, way := range [][2]string{{d.name, to}, {to, d.name}} {
		if err := d.f.cross(ctx, d.carrier, way[0], way[1]); err != nil {
			return nil, identity.Peer{}, err
		}
	}
	c, p, err := d.Dialer.Dial(ctx, peer)
	if err != nil {
		return nil, p, err
	}
	here, there := d.f.pipe(d.carrier, d.name, to)
	d.f.serves.Go(func() { join(there, c) })
	return shaped{here, here, c}, p, nil
}

// nameOf returns the name of a peer by its device; empty: it has none.
func (f *fabric) nameOf(id identity.DeviceID) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.peers {
		if p.ID() == id {
			return p.Name
		}
	}
	return ""
}

// shaped is the dialling end of such a stream. It has no datagrams.
type shaped struct {
	net.Conn
	here *stream
	c    net.Conn
}

// CloseWrite ends this direction.
func (s shaped) CloseWrite() error { return s.here.CloseWrite() }

// Path is the carrier's, if it tells one.
func (s shaped) Path() peerlink.Path {
	if c, ok := s.c.(interface{ Path() peerlink.Path }); ok {
		return c.Path()
	}
	return s.here.Path()
}

// join passes on what comes at one of two streams to the other, and how it ends.
func join(s *stream, c net.Conn) {
	var out sync.WaitGroup
	out.Go(func() {
		_, err := io.Copy(c, s)
		half, ok := c.(interface{ CloseWrite() error })
		switch {
		case err != nil:
			s.breakOff(err)
			breakOff(c)
		case s.over() || !ok || half.CloseWrite() != nil:
			_ = c.Close()
		}
	})
	if _, err := io.Copy(s, c); err == nil {
		_ = s.CloseWrite()
	} else if !errors.Is(err, net.ErrClosed) {
		s.breakOff(err)
	}
	out.Wait()
	_, _ = s.Close(), c.Close()
}

// breakOff ends a stream without a word, below TLS if there is something.
func breakOff(c net.Conn) {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok {
		below := over.NetConn()
		if tcp, ok := below.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // so that it is a reset
		}
		_ = below.Close()
	}
	_ = c.Close()
}
