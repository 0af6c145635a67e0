package peerlink_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
)

// network is a carrier in memory: net.Pipe between proven devices.
type network struct {
	name    string
	latency time.Duration // of each direction of a stream
	mu      sync.Mutex
	at      map[identity.DeviceID]*port
}

type arrival struct {
	conn net.Conn
	from identity.Peer
}

// port is one device on the network: its Dialer and its Listener.
type port struct {
	net      *network
	id       *identity.Identity
	arrivals chan arrival
	closed   chan struct{}
	once     sync.Once
	dials    func(ctx context.Context) error // asked before each dial; may block or fail
	over     peerlink.Dialer                 // dials in place of net, which is then nil
}

func newNetwork(name string) *network {
	return &network{name: name, at: map[identity.DeviceID]*port{}}
}

func (n *network) port(id *identity.Identity) *port {
	p := &port{net: n, id: id, arrivals: make(chan arrival), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at[id.DeviceID()] = p
	return p
}

func (p *port) Name() string {
	if p.over != nil {
		return p.over.Name()
	}
	return p.net.name
}

func (p *port) Dial(ctx context.Context, peer identity.DeviceID) (net.Conn, identity.Peer, error) {
	if p.dials != nil {
		if err := p.dials(ctx); err != nil {
			return nil, identity.Peer{}, err
		}
	}
	if p.over != nil {
		return p.over.Dial(ctx, peer)
	}
	p.net.mu.Lock()
	to := p.net.at[peer]
	p.net.mu.Unlock()
	if to == nil {
		return nil, identity.Peer{}, errors.New("no such device on the network")
	}
	here, there := net.Pipe()
	here, there = delay(here, p.net.latency), delay(there, p.net.latency)
	select {
	case to.arrivals <- arrival{there, p.id.Peer()}:
		return here, to.id.Peer(), nil
	case <-to.closed:
		_, _ = here.Close(), there.Close()
		return nil, identity.Peer{}, errors.New("connection refused")
	case <-ctx.Done():
		_, _ = here.Close(), there.Close()
		return nil, identity.Peer{}, context.Cause(ctx)
	}
}

func (p *port) Accept(ctx context.Context) (net.Conn, identity.Peer, error) {
	select {
	case a := <-p.arrivals:
		return a.conn, a.from, nil
	case <-p.closed:
		return nil, identity.Peer{}, net.ErrClosed
	case <-ctx.Done():
		return nil, identity.Peer{}, context.Cause(ctx)
	}
}

func (p *port) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// device is a manager and what it was made of.
type device struct {
	*peerlink.ConnectionManager
	id   *identity.Identity
	port *port
}

// newDevice puts a device on the network; change may adjust its Config.
func (n *network) newDevice(t testing.TB, name string, change func(*peerlink.Config)) *device {
	t.Helper()
	id, err := identity.Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	return n.deviceOf(t, id, change)
}

func (n *network) deviceOf(t testing.TB, id *identity.Identity, change func(*peerlink.Config)) *device {
	t.Helper()
	p := n.port(id)
	cfg := peerlink.Config{Identity: id, Dialers: []peerlink.Dialer{p}, Listeners: []peerlink.Listener{p}, Network: peerlink.IgnoreNetwork}
	if change != nil {
		change(&cfg)
	}
	m, err := peerlink.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return &device{m, id, p}
}

// echo serves a pattern by sending back what comes.
func (d *device) echo(t testing.TB, pattern string) {
	t.Helper()
	l, err := d.Listen(pattern)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4096)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// accepted listens on a pattern and hands its channels over.
func (d *device) accepted(t testing.TB, pattern string) <-chan *channel.Socket {
	t.Helper()
	l, err := d.Listen(pattern)
	if err != nil {
		t.Fatal(err)
	}
	c := make(chan *channel.Socket, 1024)
	go func() {
		defer close(c)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c <- conn.(*channel.Socket)
		}
	}()
	return c
}

// exchange proves that a channel carries bytes to an echo and back.
func exchange(t testing.TB, c net.Conn, word string) {
	t.Helper()
	if _, err := fmt.Fprint(c, word); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, len(word))
	for n := 0; n < len(buf); {
		k, err := c.Read(buf[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
	if string(buf) != word {
		t.Fatalf("sent %q, got %q", word, buf)
	}
}
