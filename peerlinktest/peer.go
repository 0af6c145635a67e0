package peerlinktest

import (
	"context"
	"errors"
	"slices"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
)

// Patience is how long Connect waits, and the end of a test for what it has begun.
const Patience = time.Minute

// Peer is a device on a network, with a manager of its own.
type Peer struct {
	*peerlink.ConnectionManager
	// Name is what the network's methods call it.
	Name string
	// Identity is the device. Its keys were made for this test.
	Identity *identity.Identity
	// Trust says which devices it lets in: all, until the test says otherwise.
	Trust *identity.Trust
	// Config is what the manager was made of.
	Config peerlink.Config

	f *fabric
}

// Peer puts a new device on the network, as a device of an account of its own. A
// change adjusts its Config before the manager is made: callbacks, bounds, further
// carriers; not Identity and Trust, which the carriers have already.
// Config.Network is IgnoreNetwork at first: this machine's network says nothing
// about the one in memory. A name that is taken fails the test.
func (n *Network) Peer(name string, change ...func(*peerlink.Config)) *Peer {
	n.t.Helper()
	if slices.Contains(n.names(), name) {
		n.t.Fatalf("peerlinktest: there is a peer %q already", name)
	}
	id, err := identity.Generate(name)
	if err != nil {
		n.t.Fatalf("peerlinktest: %v", err)
	}
	return n.PeerAs(id, change...)
}

// PeerAs is Peer for an identity that the test made. Its name is the identity's.
// With the identity of a peer that was closed it is that device, started again. In a
// bubble, whose clock begins in 2000, identities are made there, too: certificates
// of today are not valid yet.
func (n *Network) PeerAs(id *identity.Identity, change ...func(*peerlink.Config)) *Peer {
	n.t.Helper()
	p := &Peer{Name: id.Name(), Identity: id, Trust: new(identity.Trust), f: n.fabric}
	p.Config = peerlink.Config{Identity: id, Trust: p.Trust, Network: peerlink.IgnoreNetwork}
	for _, c := range n.all {
		d, l, err := c.of(p)
		if err != nil {
			n.t.Fatalf("peerlinktest: %s for %s: %v", c.Name, p.Name, err)
		}
		p.Config.Dialers, p.Config.Listeners = append(p.Config.Dialers, d), append(p.Config.Listeners, l)
	}
	for _, f := range change {
		f(&p.Config)
	}
	var err error
	if p.ConnectionManager, err = peerlink.New(p.Config); err != nil {
		n.t.Fatalf("peerlinktest: %v", err)
	}
	n.t.Cleanup(p.end)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.peers = append(slices.DeleteFunc(n.peers, func(old *Peer) bool { return old.Name == p.Name }), p)
	return p
}

// ID returns the device's id.
func (p *Peer) ID() identity.DeviceID { return p.Identity.DeviceID() }

// Connect opens a channel to another peer and fails the test if that does not
// succeed within Patience. It is for the test's goroutine; ConnectDevice is for
// what is to fail.
func (p *Peer) Connect(to *Peer, uri string) *channel.Socket {
	p.f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	c, err := p.ConnectDevice(ctx, to.ID(), uri, peerlink.ConnectOptions{})
	if err != nil {
		p.f.t.Fatalf("%s connects to %s as %s: %v", p.Name, to.Name, uri, err)
	}
	return c
}

// Serve hands each channel that other peers open under a pattern (see
// ConnectionManager.Listen) to handle, on a goroutine of its own, and closes the
// channel afterwards. The end of the test waits for all of them; by then their
// peers are closed. A pattern that cannot be listened on fails the test.
func (p *Peer) Serve(pattern string, handle func(c *channel.Socket)) {
	p.f.t.Helper()
	l, err := p.Listen(pattern)
	if err != nil {
		p.f.t.Fatal(err)
	}
	p.f.serves.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.f.serves.Go(func() {
				defer c.Close()
				handle(c.(*channel.Socket))
			})
		}
	})
}

// end closes the peer. Streams over lines that are cut are reset first, so that
// nothing waits for their other ends.
func (p *Peer) end() {
	p.f.mu.Lock()
	for _, w := range p.f.wires {
		if w[0].out.held || w[1].out.held {
			w.reset()
		}
	}
	p.f.mu.Unlock()
	err := p.Close()
	if _, cut := errors.AsType[*peerlink.ShutdownError](err); err != nil && !cut { // a test may cut what it wants
		p.f.t.Errorf("peerlinktest: closing %s: %v", p.Name, err)
	}
}

// end says what is left once all peers are closed.
func (f *fabric) end() {
	served := make(chan struct{})
	go func() {
		f.serves.Wait()
		close(served)
	}()
	late := time.NewTimer(Patience)
	defer late.Stop()
	select {
	case <-served:
	case <-late.C:
		f.t.Errorf("peerlinktest: a handler given to Serve has not returned %v after the end", Patience)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.wires {
		f.t.Errorf("peerlinktest: a stream from %s to %s was left open", w[0].LocalAddr(), w[0].RemoteAddr())
	}
	if f.luck && f.t.Failed() {
		f.t.Logf("peerlinktest: %s=%d loses the same packets again", SeedVariable, f.seed)
	}
}
