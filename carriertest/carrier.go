package carriertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
)

// Carrier says how a test makes its devices.
type Carrier struct {
	// Name is the carrier's in the table.
	Name string
	// Make gives a device its ends of the carrier, so that all devices of a site
	// can dial each other. It is called from several goroutines, and in a second
	// process for a way of ending. ctx bounds the call only.
	Make func(ctx context.Context, site *Site, id *identity.Identity, trust *identity.Trust) (*Endpoint, error)
	// Adopted has the test itself dial and accept, and give both ends to
	// ConnectionManager.AddConn.
	Adopted bool
	// OneProcess says that two processes cannot meet: none is killed.
	OneProcess bool
}

// Endpoint is one device's ends of a carrier.
type Endpoint struct {
	Dialer    peerlink.Dialer
	Listeners []peerlink.Listener // one at least
	// Close gives back what the Listeners' Close does not; nil: there is nothing.
	Close func() error
}

// device is one device of a world.
type device struct {
	*peerlink.ConnectionManager // nil in a bare world
	id                          *identity.Identity
	trust                       *identity.Trust
	end                         *Endpoint
	once                        sync.Once
}

// join makes a device without a manager.
func (c Carrier) join(ctx context.Context, site *Site) (*device, error) {
	id, err := identity.Generate("device")
	if err != nil {
		return nil, err
	}
	d := &device{id: id, trust: new(identity.Trust)}
	if d.end, err = c.Make(ctx, site, id, d.trust); err != nil {
		return nil, fmt.Errorf("make: %w", err)
	}
	return d, nil
}

// manage gives a device a manager, which watches no network and keeps idle links.
// Its links have more than a second to close, unless they were given less: what a
// busy machine does not bring in a second is not lost.
func (c Carrier) manage(d *device, link multiplex.Config) (err error) {
	link.CloseTimeout = cmp.Or(link.CloseTimeout, closeTimeout)
	cfg := peerlink.Config{Identity: d.id, Trust: d.trust, Network: peerlink.IgnoreNetwork, IdleTimeout: -1, Link: link}
	if !c.Adopted {
		cfg.Dialers, cfg.Listeners = []peerlink.Dialer{d.end.Dialer}, d.end.Listeners
	}
	d.ConnectionManager, err = peerlink.New(cfg)
	return err
}

const closeTimeout = patience / 2

// release closes the carrier, as an account does after its manager. What Close
// returns is not asked: it may be that the manager has closed the Listener before.
func (d *device) release() {
	d.once.Do(func() {
		for _, l := range d.end.Listeners {
			_ = l.Close()
		}
		if d.end.Close != nil {
			_ = d.end.Close()
		}
	})
}

// world is two devices.
type world struct {
	carrier          Carrier
	site             *Site
	caller, acceptor *device // of the link between them
}

// bare makes two devices without managers.
func (c Carrier) bare(ctx context.Context) (w *world, err error) {
	w = &world{carrier: c}
	if w.site, err = newSite(); err != nil {
		return w, err
	}
	if w.caller, err = c.join(ctx, w.site); err == nil {
		w.acceptor, err = c.join(ctx, w.site)
	}
	return w, err
}

// world makes two devices with managers and a link.
func (c Carrier) world(ctx context.Context, bounds [2]multiplex.Config) (*world, error) {
	w, err := c.bare(ctx)
	if err != nil {
		return w, err
	}
	if err := errors.Join(c.manage(w.caller, bounds[caller]), c.manage(w.acceptor, bounds[acceptor])); err != nil {
		return w, err
	}
	if c.Adopted {
		return w, w.adopt(ctx)
	}
	p, err := open(ctx, w.caller, w.acceptor, "link", peerlink.Reuse)
	if err != nil {
		return w, err
	}
	return w, errors.Join(p.opened.Close(), p.accepted.Close(), p.listener.Close())
}

// close ends the devices and the site.
func (w *world) close() {
	for _, d := range []*device{w.caller, w.acceptor} {
		if d != nil && d.ConnectionManager != nil {
			_ = d.Close()
		}
		if d != nil {
			d.release()
		}
	}
	if w.site != nil {
		w.site.close()
	}
}

// adopt makes a stream and gives its ends to the managers.
func (w *world) adopt(ctx context.Context) error {
	near, far, err := w.meet(ctx)
	if err != nil {
		return err
	}
	there := make(chan error, 1)
	go func() {
		_, err := w.acceptor.AddConn(ctx, far, w.caller.id.Peer(), peerlink.Inbound)
		there <- err
	}()
	_, err = w.caller.AddConn(ctx, near, w.acceptor.id.Peer(), peerlink.Outbound)
	return errors.Join(err, <-there)
}

// met is what an Accept brought.
type met struct {
	conn net.Conn
	peer identity.Peer
	err  error
}

// accept waits for the next stream of any listener of a device.
func (d *device) accept(ctx context.Context) <-chan met {
	c := make(chan met, len(d.end.Listeners))
	for _, l := range d.end.Listeners {
		go func() {
			conn, peer, err := l.Accept(ctx)
			c <- met{conn, peer, err}
		}()
	}
	return c
}

// meet makes a stream and returns both ends. Each must have proven the other device.
func (w *world) meet(ctx context.Context) (near, far net.Conn, err error) {
	there := w.acceptor.accept(ctx)
	near, peer, err := w.caller.end.Dialer.Dial(ctx, w.acceptor.id.DeviceID())
	if err != nil {
		return nil, nil, fmt.Errorf("dial: %w", err)
	}
	select {
	case m := <-there:
		if m.err != nil {
			return nil, nil, fmt.Errorf("accept: %w", m.err)
		}
		if peer.Device != w.acceptor.id.DeviceID() || m.peer.Device != w.caller.id.DeviceID() {
			return nil, nil, errors.New("another device was proven than the one at the far end")
		}
		return near, m.conn, nil
	case <-ctx.Done():
		return nil, nil, errors.New("dialled, and never accepted")
	}
}

// pair is both ends of a channel, and the listener that accepted it.
type pair struct {
	opened, accepted *channel.Socket
	listener         net.Listener
}

// open opens a channel and accepts it.
func open(ctx context.Context, from, to *device, name string, mode peerlink.ConnectMode) (p pair, err error) {
	if p.listener, err = to.Listen(scheme + name); err != nil {
		return p, err
	}
	if p.opened, err = ask(ctx, from, to.id.DeviceID(), name, mode); err != nil {
		return p, err
	}
	p.accepted, err = take(ctx, p.listener) // it was accepted before the answer
	return p, err
}

const scheme = "carriertest://"

// ask opens a channel, on which everything ends with ctx.
func ask(ctx context.Context, from *device, to identity.DeviceID, name string, mode peerlink.ConnectMode) (*channel.Socket, error) {
	c, err := from.ConnectDevice(ctx, to, scheme+name, peerlink.ConnectOptions{Mode: mode})
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return c, bound(ctx, c)
}

// take accepts a channel, on which everything ends with ctx.
func take(ctx context.Context, l net.Listener) (*channel.Socket, error) {
	conn, err := l.Accept()
	if err != nil {
		return nil, err
	}
	return conn.(*channel.Socket), bound(ctx, conn)
}

// bound has what is done on a connection end with ctx.
func bound(ctx context.Context, c net.Conn) error {
	end, _ := ctx.Deadline()
	return c.SetDeadline(end)
}
