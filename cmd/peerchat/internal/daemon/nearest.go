package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/cmd/peerchat/internal/contacts"
	"peerlink/identity"
)

const (
	// nextDevice is how long a device has to be reached until the next one is
	// tried as well: twice what a call through the network takes as a rule.
	nextDevice = 500 * time.Millisecond
	// maxReaching is how many of a contact's devices are being reached at once.
	maxReaching = 4
)

// errNoDevice says that there is nobody to call.
var errNoDevice = errors.New("each known device of the contact is banned or revoked")

// connectAny opens a channel to the nearest device of a contact that takes it:
// those to which there is a link are asked first, then those of this machine,
// then the others, the one seen last first; a device that does not answer does
// not keep the next one waiting. first is the device that the contact was added
// with; one that is no contact's is connected to itself. No two devices are asked
// for the channel at once. With opts.Mode OnlyIfConnected only links that exist
// are used. The error tells of each device that was tried and matches what the
// devices' errors match.
func (d *Daemon) connectAny(ctx context.Context, first identity.DeviceID, uri string, opts peerlink.ConnectOptions) (*channel.Socket, error) {
	c, err := d.contacts.Find(first.String())
	if err != nil {
		return d.dial(ctx, first, uri, opts)
	}
	order, err := d.order(c)
	switch {
	case err != nil:
		return nil, err
	case len(order) == 1:
		return d.dialOf(ctx, c, order[0], uri, opts)
	}
	n := nearest{d: d, of: c, uri: uri, opts: opts}
	return n.connect(ctx, order)
}

// dial opens a channel to one device and keeps the story of how it was reached. One
// that a contact was added with, and that has come into another account, is not told
// anything.
func (d *Daemon) dial(ctx context.Context, to identity.DeviceID, uri string, opts peerlink.ConnectOptions) (*channel.Socket, error) {
	sock, err := d.acc.ConnectionManager().ConnectDevice(d.reporting(ctx, to), to, uri, opts)
	if err != nil {
		return nil, d.contacts.ofContact(to, err)
	}
	p, _ := peerlink.PeerOf(sock)
	if err := d.contacts.displaced(p); err != nil {
		unwanted(sock)
		return nil, err
	}
	return sock, nil
}

// dialOf is dial for any of a contact's devices.
func (d *Daemon) dialOf(ctx context.Context, c contacts.Contact, to identity.DeviceID, uri string, opts peerlink.ConnectOptions) (*channel.Socket, error) {
	sock, err := d.dial(ctx, to, uri, opts)
	if err != nil {
		return nil, err
	}
	p, _ := peerlink.PeerOf(sock)
	if now, ok := d.contacts.OfPeer(p); ok && now.Device == c.Device {
		return sock, nil
	}
	unwanted(sock)
	return nil, movedFrom(c, p)
}

// order returns the contact's devices as they are to be tried.
func (d *Daemon) order(c contacts.Contact) ([]identity.DeviceID, error) {
	known := slices.DeleteFunc(c.Known(), func(k contacts.Device) bool {
		err := d.acc.Trust().Check(identity.Peer{Device: k.Device, Account: c.Lives()})
		return k.Device == d.acc.Identity().DeviceID() || errors.Is(err, identity.ErrBanned)
	})
	if len(known) == 0 {
		return nil, fmt.Errorf("%q: %w: %w", c.Name, errNoDevice, identity.ErrNotTrusted)
	}
	if len(known) > 1 {
		d.sort(known)
	}
	out := make([]identity.DeviceID, len(known))
	for i, k := range known {
		out[i] = k.Device
	}
	return out, nil
}

// sort puts devices with a link first, then those of this machine, then those
// seen last.
func (d *Daemon) sort(known []contacts.Device) {
	here := d.acc.DevicesHere()
	far := map[identity.DeviceID]int{}
	for _, k := range known {
		switch {
		case d.connected(k.Device):
		case here[k.Device]:
			far[k.Device] = 1
		default:
			far[k.Device] = 2
		}
	}
	slices.SortStableFunc(known, func(a, b contacts.Device) int {
		return cmp.Or(cmp.Compare(far[a.Device], far[b.Device]), b.Seen.Compare(a.Seen))
	})
}

// nearest is one call to whichever of a contact's devices takes it.
type nearest struct {
	d    *Daemon
	of   contacts.Contact
	uri  string
	opts peerlink.ConnectOptions
	errs []error
}

// reached is what became of the way to a device.
type reached struct {
	device identity.DeviceID
	err    error
}

// connect asks devices with a link one after the other, and the others as they
// are reached: only the link is made by several at once, as a channel that is
// given back would look like a failure there.
func (n *nearest) connect(ctx context.Context, order []identity.DeviceID) (*channel.Socket, error) {
	var rest []identity.DeviceID
	for _, id := range order {
		if !n.d.connected(id) {
			rest = append(rest, id)
			continue
		}
		if sock := n.ask(ctx, id); sock != nil {
			return sock, nil
		}
	}
	if n.opts.Mode == peerlink.OnlyIfConnected || len(rest) == 0 {
		return nil, n.failed()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan reached, len(rest)) // so that nobody is waited for in vain
	pace := time.NewTimer(0)
	defer pace.Stop()
	for next, under := 0, 0; next < len(rest) || under > 0; {
		tick := pace.C
		if next == len(rest) || under == maxReaching {
			tick = nil
		}
		select {
		case <-tick:
			n.reach(ctx, rest[next], results)
			next, under = next+1, under+1
			pace.Reset(nextDevice)
		case r := <-results:
			under--
			if r.err != nil {
				n.errs = append(n.errs, r.err)
				pace.Reset(0) // the next one need not wait
				continue
			}
			if sock := n.ask(ctx, r.device); sock != nil {
				return sock, nil
			}
		case <-ctx.Done():
			return nil, errors.Join(append(n.errs, context.Cause(ctx))...)
		}
	}
	return nil, n.failed()
}

// reach makes a link, by asking for what every device has, or declines. The lists
// that are exchanged over it keep nobody waiting.
func (n *nearest) reach(ctx context.Context, id identity.DeviceID, done chan<- reached) {
	v := n.d.devices
	begun := v.life.Go(func(context.Context) {
		sock, err := v.m.ConnectDevice(n.d.reporting(ctx, id), id, devicesURI, peerlink.ConnectOptions{Carriers: n.opts.Carriers})
		if err == nil || n.d.connected(id) {
			done <- reached{id, nil}
		} else {
			done <- reached{id, n.d.contacts.ofContact(id, err)}
		}
		if err == nil {
			err = v.exchange(sock)
			v.log.Debug("devices: lists were exchanged", "peer", id, "err", err)
		}
	})
	if !begun {
		done <- reached{id, net.ErrClosed}
	}
}

// ask asks a device for the channel; nil: it did not give it.
func (n *nearest) ask(ctx context.Context, id identity.DeviceID) *channel.Socket {
	sock, err := n.d.dialOf(ctx, n.of, id, n.uri, n.opts)
	if err != nil {
		n.errs = append(n.errs, err)
		return nil
	}
	return sock
}

func (n *nearest) failed() error {
	if len(n.errs) == 0 {
		return fmt.Errorf("no device of %q: %w", n.of.Name, peerlink.ErrNotConnected)
	}
	return fmt.Errorf("no device of %q took %q: %w", n.of.Name, n.uri, errors.Join(n.errs...))
}
