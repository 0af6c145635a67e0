package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"peerlink"
	"peerlink/cmd/peerchat/internal/contacts"
	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/forward"
	"peerlink/identity"
)

// ForwardsFile are the rules for forwards, in the account's folder (package
// forward). It is replaced whole.
const ForwardsFile = "forwards.json"

// openForwards reads the rules and serves them.
func (d *Daemon) openForwards() (err error) {
	if d.rules, err = forward.OpenRules(filepath.Join(d.acc.Dir(), ForwardsFile)); err != nil {
		return err
	}
	m := d.acc.ConnectionManager()
	l, err := m.Listen(forward.Pattern)
	if err != nil {
		return err
	}
	d.forwards = forward.NewServer(forward.Config{
		Rules: d.rules, Logger: d.log,
		Open: func(ctx context.Context, device identity.DeviceID, uri string) (net.Conn, error) {
			c, err := m.ConnectDevice(ctx, device, uri, peerlink.ConnectOptions{Mode: peerlink.OnlyIfConnected})
			if err != nil { // and not a nil *Socket in an interface
				return nil, err
			}
			return c, nil
		},
		PeerOf: func(c net.Conn) (identity.Peer, string, bool) {
			peer, ok := peerlink.PeerOf(c)
			named, has := c.(interface{ URI() string })
			if !ok || !has {
				return identity.Peer{}, "", false
			}
			return peer, named.URI(), true
		},
		Contact: func(p identity.Peer) (identity.DeviceID, bool) {
			c, ok := d.contacts.OfPeer(p)
			return c.Device, ok
		},
		AtHome: d.contacts.atHome,
	})
	d.onClose(d.forwards.Close)
	d.life.Go(func(context.Context) {
		if err := d.forwards.Serve(l); err != nil {
			d.log.Error("forwards are served no more", "err", err)
		}
	})
	return nil
}

// changeForwards changes the rules, if it is asked to, and answers them.
func (d *Daemon) changeForwards(_ context.Context, ch control.ForwardChange) (all control.ForwardRules, err error) {
	err = d.changeRule(ch)
	if ch.Do != "" {
		d.contacts.changed.Ring()
	}
	if err != nil {
		if errors.Is(err, contacts.ErrUnknown) || errors.Is(err, forward.ErrNoRule) {
			err = notThere(err)
		}
		return all, err
	}
	all.Rules = []control.ForwardRule{}
	for _, r := range d.rules.List() {
		all.Rules = append(all.Rules, control.ForwardRule{Device: r.Device, Contact: d.contacts.NameOf(r.Device), May: r.Do, Addr: r.Addr})
	}
	return all, nil
}

// changeRule does what a command asks for; nothing for "". What a removed rule
// allowed ends at once.
func (d *Daemon) changeRule(ch control.ForwardChange) error {
	if ch.Do == "" {
		return nil
	}
	device, err := d.contacts.Resolve(ch.Who)
	if err != nil {
		return err
	}
	rule := forward.Rule{Device: device, Do: ch.May, Addr: ch.Addr}
	switch ch.Do {
	case "allow":
		return d.rules.Allow(rule)
	case "remove":
		err := d.rules.Remove(rule)
		if err == nil {
			d.forwards.Recheck()
		}
		return err
	}
	return fmt.Errorf("rules for forwards cannot be %.40q", ch.Do)
}
