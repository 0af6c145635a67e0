package dht

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
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
	_, err := n.send(ctx, to, msg, 0)
	return n.sendError(ctx, to, err)
}

// SendLetter is Send for a message that may wait: nodes keep it for life (more
// than 0, at most MaxLetterLife) for a device that is away, and hand it over when
// the device listens again. It waits until all nodes near the device's key have
// answered and tells how many took it; the error is nil if one did. A letter is
// taken from ReceiveLetter. Nodes hold at most 32 signals and letters, and 256 KiB,
// for one device, and 1 MiB of one sender; who sends too much loses the oldest.
func (n *Node) SendLetter(ctx context.Context, to identity.DeviceID, msg []byte, life time.Duration) (Delivery, error) {
	if life <= 0 || life > MaxLetterLife {
		return Delivery{}, fmt.Errorf("dht: send to %s: a letter's life of %v is outside 0 to %v", to.Short(), life, MaxLetterLife)
	}
	d, err := n.send(ctx, to, msg, max(life, time.Millisecond))
	return d, n.sendError(ctx, to, err)
}

// sendError says to whom, and names a wrong clock.
func (n *Node) sendError(ctx context.Context, to identity.DeviceID, err error) error {
	if err == nil {
		return nil
	}
	hint := ""
	if n.presence != nil {
		hint = n.presence.clock.hint()
	}
	return n.explain(ctx, fmt.Errorf("dht: send to %s: %w%s", to.Short(), err, hint))
}

// send is Send and, with a life, SendLetter.
func (n *Node) send(ctx context.Context, to identity.DeviceID, msg []byte, life time.Duration) (Delivery, error) {
	if n.cfg.Identity == nil {
		return Delivery{}, errors.New("this node has no identity to sign with")
	}
	ctx, cancel := n.bound(ctx, sendTimeout)
	defer cancel()
	f, err := n.find(ctx, to)
	if err != nil {
		return Delivery{}, err
	}
	sealed, err := n.seal(f.rec, msg, life)
	if err != nil {
		return Delivery{}, err
	}
	select {
	case n.sending <- struct{}{}:
	case <-ctx.Done():
		return Delivery{}, n.explain(ctx, fmt.Errorf("%d signals are being sent already: %w", maxDeliveries, ctx.Err()))
	}
	c := newCourier(n, to, sealed, life)
	if !n.spawn(func() { defer func() { <-n.sending }(); c.run(f) }) {
		<-n.sending
		return Delivery{}, errClosed
	}
	pushed := c.pushed
	if life > 0 {
		pushed = nil // a letter wants to be everywhere: its recipient may leave
	}
	select {
	case <-pushed:
		return Delivery{}, nil
	case <-c.done:
	case <-ctx.Done():
		return Delivery{}, n.explain(ctx, fmt.Errorf("%w while nodes were asked", ctx.Err()))
	}
	if c.sum.Took > 0 {
		return c.sum, nil
	}
	return c.sum, fmt.Errorf("%v: %w", c.sum, errors.Join(c.errs...))
}

// seal makes the bytes that travel.
func (n *Node) seal(rec Record, msg []byte, life time.Duration) ([]byte, error) {
	var id [signalIDLen]byte
	_, _ = rand.Read(id[:]) // never fails
	plain, err := encodeSignal(n.cfg.Identity, rec.Peer.Device, id, n.cfg.now(), life, msg)
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
	life   time.Duration // 0: no letter

	sum     Delivery
	errs    []error
	near    []peer.ID // who was found nearby
	far     int       // how many others pushed the signal
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

func newCourier(n *Node, to identity.DeviceID, sealed []byte, life time.Duration) *courier {
	return &courier{
		n: n, to: to, sealed: sealed, life: life, asked: make(map[peer.ID]bool),
		results: make(chan result, replication),
		pushed:  make(chan struct{}), done: make(chan struct{}),
	}
}

// run asks the nodes that the look-up named. If none of them has the callee
// listening, the look-up was too quick or the nodes have changed: the network is
// then asked thoroughly which nodes are nearest. So it is if only somebody nearby
// says so, who may be lying.
func (c *courier) run(f found) {
	defer close(c.done)
	ctx, cancel := context.WithTimeout(c.n.life, sendTimeout)
	defer cancel()
	c.near = f.near
	c.ask(ctx, f.nodes)
	if c.sum.Pushed == 0 {
		c.n.cache.Remove(c.to)
	}
	if c.far == 0 && ctx.Err() == nil && c.n.joiner.populated() {
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
				pushed, err := c.n.put(ctx, p, c.to, c.sealed, c.life)
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
		if r.node != c.n.host.ID() {
			c.n.memory.noteCarrier(c.to, r.node)
		}
		if !slices.Contains(c.near, r.node) {
			c.far++
		}
		if c.sum.Pushed++; c.sum.Pushed == 1 {
			close(c.pushed)
		}
	}
	return true
}

// put asks one node, or this one, to carry a signal or, with a life, a letter.
func (n *Node) put(ctx context.Context, p peer.ID, to identity.DeviceID, sealed []byte, life time.Duration) (pushed bool, err error) {
	if p == n.host.ID() {
		keep := signalLife
		if life > 0 {
			keep = life + freshness
		}
		pushed, stored := n.hub.put(time.Now(), origin{}, to, sealed, keep)
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
	frame := appendFrame(nil, kindPut, to[:], sealed)
	if life > 0 {
		seconds := binary.BigEndian.AppendUint16(nil, uint16((life+time.Second-1)/time.Second))
		frame = appendFrame(nil, kindHold, to[:], seconds, sealed)
	}
	if _, err := s.Write(frame); err != nil {
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
