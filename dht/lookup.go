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
	rec   Record
	nodes []peer.ID
	near  []peer.ID // of nodes, those that are no nodes near the key
	asked int
	until time.Time // when the cache forgets it
}

// Lookup returns the verified record of a device. It blocks while the network is
// asked, at most 10 s, and while it has not been joined yet; a record found in
// the last minute is returned at once. The error matches ErrNotFound,
// os.ErrDeadlineExceeded or net.ErrClosed. It may be called concurrently.
func (n *Node) Lookup(ctx context.Context, id identity.DeviceID) (Record, error) {
	f, err := n.find(ctx, id)
	return f.rec, err
}

// find is Lookup with the nodes.
func (n *Node) find(ctx context.Context, id identity.DeviceID) (found, error) {
	now := time.Now()
	if f, ok := n.cache.Get(id); ok && now.Before(f.until) && now.Before(f.rec.Expires) {
		trace.Note(ctx, trace.RecordFound, "seq %d, known for %v", f.rec.Seq, (cacheLife - f.until.Sub(now)).Round(time.Millisecond))
		return f, nil
	}
	ctx, cancel := n.bound(ctx, lookupTimeout)
	defer cancel()
	f, err := n.locate(ctx, id)
	if err != nil {
		return found{}, n.explain(ctx, fmt.Errorf("dht: look up %s: %w", id, err))
	}
	f.until = time.Now().Add(cacheLife)
	n.cache.Add(id, f)
	trace.Note(ctx, trace.RecordFound, "seq %d, nodes asked: %d", f.rec.Seq, f.asked)
	return f, nil
}

// bound limits ctx by d and by the node's life.
func (n *Node) bound(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	stop := context.AfterFunc(n.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// explain gives an error of a bounded call the kind that callers branch on.
func (n *Node) explain(ctx context.Context, err error) error {
	switch {
	case n.life.Err() != nil:
		return fmt.Errorf("%w: %w", err, errClosed)
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %w", err, os.ErrDeadlineExceeded)
	}
	return err
}

// search asks the network.
func (n *Node) search(ctx context.Context, id identity.DeviceID) (found, error) {
	if err := n.joiner.wait(ctx); err != nil {
		return found{}, fmt.Errorf("no bootstrap node was reached: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	key := recordKey(id)
	seen := newCandidates(n.kad.RoutingTable().NearestPeers(kbucket.ConvertKey(key), bucketSize))
	events, collected := seen.collect(ctx)
	values, err := n.kad.SearchValue(events, key, kad.Quorum(0))
	if err != nil {
		return found{}, err
	}
	best := newest(values)
	gaveUp := ctx.Err()
	cancel()
	<-collected
	if best == nil && gaveUp != nil {
		return found{}, fmt.Errorf("nodes asked: %d: %w", seen.asked, gaveUp)
	}
	if best == nil {
		return found{}, fmt.Errorf("%w (nodes asked: %d)", ErrNotFound, seen.asked)
	}
	rec, err := decodeRecord(best, id, time.Now())
	if err != nil {
		return found{}, err
	}
	return found{rec: rec, nodes: n.withSelf(seen.nearest(key), key), asked: seen.asked}, nil
}

// newest takes values, each better than the one before, until no better one came
// for as long as the first took. Waiting for all would let one node that is slow
// or gone delay every call.
func newest(values <-chan []byte) (best []byte) {
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
	if n.cfg.Mode == Server {
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

// nearest lists the candidates.
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
