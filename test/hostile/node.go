//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/pion/turn/v3"

	"peerlink/dht"
	"peerlink/identity"
	"peerlink/internal/pause"
	"peerlink/internal/relay"
)

// node are attacks on what a node gives everybody: the DHT and the relay. What devices
// do with it is looked at once each has gone on for a while.
var node = []attack{
	{name: "half-open connections to the DHT", do: halfOpenDHT, then: joins},
	{name: "records of throw-away keys", do: records, then: joins},
	{name: "invites of throw-away keys", do: invites, then: invited},
	{name: "signals of throw-away keys", do: signals, then: called},
	{name: "offers that name somebody else's addresses", do: offers, then: called},
	{name: "half-open connections to the relay", do: halfOpenRelay, then: relayed},
	{name: "allocations of throw-away keys", do: allocations, then: relayed},
}

// member joins the DHT as a device, and is found there.
func (w *world) member(ctx context.Context, as *identity.Identity) (*dht.Node, error) {
	n, err := dht.Start(ctx, dht.Config{Identity: as, Bootstrap: []string{w.bootstrap}})
	if err != nil {
		return nil, err
	}
	if err := n.Ready(ctx); err != nil {
		_ = n.Close()
		return nil, err
	}
	return n, nil
}

// passers have do use the DHT as n devices at once, each soon replaced by another one.
func passers(ctx context.Context, w *world, n int, do func(ctx context.Context, d *dht.Node, r *rand.Rand) error) {
	w.crowd(ctx, n, func(ctx context.Context, r *rand.Rand) error {
		id, err := stranger()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, proveTimeout)
		defer cancel()
		d, err := w.member(ctx, id)
		if err != nil {
			return err
		}
		defer d.Close()
		return do(ctx, d, r)
	})
}

// halfOpenDHT holds far more connections than a node has places for.
func halfOpenDHT(ctx context.Context, w *world, t *tally) {
	p := strings.Split(w.bootstrap, "/") // "", ip4, the address, tcp, the port, p2p, the key
	hold(ctx, 1500, "tcp", net.JoinHostPort(p[2], p[4]), t, nil)
}

// joins checks that a contact joins the DHT anew, and finds the victim there.
func joins(ctx context.Context, w *world, t *tally) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	n, err := w.member(ctx, w.visitor)
	if err == nil {
		defer n.Close()
		_, err = n.Lookup(ctx, w.victim)
	}
	if err != nil {
		t.harmed("a contact does not find the victim in the DHT: %v", err)
	}
}

// records publishes one, and goes.
func records(ctx context.Context, w *world, t *tally) {
	passers(ctx, w, 4, func(context.Context, *dht.Node, *rand.Rand) error {
		t.tried.Add(1)
		return nil
	})
}

// invites takes numbers that people could get for their codes.
func invites(ctx context.Context, w *world, t *tally) {
	passers(ctx, w, 4, func(ctx context.Context, d *dht.Node, r *rand.Rand) error {
		for range 16 {
			t.tried.Add(1)
			if err := d.PublishInvite(ctx, 1+r.IntN(dht.MaxInviteNumber), time.Now().Add(dht.MaxInviteLife)); err != nil {
				return err
			}
		}
		return nil
	})
}

// invited checks that the victim can still invite somebody.
func invited(ctx context.Context, w *world, t *tally) {
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, fmt.Errorf("not within %v", deadline))
	defer cancel()
	p, err := start("contacts invite", w.prog, w.env(), nil, "contacts", "invite", "--account", w.account("victim"), "--timeout", "1m")
	if err == nil {
		defer p.stop()
		_, err = p.line(ctx, `^\D*(\d+-[a-z]+-[a-z]+)`)
	}
	if err != nil {
		t.harmed("no code for a contact: %v", err)
	}
}

// signals sends the victim signals that mean nothing.
func signals(ctx context.Context, w *world, t *tally) {
	passers(ctx, w, 8, func(ctx context.Context, d *dht.Node, r *rand.Rand) error {
		for range 64 {
			b := make([]byte, r.IntN(dht.MaxMessageLen))
			t.tried.Add(1)
			if err := d.Send(ctx, w.victim, b); err != nil {
				return err
			}
		}
		return nil
	})
}

