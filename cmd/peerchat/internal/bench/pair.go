package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"peerlink/identity"
	"peerlink/multiplex"
	"peerlink/tlssock"
)

// pair is the near end of a connection that carries streams. Its far end
// serves them, in this process.
type pair struct {
	dial    func(ctx context.Context) (net.Conn, error) // one more stream
	far     *far
	closing func() // ends the connections beneath and waits for who accepts
	once    sync.Once
}

// open opens a stream for a task. It blocks until the far end has echoed the
// first byte.
func (p *pair) open(ctx context.Context, t task) (net.Conn, error) {
	conn, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	b := [1]byte{byte(t)}
	if _, err = conn.Write(b[:]); err == nil {
		_, err = io.ReadFull(conn, b[:])
	}
	if err == nil && b[0] != byte(t) {
		err = errWrong
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("first byte of a stream: %w", err)
	}
	return conn, nil
}

// close ends the pair and waits for its goroutines. It may be called from
// anywhere and more than once.
func (p *pair) close() {
	p.once.Do(func() {
		p.closing()
		p.far.close()
	})
}

// channels is a pair of this project: multiplex over TLS over loopback TCP.
func channels(ctx context.Context) (*pair, error) {
	t, err := newTCP(ctx)
	if err != nil {
		return nil, err
	}
	defer t.close()
	near, there, err := t.connect(ctx,
		func(ctx context.Context, c net.Conn) (net.Conn, error) {
			return hidden(tlssock.Client(ctx, c, t.caller, t.callee.DeviceID()))
		},
		func(ctx context.Context, c net.Conn) (net.Conn, error) {
			return hidden(tlssock.Server(ctx, c, t.callee, nil))
		})
	if err != nil {
		return nil, err
	}
	client, server, f := multiplex.Client(near, multiplex.Config{}), multiplex.Server(there, multiplex.Config{}), &far{}
	f.life.Go(func(context.Context) {
		for {
			r, err := server.Accept(context.Background()) // ends with the link
			if err != nil {
				return
			}
			if c, err := r.Accept(); err == nil {
				f.serve(c)
			}
		}
	})
	return &pair{
		dial: func(ctx context.Context) (net.Conn, error) { return hidden(client.OpenEarly(ctx, "bench://")) },
		far:  f,
		closing: func() {
			_ = client.Close()
			_ = server.Close()
		},
	}, nil
}

// hidden makes an interface of a pointer that may be nil.
func hidden[C net.Conn](c C, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

// rawTLS is the yardstick: crypto/tls with the same keys and settings. Each
// stream is a connection.
func rawTLS(ctx context.Context) (*pair, error) {
	t, err := newTCP(ctx)
	if err != nil {
		return nil, err
	}
	r := &rawConns{tcp: t}
	return &pair{dial: r.dial, far: &r.far, closing: r.close}, nil
}

// rawConns are the connections of the yardstick.
type rawConns struct {
	*tcp
	far      far
	dialling sync.Mutex // one at a time takes the connection that it has dialled
	conns    openConns  // those of TCP: TLS's good-bye would wait for a Write that is stuck
}

func (r *rawConns) dial(ctx context.Context) (net.Conn, error) {
	shake := func(role func(net.Conn, *tls.Config) *tls.Conn, cfg *tls.Config) func(context.Context, net.Conn) (net.Conn, error) {
		return func(ctx context.Context, c net.Conn) (net.Conn, error) {
			conn := role(c, cfg)
			return conn, conn.HandshakeContext(ctx)
		}
	}
	r.dialling.Lock()
	defer r.dialling.Unlock()
	near, there, err := r.connect(ctx,
		shake(tls.Client, tlssock.Config{Identity: r.caller}.ClientTLS(r.callee.DeviceID())),
		shake(tls.Server, tlssock.Config{Identity: r.callee}.ServerTLS()))
	if err != nil {
		return nil, err
	}
	_, err1 := r.conns.add(near.(*tls.Conn).NetConn(), nil)
	_, err2 := r.conns.add(there.(*tls.Conn).NetConn(), nil)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	r.far.serve(there)
	return near, nil
}

func (r *rawConns) close() {
	r.tcp.close()
	r.conns.close()
}

// tcp makes connections over loopback between two devices.
type tcp struct {
	caller, callee *identity.Identity
	listener       net.Listener
}

func newTCP(ctx context.Context) (*tcp, error) {
	caller, err1 := identity.Generate("caller")
	callee, err2 := identity.Generate("callee")
	l, err3 := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err := errors.Join(err1, err2, err3); err != nil {
		if l != nil {
			_ = l.Close()
		}
		return nil, err
	}
	return &tcp{caller: caller, callee: callee, listener: l}, nil
}

func (t *tcp) close() { _ = t.listener.Close() }

// accept takes the connection from an address, and no stranger's.
func (t *tcp) accept(from net.Addr) (net.Conn, error) {
	for {
		c, err := t.listener.Accept()
		if err != nil || c.RemoteAddr().String() == from.String() {
			return c, err
		}
		_ = c.Close()
	}
}

// connect makes one connection and shakes hands on both ends. Calls must not
// run at once: each takes the connection that it has dialled.
func (t *tcp) connect(ctx context.Context, client, server func(context.Context, net.Conn) (net.Conn, error)) (near, there net.Conn, err error) {
	a, err := new(net.Dialer).DialContext(ctx, "tcp", t.listener.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	b, err := t.accept(a.LocalAddr())
	if err != nil {
		_ = a.Close()
		return nil, nil, err
	}
	var errThere error
	var wg sync.WaitGroup
	wg.Go(func() { there, errThere = server(ctx, b) })
	near, err = client(ctx, a)
	if err != nil {
		_ = a.Close() // ends the other's wait
	}
	wg.Wait()
	if err = errors.Join(err, errThere); err != nil {
		_ = a.Close()
		_ = b.Close()
		return nil, nil, fmt.Errorf("loopback: %w", err)
	}
	return near, there, nil
}
