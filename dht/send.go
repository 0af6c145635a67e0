package dht

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
	"peerlink/internal/trace"
)

// Bounds of sending.
const (
	sendTimeout   = 30 * time.Second // where the caller's ctx allows more
	putTimeout    = 10 * time.Second // for one node, dialling included
	maxDeliveries = 64               // signals being put at once; further Sends wait
)

// throughDHT is what people are told that signals go through.
const throughDHT = "the DHT"

// Delivery tells how a signal fared: how many nodes were asked to carry it, how
// many took it, and how many of those pushed it to the callee at once.
type Delivery struct {
	Asked  int `json:"asked"`
	Took   int `json:"took"`
	Pushed int `json:"pushed"`
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
	f, later, err := n.find(ctx, to, true)
	if err != nil {
		return Delivery{}, err
	}
	plain, err := n.sign(to, msg, life)
	if err != nil {
		return Delivery{}, err
	}
	sealed, err := sealSignal(to, f.rec.SealingKey, plain)
	if err != nil {
		return Delivery{}, err
	}
	select {
	case n.sending <- struct{}{}:
	case <-ctx.Done():
		return Delivery{}, n.explain(ctx, fmt.Errorf("%d signals are being sent already: %w", maxDeliveries, ctx.Err()))
	}
	c := newCourier(n, to, sealed, life)
	c.plain, c.key, c.later, c.tally = plain, f.rec.SealingKey, later, trace.TallyOf(ctx)
	if !n.life.Go(func(context.Context) { defer func() { <-n.sending }(); c.run(f) }) {
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
		return Delivery{}, n.explain(ctx, fmt.Errorf("%w while nodes were asked to carry the signal", ctx.Err()))
	}
	if c.sum.Took > 0 {
		return c.sum, nil
	}
	return c.sum, fmt.Errorf("%v: %w", c.sum, errors.Join(c.errs...))
}

// sign makes what is sealed. The first signal to a device, unless that has called,
// tells it this one's sealing key, so that the answer needs no look-up.
func (n *Node) sign(to identity.DeviceID, msg []byte, life time.Duration) ([]byte, error) {
	var id [signalIDLen]byte
	_, _ = rand.Read(id[:]) // never fails
	var key []byte
	now := time.Now()
	until, told := n.told.Get(to)
	caller, called := n.callers.Get(to)
	known := told && now.Before(until) || called && now.Before(caller.until)
	if life == 0 && !known {
		key = n.cfg.Identity.SealingKey()
		n.told.Add(to, now.Add(cacheLife/2))
	}
	return encodeSignal(n.cfg.Identity, to, id, n.cfg.now(), life, msg, key)
}

// courier puts one signal to the nodes nearest to its recipient. It outlives the
// Send that began it, as a node that claims to have pushed the signal may lie
// and must not keep it from the others. run owns its fields until done is closed.
type courier struct {
	n      *Node
	to     identity.DeviceID
	sealed []byte
	life   time.Duration  // 0: no letter
	plain  []byte         // what is sealed
	key    []byte         // and to which key
	later  <-chan outcome // what the look-up still finds; nil: nothing
	beside int            // nodes asked beside the usual number, as they are nearby
	tally  *trace.Tally   // the caller's

	sum     Delivery
	errs    []error
	nearby  []peer.ID // the nodes on the local network that know the device
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
		n: n, to: to, sealed: sealed, life: life, asked: make(map[peer.ID]bool), tally: new(trace.Tally),
		results: make(chan result, 2*replication),
		pushed:  make(chan struct{}), done: make(chan struct{}),
	}
}

// run asks the nodes that the look-up named. If none of them has the callee
// listening, the look-up was too quick or the nodes have changed: the network is
// then asked thoroughly which nodes are nearest. So it is if only somebody nearby
// says so, who may be lying.
func (c *courier) run(f found) {
	defer close(c.done)
	ctx, cancel := context.WithTimeout(c.n.life.Context(), sendTimeout)
	defer cancel()
	c.nearby = f.nearby
	c.ask(ctx, f.nodes)
	if c.sum.Pushed == 0 {
		c.n.cache.Remove(c.to)
		c.n.callers.Remove(c.to)
		c.n.told.Remove(c.to)
	}
	if c.far == 0 && ctx.Err() == nil && c.n.joiner.populated() {
		key := recordKey(c.to)
		near, _ := c.n.closest(ctx, key) // what was found in time will do
		near = c.n.withSelf(near, key)
		c.ask(ctx, near[:min(len(near), replication)])
	}
	sum := c.sum
	c.n.lastSum.Store(&sum)
}

// ask puts the signal to the first of nodes that were not asked yet, until
// enough took it; each that fails is replaced by the next. What the look-up still
// finds meanwhile is asked too.
func (c *courier) ask(ctx context.Context, nodes []peer.ID) {
	took, over := 0, ctx.Done()
	for {
		for len(nodes) > 0 && took+c.pending < replication+c.beside {
			p := nodes[0]
			nodes = nodes[1:]
			c.begin(ctx, p)
		}
		if c.pending == 0 && c.later == nil {
			return
		}
		select {
		case r := <-c.results:
			c.pending--
			if c.note(r) {
				took++
			}
		case o := <-c.later:
			c.later = nil
			nodes = append(c.learn(o), nodes...)
		case <-over: // those that are under way end with ctx, too
			over, c.later, nodes = nil, nil, nil
		}
	}
}

// begin puts the signal to a node that was not asked yet.
func (c *courier) begin(ctx context.Context, p peer.ID) {
	if c.asked[p] {
		return
	}
	c.asked[p] = true
	c.sum.Asked++
	c.tally.Asked(throughDHT)
	c.pending++
	sealed := c.sealed
	go func() {
		pushed, err := c.n.put(ctx, p, c.to, sealed, c.life)
		c.results <- result{p, pushed, err} // has room for every pending one
	}()
}

// learn takes what the whole look-up has found, and lists whom to ask. The first
// to answer may have shown an old record; and those nearby are asked in any case,
// as everybody else may lie.
func (c *courier) learn(o outcome) []peer.ID {
	if o.err != nil {
		return nil
	}
	if !bytes.Equal(o.f.rec.SealingKey, c.key) {
		if sealed, err := sealSignal(c.to, o.f.rec.SealingKey, c.plain); err == nil {
			c.sealed, c.key = sealed, o.f.rec.SealingKey
			clear(c.asked) // they have what the device cannot open
			c.beside = replication
		}
	}
	c.nearby = o.f.nearby
	fresh := 0
	for _, p := range c.nearby {
		if !c.asked[p] {
			fresh++
		}
	}
	c.beside = max(c.beside, min(fresh, replication))
	return o.f.nodes
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
	c.tally.Took(r.pushed)
	if r.pushed {
		if r.node != c.n.host.ID() {
			c.n.memory.noteCarrier(c.to, r.node)
		}
		if !slices.Contains(c.nearby, r.node) {
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
	frame := appendFrame(nil, kindPut, to[:], sealed)
	if life > 0 {
		seconds := binary.BigEndian.AppendUint16(nil, uint16((life+time.Second-1)/time.Second))
		frame = appendFrame(nil, kindHold, to[:], seconds, sealed)
	}
	b, err := n.request(ctx, p, frame, kindTaken, 1)
	if err != nil {
		return false, err
	}
	if len(b) != 1 || b[0] != statusStored && b[0] != statusPushed {
		return false, fmt.Errorf("push: status %x is unknown", b)
	}
	return b[0] == statusPushed, nil
}