// called checks that a contact reaches the victim through the DHT and ICE.
func called(ctx context.Context, w *world, t *tally) {
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, fmt.Errorf("not within %v", deadline))
	defer cancel()
	if err := w.config("caller", map[string]any{"bootstrap": []string{w.bootstrap}, "local_dir": "off", "loopback": true}); err != nil {
		t.harmed("%v", err)
		return
	}
	if _, err := w.command(ctx, "caller", "hello\n", "chat", "--plain", "--no-daemon", "victim"); err != nil {
		t.harmed("a contact does not reach the victim through the DHT: %v", err)
	}
}

// offers calls the victim and names, as its own, addresses of somebody who never asked
// for anything: this process counts what comes there.
func offers(ctx context.Context, w *world, t *tally) {
	const addresses = 16
	begin := time.Now()
	s, err := newSink(ctx, addresses)
	if err != nil {
		t.harmed("%v", err)
		return
	}
	defer s.wait()
	passers(ctx, w, 4, func(ctx context.Context, d *dht.Node, r *rand.Rand) error {
		for range 8 {
			t.tried.Add(1)
			if err := d.Send(ctx, w.victim, s.offer(r)); err != nil {
				return err
			}
		}
		return nil
	})
	// All strangers together have 256 addresses tried at once, and 64 a second, each by one
	// connect and five checks; twice that is harm.
	most := 2 * (256 + int64(64*time.Since(begin).Seconds()))
	if n := s.connects.Load(); n > most {
		t.harmed("%d TCP connects to others' addresses, at most %d", n, most)
	}
	if n := s.packets.Load(); n > 5*most {
		t.harmed("%d UDP packets to others' addresses, at most %d", n, 5*most)
	}
}

func halfOpenRelay(ctx context.Context, w *world, t *tally) {
	hold(ctx, 1500, "tcp", w.turn, t, nil)
}

// allocations takes relayed ports.
func allocations(ctx context.Context, w *world, t *tally) {
	held, drop := context.WithCancel(ctx)
	defer drop()
	w.crowd(ctx, 4, func(ctx context.Context, _ *rand.Rand) error {
		id, err := stranger()
		if err != nil {
			return err
		}
		pass, err := w.pass(ctx, id)
		if err != nil {
			return err
		}
		for range 8 {
			t.tried.Add(1)
			if err := w.allocate(held, pass); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *world) pass(ctx context.Context, as *identity.Identity) (relay.Pass, error) {
	ctx, cancel := context.WithTimeout(ctx, proveTimeout)
	defer cancel()
	return relay.Fetch(ctx, w.turn, w.nodeKey, as)
}

// allocate takes a relayed port and keeps it until ctx ends.
func (w *world) allocate(ctx context.Context, pass relay.Pass) error {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0") //nolint:noctx // it does not wait
	if err != nil {
		return err
	}
	c, err := turn.NewClient(&turn.ClientConfig{TURNServerAddr: w.turn, STUNServerAddr: w.turn, Conn: conn, Username: pass.Username, Password: pass.Password})
	if err != nil {
		_ = conn.Close()
		return err
	}
	drop := func() {
		c.Close()
		_ = conn.Close()
	}
	if err = c.Listen(); err == nil {
		_, err = c.Allocate()
	}
	if err != nil {
		drop()
		return err
	}
	context.AfterFunc(ctx, drop)
	return nil
}

// relayed checks that a contact gets a relayed port.
func relayed(ctx context.Context, w *world, t *tally) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	var err error
	for ctx.Err() == nil { // as a device does while it connects
		var pass relay.Pass
		if pass, err = w.pass(ctx, w.visitor); err == nil {
			if err = w.allocate(ctx, pass); err == nil {
				return
			}
		}
		_ = pause.For(ctx, time.Second)
	}
	t.harmed("a contact gets no relayed port: %v", err)
}
