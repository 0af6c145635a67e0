package carriertest

import (
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
	// Name is the carrier's in subtests and in the table.
	Name string
	// Make gives a device its ends of the carrier, so that all devices of a site
	// can dial each other. It is called from several goroutines, and in a process
	// of its own for the rows of a killed process. ctx bounds the call only.
	Make func(ctx context.Context, site *Site, id *identity.Identity, trust *identity.Trust) (*Endpoint, error)
	// Adopted has the test dial and accept by itself and give both ends to
	// ConnectionManager.AddConn, in place of a manager that does so.
	Adopted bool
	// OneProcess says that two processes cannot meet: no process is killed.
	OneProcess bool
}

// Endpoint is one device's ends of a carrier.
type Endpoint struct {
	Dialer    peerlink.Dialer
	Listeners []peerlink.Listener // one at least
	// Close gives back what the Listeners' Close does not: nil if that is nothing.
	Close func() error
}

// device is one device of a world.
type device struct {
	*peerlink.ConnectionManager
	id    *identity.Identity
	trust *identity.Trust
	end   *Endpoint
	once  sync.Once
}

// join makes a device. Its manager watches no network and closes no idle link.
func (c Carrier) join(ctx context.Context, site *Site, id *identity.Identity, link multiplex.Config) (*device, error) {
	d := &device{id: id, trust: new(identity.Trust)}
	var err error
	if d.end, err = c.Make(ctx, site, id, d.trust); err != nil {
		return nil, fmt.Errorf("make: %w", err)
	}
	cfg := peerlink.Config{Identity: id, Trust: d.trust, Network: peerlink.IgnoreNetwork, IdleTimeout: -1, Link: link}
	if !c.Adopted {
		cfg.Dialers, cfg.Listeners = []peerlink.Dialer{d.end.Dialer}, d.end.Listeners
	}
	d.ConnectionManager, err = peerlink.New(cfg)
	return d, err
}

// release closes the carrier, as an account does after its manager. Later calls do
// nothing.
func (d *device) release() (err error) {
	d.once.Do(func() {
		for _, l := range d.end.Listeners {
			err = errors.Join(err, l.Close())
		}
		if d.end.Close != nil {
			err = errors.Join(err, d.end.Close())
		}
	})
	return err
}

func (d *device) leave() {
	_ = d.Close()
	_ = d.release()
}

// world is two devices with a link between them.
type world struct {
	carrier          Carrier
	site             *Site
	caller, acceptor *device // of the link
}

// newWorld makes two devices; bounds are those of their links.
func newWorld(ctx context.Context, c Carrier, bounds [2]multiplex.Config) (*world, error) {
	site, err := newSite()
	w := &world{carrier: c, site: site}
	for i, at := range []**device{&w.caller, &w.acceptor} {
		var id *identity.Identity
		if err == nil {
			id, err = identity.Generate("device")
		}
		if err == nil {
			*at, err = c.join(ctx, site, id, bounds[i])
		}
	}
	return w, err
}

// close ends the devices and the site.
func (w *world) close() {
	var all sync.WaitGroup
	for _, d := range []*device{w.caller, w.acceptor} {
		if d != nil && d.ConnectionManager != nil {
			all.Go(d.leave)
		}
	}
	all.Wait()
	_ = w.site.close()
}

// link makes the link: by a channel, or by both ends of a stream.
func (w *world) link(ctx context.Context) error {
	if w.carrier.Adopted {
		return adopt(ctx, w.caller, w.acceptor)
	}
	p, err := open(ctx, w.caller, w.acceptor, "link", peerlink.Reuse)
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	return errors.Join(p.opened.Close(), p.accepted.Close(), p.listener.Close())
}

// adopt has two devices meet without their managers, and gives these the stream.
func adopt(ctx context.Context, caller, acceptor *device) error {
	a, b, err := meet(ctx, caller, acceptor)
	if err != nil {
		return err
	}
	there := make(chan error, 1)
	go func() {
		_, err := acceptor.AddConn(ctx, b, caller.id.Peer(), peerlink.Inbound)
		there <- err
	}()
	_, err = caller.AddConn(ctx, a, acceptor.id.Peer(), peerlink.Outbound)
	return errors.Join(err, <-there)
}

// met is what an Accept brought.
type met struct {
	conn net.Conn
	peer identity.Peer
	err  error
}

// accept waits for the next stream of any listener of a device.
func accept(ctx context.Context, d *device) <-chan met {
	ctx, cancel := context.WithCancel(ctx)
	first := make(chan met, 1)
	var all sync.WaitGroup
	for _, l := range d.end.Listeners {
		all.Go(func() {
			conn, peer, err := l.Accept(ctx)
			select {
			case first <- met{conn, peer, err}:
				cancel()
			default:
				if err == nil {
					_ = conn.Close()
				}
			}
		})
	}
	out := make(chan met, 1)
	go func() {
		all.Wait()
		cancel()
		out <- <-first
	}()
	return out
}

// meet dials from one device to another, and returns both ends. Each end must have
// proven the other device.
func meet(ctx context.Context, caller, acceptor *device) (near, far net.Conn, err error) {
	there := accept(ctx, acceptor)
	near, peer, err := caller.end.Dialer.Dial(ctx, acceptor.id.DeviceID())
	if err != nil {
		return nil, nil, fmt.Errorf("dial: %w", err)
	}
	select {
	case m := <-there:
		switch {
		case m.err != nil:
			err = fmt.Errorf("accept: %w", m.err)
		case peer.Device != acceptor.id.DeviceID() || m.peer.Device != caller.id.DeviceID():
			err = fmt.Errorf("dialled %s and proved %s, accepted %s of %s",
				acceptor.id.DeviceID().Short(), peer.Device.Short(), m.peer.Device.Short(), caller.id.DeviceID().Short())
		}
		return near, m.conn, err
	case <-ctx.Done():
		return near, nil, fmt.Errorf("dialled, and never accepted: %w", context.Cause(ctx))
	}
}

// pair is a channel.
type pair struct {
	opened, accepted *channel.Socket
	listener         net.Listener // that accepted it
}

// open opens a channel and accepts it.
func open(ctx context.Context, from, to *device, name string, mode peerlink.ConnectMode) (*pair, error) {
	l, err := to.Listen("carriertest://" + name)
	if err != nil {
		return nil, err
	}
	p := &pair{listener: l}
	if p.opened, err = ask(ctx, from, to, name, mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	conn, err := l.Accept() // it was accepted before the answer
	if err != nil {
		return nil, err
	}
	p.accepted = conn.(*channel.Socket)
	return p, bound(ctx, p.opened, p.accepted)
}

// ask opens a channel. All that is done on it ends with ctx.
func ask(ctx context.Context, from, to *device, name string, mode peerlink.ConnectMode) (*channel.Socket, error) {
	c, err := from.ConnectDevice(ctx, to.id.DeviceID(), "carriertest://"+name, peerlink.ConnectOptions{Mode: mode})
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return c, bound(ctx, c)
}

// bound has what is done on channels end with ctx.
func bound(ctx context.Context, cs ...*channel.Socket) (err error) {
	end, _ := ctx.Deadline()
	for _, c := range cs {
		err = errors.Join(err, c.SetDeadline(end))
	}
	return err
}
