package dht

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	kad "github.com/libp2p/go-libp2p-kad-dht"
	kbucket "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"

	"peerlink/identity"
	"peerlink/internal/pause"
	"peerlink/internal/trace"
)

// Bounds of look-ups.
const (
	// replication is how many nodes nearest to a device's key carry its
	// signals. Eight keep a device reachable while several of them leave.
	replication   = 8
	bucketSize    = 20 // Kademlia's k: how many nodes keep a record
	lookupTimeout = 10 * time.Second
	// maxGrace is how long a look-up waits at most for a newer record after the
	// first valid one; it waits as long again as the first one took.
	maxGrace      = 250 * time.Millisecond
	cacheLen      = 1024
	cacheLife     = time.Minute
	maxCandidates = 64
)

// ErrNotFound is matched by Lookup's and Send's error when no node that was
// asked has a valid record of the device: it is offline, or has never been
// online on this network.
var ErrNotFound = errors.New("no record of this device was found")

// found is what a look-up found: the record, and the nodes near its key,
// nearest first, which signals can be put to.
type found struct {
	rec    Record
	nodes  []peer.ID
	nearby []peer.ID // nodes on the local network, which are not among the nearest to the key
	asked  int
	until  time.Time // when the cache forgets it
}

// Lookup returns the verified record of a device. It blocks while the network is
// asked, at most 10 s, and while it has not been joined yet; a record found in
// the last minute is returned at once. The error matches ErrNotFound,
// os.ErrDeadlineExceeded or net.ErrClosed. It may be called concurrently.
func (n *Node) Lookup(ctx context.Context, id identity.DeviceID) (Record, error) {
	f, _, err := n.find(ctx, id, false)
	if err != nil {
		err = fmt.Errorf("dht: look up %s: %w", id, err)
	}
	return f.rec, err
}

// find is Lookup with the nodes. With quick it takes the first valid record, which is
// good enough to signal: its device has signed it, and it has not expired. Where it
// returns before all have answered, later tells what the whole look-up came to; it
// is nil otherwise.
func (n *Node) find(ctx context.Context, id identity.DeviceID, quick bool) (f found, later <-chan outcome, err error) {
	now := time.Now()
	if f, ok := n.cache.Get(id); ok && now.Before(f.until) && now.Before(f.rec.Expires) {
		trace.Note(ctx, trace.RecordFound, "seq %d, known for %v", f.rec.Seq, (cacheLife - f.until.Sub(now)).Round(time.Millisecond))
		return f, nil, nil
	}
	if f, ok := n.callers.Get(id); ok && quick && now.Before(f.until) {
		trace.Note(ctx, trace.RecordFound, "told by the device when it called")
		f.nodes = n.around(recordKey(id))
		_, later = n.seek(n.life.Context(), id) // the nodes around may all be lying
		return f, later, nil
	}
	ctx, cancel := n.bound(ctx, lookupTimeout)
	defer cancel()
	first, last := n.seek(ctx, id)
	if !quick {
		first = nil
	}
	select {
	case f = <-first:
		later = last
	case o := <-last:
		f, err = o.f, o.err
	}
	if err != nil {
		return found{}, nil, n.explain(ctx, err)
	}
	trace.Note(ctx, trace.RecordFound, "seq %d, nodes asked: %d", f.rec.Seq, f.asked)
	return f, later, nil
}

// called remembers what a caller has told of itself: that will do for the answer.
func (n *Node) called(s signal) {
	if len(s.key) > 0 {
		n.callers.Add(s.from.Device, found{rec: Record{Peer: s.from, SealingKey: s.key}, until: time.Now().Add(cacheLife)})
	}
}

// around lists the nodes near key that this node knows of, itself included
// where it serves.
func (n *Node) around(key string) []peer.ID {
	return n.withSelf(n.kad.RoutingTable().NearestPeers(kbucket.ConvertKey(key), bucketSize), key)
}

// seek begins a look-up that goes on behind the caller's back once first has
// told of a record; until then ctx ends it. last always tells how it came out.
func (n *Node) seek(ctx context.Context, id identity.DeviceID) (first <-chan found, last <-chan outcome) {
	firstc, lastc := make(chan found, 1), make(chan outcome, 1)
	on, cancel := n.bound(context.WithoutCancel(ctx), lookupTimeout)
	stop := context.AfterFunc(ctx, cancel)
	if !n.life.Go(func(context.Context) {
		defer cancel()
		keep := func(f found) {
			f.until = time.Now().Add(cacheLife)
			n.cache.Add(id, f)
			pause.Tell(firstc, f)
		}
		f, err := n.locate(on, id, func(f found) { // of each that answers, from its goroutine
			stop()
			keep(f)
		})
		if err == nil {
			keep(f)
		}
		lastc <- outcome{f, err}
	}) {
		cancel()
		lastc <- outcome{err: errClosed}
	}
	return firstc, lastc
}

// bound limits ctx by d and by the node's life.
func (n *Node) bound(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	stop := context.AfterFunc(n.life.Context(), cancel)
	return ctx, func() { stop(); cancel() }
}

// explain gives an error of a bounded call the kind that callers branch on.
func (n *Node) explain(ctx context.Context, err error) error {
	switch {
	case n.life.Ended():
		return fmt.Errorf("%w: %w", err, errClosed)
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %w", err, os.ErrDeadlineExceeded)
	}
	return err
}

