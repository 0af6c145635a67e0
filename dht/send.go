package dht

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
)

// Bounds of sending.
const (
	sendTimeout   = 30 * time.Second // where the caller's ctx allows more
	putTimeout    = 10 * time.Second // for one node, dialling included
	maxDeliveries = 64               // signals being put at once; further Sends wait
)

// Delivery tells how a signal fared: how many nodes were asked to carry it, how
// many took it, and how many of those pushed it to the callee at once.
type Delivery struct {
	Asked, Took, Pushed int
}

// String says it in words.
func (d Delivery) String() string {
	return fmt.Sprintf("%d of %d nodes took the signal, %d pushed it on at once", d.Took, d.Asked, d.Pushed)
}

// Send signs msg, seals it for a device and has the nodes near the device's key
// push it there. msg may have MaxMessageLen bytes; it is not kept. Send returns
// nil as soon as one node pushed the signal to the device, or else when the nodes
// near the key were asked and one at least keeps it for a minute: it does not
// prove that the device received it. It blocks at most 30 s and may be called
// concurrently. The error matches ErrNotFound where the device has no record,
// and otherwise says how many nodes were asked and how many took it; time-out
// and closing match os.ErrDeadlineExceeded and net.ErrClosed.
func (n *Node) Send(ctx context.Context, to identity.DeviceID, msg []byte) error {
	if n.cfg.Identity == nil {
		return errors.New("dht: send: this node has no identity to sign with")
	}
	ctx, cancel := n.bound(ctx, sendTimeout)
	defer cancel()
	f, err := n.find(ctx, to)
	if err != nil {
		return fmt.Errorf("dht: send to %s: %w", to.Short(), err)
	}
	sealed, err := n.seal(f.rec, msg)
	if err != nil {
		return fmt.Errorf("dht: send to %s: %w", to.Short(), err)
	}
	select {
	case n.sending <- struct{}{}:
	case <-ctx.Done():
		return n.explain(ctx, fmt.Errorf("dht: send to %s: %d signals are being sent already: %w", to.Short(), maxDeliveries, ctx.Err()))
	}
	c := newCourier(n, to, sealed)
	if !n.spawn(func() { defer func() { <-n.sending }(); c.run(f.nodes) }) {
		<-n.sending
		return fmt.Errorf("dht: send to %s: %w", to.Short(), errClosed)
	}
	select {
	case <-c.pushed:
		return nil
	case <-c.done:
	case <-ctx.Done():
		return n.explain(ctx, fmt.Errorf("dht: send to %s: %w while nodes were asked", to.Short(), ctx.Err()))
	}
	if c.sum.Took > 0 {
		return nil
	}
	return n.explain(ctx, fmt.Errorf("dht: send to %s: %v: %w", to.Short(), c.sum, errors.Join(c.errs...)))
}

// seal makes the bytes that travel.
func (n *Node) seal(rec Record, msg []byte) ([]byte, error) {
	var id [signalIDLen]byte
	_, _ = rand.Read(id[:]) // never fails
	plain, err := encodeSignal(n.cfg.Identity, rec.Peer.Device, id, time.Now(), msg)
	if err != nil {
		return nil, err
	}
	return sealSignal(rec.Peer.Device, rec.SealingKey, plain)
}

// courier puts one signal to the nodes nearest to its recipient. It outlives the
// Send that began it, as a node that claims to have pushed the signal may lie
// and must not keep it from the others. run owns its fields until done is closed.
type courier struct {
	n      *Node
	to     identity.DeviceID
	sealed []byte

	sum     Delivery
	errs    []error
	asked   map[peer.ID]bool
	results chan result
	pending int

	pushed chan struct{} // closed when the first node pushed the signal
	done   chan struct{}
}

type result struct {
	node   peer.ID
	pushed bool
	err    error
}

func newCourier(n *Node, to identity.DeviceID, sealed []byte) *courier {
	return &courier{
		n: n, to: to, sealed: sealed, asked: make(map[peer.ID]bool),
		results: make(chan result, replication),
		pushed:  make(chan struct{}), done: make(chan struct{}),
	}
}

// run asks the nodes that the look-up named. If none of them has the callee
// listening, the look-up was too quick or the nodes have changed: the network is
// then asked thoroughly which nodes are nearest.
func (c *courier) run(nodes []peer.ID) {
	defer close(c.done)
	ctx, cancel := context.WithTimeout(c.n.life, sendTimeout)
	defer cancel()
	c.ask(ctx, nodes)
	if c.sum.Pushed == 0 && ctx.Err() == nil {
		c.n.cache.Remove(c.to)
		key := recordKey(c.to)
		near, _ := c.n.closest(ctx, key) // what was found in time will do
		near = c.n.withSelf(near, key)
		c.ask(ctx, near[:min(len(near), replication)])
	}
	c.n.sent(c.sum)
}

// ask puts the signal to the first of nodes that were not asked yet, until
// enough took it; each that fails is replaced by the next.
func (c *courier) ask(ctx context.Context, nodes []peer.ID) {
	took := 0
	for {
		for len(nodes) > 0 && took+c.pending < replication {
			p := nodes[0]
			nodes = nodes[1:]
			if c.asked[p] {
				continue
			}
			c.asked[p] = true
			c.sum.Asked++
			c.pending++
			go func() {
				pushed, err := c.n.put(ctx, p, c.to, c.sealed)
				c.results <- result{p, pushed, err} // has room for every pending one
			}()
		}
		if c.pending == 0 {
			return
		}
		r := <-c.results
		c.pending--
		if c.note(r) {
			took++
		}
	}
}

// note counts one node's answer and reports whether the node took the signal.
func (c *courier) note(r result) bool {
	if r.err != nil {
		if len(c.errs) < replication {
			c.errs = append(c.errs, fmt.Errorf("node %s: %w", r.node, r.err))
		}
		return false
	}
	c.sum.Took++
	if r.pushed {
		if c.sum.Pushed++; c.sum.Pushed == 1 {
			close(c.pushed)
		}
	}
	return true
}

// put asks one node, or this one, to carry a signal.
func (n *Node) put(ctx context.Context, p peer.ID, to identity.DeviceID, sealed []byte) (pushed bool, err error) {
	if p == n.host.ID() {
		pushed, stored := n.hub.put(time.Now(), p, to, sealed)
		if !pushed && !stored {
			return false, errors.New("no room to keep the signal")
		}
		return pushed, nil
	}
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	s, err := n.host.NewStream(ctx, p, pushProtocol)
	if err != nil {
		return false, err
	}
	defer func() { _ = s.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if _, err := s.Write(appendFrame(nil, kindPut, to[:], sealed)); err != nil {
		return false, err
	}
	b, err := readKind(s, kindTaken, 1)
	if err != nil {
		return false, err
	}
	if len(b) != 1 || b[0] != statusStored && b[0] != statusPushed {
		return false, fmt.Errorf("push: status %x is unknown", b)
	}
	return b[0] == statusPushed, nil
}