// search asks the network. It tells first of the first valid record.
func (n *Node) search(ctx context.Context, id identity.DeviceID, first func(found)) (found, error) {
	if err := n.joiner.wait(ctx); err != nil {
		return found{}, fmt.Errorf("no bootstrap node was reached: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	key := recordKey(id)
	seen := newCandidates(n.kad.RoutingTable().NearestPeers(kbucket.ConvertKey(key), bucketSize))
	n.shortcut(ctx, id, first)
	events, collected := seen.collect(ctx)
	values, err := n.kad.SearchValue(events, key, kad.Quorum(0))
	if err != nil {
		return found{}, err
	}
	best := newest(values, func(v []byte) {
		if rec, err := decodeRecord(v, id, time.Now()); err == nil {
			first(found{rec: rec, nodes: n.withSelf(seen.nearest(key), key), asked: seen.count()})
		}
	})
	gaveUp := ctx.Err()
	cancel()
	<-collected
	if best == nil && gaveUp != nil {
		return found{}, fmt.Errorf("%s, none showed a record of this device in time: %w", asked(seen.count()), gaveUp)
	}
	if best == nil {
		return found{}, fmt.Errorf("%w (%s)", ErrNotFound, asked(seen.count()))
	}
	rec, err := decodeRecord(best, id, time.Now())
	if err != nil {
		return found{}, err
	}
	return found{rec: rec, nodes: n.withSelf(seen.nearest(key), key), asked: seen.count()}, nil
}

func asked(nodes int) string {
	if nodes == 1 {
		return "1 node asked"
	}
	return fmt.Sprintf("%d nodes asked", nodes)
}

// shortcuts is how many nodes are asked beside the library, which asks a node one
// thing at a time: whatever it is at, such as refreshing its table after a start,
// a call would wait for.
const shortcuts = 3

// shortcut asks the nearest nodes that are known for a record, and tells first.
func (n *Node) shortcut(ctx context.Context, id identity.DeviceID, first func(found)) {
	key := recordKey(id)
	near := n.around(key)
	for _, p := range near[:min(len(near), shortcuts)] {
		if p == n.host.ID() {
			continue
		}
		n.life.Go(func(context.Context) {
			rec, _, err := n.messenger.pm.GetValue(ctx, p, key)
			if err != nil || rec == nil {
				return
			}
			if rec, err := decodeRecord(rec.GetValue(), id, time.Now()); err == nil && ctx.Err() == nil {
				first(found{rec: rec, nodes: near, asked: 1})
			}
		})
	}
}

// newest takes values, each better than the one before, until no better one came
// for as long as the first took. Waiting for all would let one node that is slow
// or gone delay every call.
// first is told of the first.
func newest(values <-chan []byte, first func([]byte)) (best []byte) {
	start := time.Now()
	var enough <-chan time.Time
	for {
		select {
		case v, ok := <-values:
			if !ok {
				return best
			}
			best = v
			if enough == nil {
				first(v)
				enough = time.After(min(time.Since(start), maxGrace))
			}
		case <-enough:
			return best
		}
	}
}

// withSelf inserts this node among the nodes nearest to key where it serves:
// the library never asks it, though others may name it.
func (n *Node) withSelf(nodes []peer.ID, key string) []peer.ID {
	nodes = slices.DeleteFunc(nodes, func(p peer.ID) bool { return p == n.host.ID() })
	if n.serves() {
		nodes = append(nodes, n.host.ID())
	}
	return kbucket.SortClosestPeers(nodes, kbucket.ConvertKey(key))
}

// closest returns the nodes nearest to key, nearest first, without this one.
// What was found in time is returned with an error too.
func (n *Node) closest(ctx context.Context, key string) ([]peer.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	return n.kad.GetClosestPeers(ctx, key)
}

// candidates gathers, from the events of a search, the nodes that can carry
// signals: known ones, those that answered and those that they named, but none
// that failed.
type candidates struct {
	mu    sync.Mutex
	good  map[peer.ID]bool // false: failed
	asked int
}

func newCandidates(known []peer.ID) *candidates {
	c := &candidates{good: make(map[peer.ID]bool, 2*bucketSize)}
	for _, p := range known {
		c.good[p] = true
	}
	return c
}

// collect gathers until ctx is done; then the returned channel is closed.
func (c *candidates) collect(ctx context.Context) (context.Context, <-chan struct{}) {
	ctx, events := routing.RegisterForQueryEvents(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range events {
			if ctx.Err() == nil { // what fails afterwards fails because we have enough
				c.add(e)
			}
		}
	}()
	return ctx, done
}

func (c *candidates) add(e *routing.QueryEvent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e.Type {
	case routing.SendingQuery:
		c.asked++
	case routing.QueryError:
		c.good[e.ID] = false
	case routing.PeerResponse:
		for _, ai := range e.Responses {
			if _, known := c.good[ai.ID]; !known && len(c.good) < maxCandidates {
				c.good[ai.ID] = true
			}
		}
	}
}

func (c *candidates) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

func (c *candidates) nearest(key string) []peer.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ps []peer.ID
	for p, good := range c.good {
		if good {
			ps = append(ps, p)
		}
	}
	return kbucket.SortClosestPeers(ps, kbucket.ConvertKey(key))
}
