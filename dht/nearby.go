package dht

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
)

// maxRemembered is how many remembered places are asked for a device.
const maxRemembered = 4

// nearby lists who is asked for a device beside the network: the neighbours, and
// those that pushed a signal to it before.
func (n *Node) nearby(id identity.DeviceID) []peer.AddrInfo {
	var out []peer.AddrInfo
	if n.neighbours != nil {
		out = n.neighbours.peers()
	}
	for _, ai := range n.memory.carriers(id) {
		if !slices.ContainsFunc(out, func(o peer.AddrInfo) bool { return o.ID == ai.ID }) {
			out = append(out, ai)
		}
	}
	return out
}

// outcome is what one way to find a device came to.
type outcome struct {
	f   found
	err error
}

// locate asks the network and those nearby, side by side. Either is enough; who
// answers first gives the other one a moment, as either may lie. first is told
// of the first valid record at once, of each of the two.
func (n *Node) locate(ctx context.Context, id identity.DeviceID, first func(found)) (found, error) {
	near := n.nearby(id)
	if len(near) == 0 {
		return n.search(ctx, id, first)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	far, nigh := make(chan outcome, 1), make(chan outcome, 1)
	if !n.life.Go(func(context.Context) { f, err := n.search(ctx, id, first); far <- outcome{f, err} }) ||
		!n.life.Go(func(context.Context) { f, err := n.ask(ctx, near, id, first); nigh <- outcome{f, err} }) {
		return found{}, errClosed
	}
	var all []outcome
	var enough <-chan time.Time
	for len(all) < 2 {
		select {
		case o := <-far:
			all = append(all, o)
		case o := <-nigh:
			all = append([]outcome{o}, all...)
		case <-enough:
			return merge(all)
		}
		if enough == nil && slices.ContainsFunc(all, func(o outcome) bool { return o.err == nil }) {
			enough = time.After(nearGrace)
		}
	}
	return merge(all)
}

// merge joins what was found; those nearby come first, to be asked first.
func merge(all []outcome) (f found, err error) {
	ok := false
	for _, o := range all {
		if o.err != nil {
			err = o.err // the network's, which is last
			continue
		}
		if !ok || o.f.rec.Seq > f.rec.Seq {
			f.rec = o.f.rec
		}
		ok = true
		f.asked += o.f.asked
		f.nearby = append(f.nearby, o.f.nearby...)
		for _, p := range slices.Concat(o.f.nearby, o.f.nodes) {
			if !slices.Contains(f.nodes, p) {
				f.nodes = append(f.nodes, p)
			}
		}
	}
	if ok {
		return f, nil
	}
	return found{}, err
}

// ask asks peers whether they are device id, or have its record. All that
// answer with a valid one are returned, but it waits only for the first and a
// moment more.
func (n *Node) ask(ctx context.Context, peers []peer.AddrInfo, id identity.DeviceID, first func(found)) (found, error) {
	ctx, cancel := context.WithTimeout(ctx, nearTimeout)
	defer cancel()
	f := found{asked: len(peers)}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, ai := range peers {
		wg.Go(func() {
			rec, err := n.recordAt(ctx, ai, id)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || ctx.Err() != nil {
				return
			}
			if len(f.nearby) == 0 {
				time.AfterFunc(nearGrace, cancel)
				first(found{rec: rec, nodes: []peer.ID{ai.ID}, nearby: []peer.ID{ai.ID}, asked: len(peers)})
			}
			if len(f.nearby) == 0 || rec.Seq > f.rec.Seq {
				f.rec = rec
			}
			f.nearby = append(f.nearby, ai.ID)
		})
	}
	wg.Wait()
	if len(f.nearby) == 0 {
		return found{}, fmt.Errorf("%w (nearby asked: %d)", ErrNotFound, len(peers))
	}
	return f, nil
}

// recordAt asks one peer for the record of a device: its own, or one it stores.
func (n *Node) recordAt(ctx context.Context, ai peer.AddrInfo, id identity.DeviceID) (Record, error) {
	if err := n.host.Connect(ctx, ai); err != nil {
		return Record{}, err
	}
	b, err := n.request(ctx, ai.ID, appendFrame(nil, kindWho, id[:]), kindRecord, maxRecordLen)
	if err != nil {
		rec, _, kerr := n.messenger.pm.GetValue(ctx, ai.ID, recordKey(id))
		if kerr != nil || rec == nil {
			return Record{}, errors.Join(err, kerr)
		}
		b = rec.GetValue()
	}
	return decodeRecord(b, id, time.Now())
}

// request sends a node one frame, on a stream of its own, and reads the answer of a
// kind, of at most most bytes.
func (n *Node) request(ctx context.Context, p peer.ID, frame []byte, answer kind, most int) ([]byte, error) {
	s, err := n.host.NewStream(ctx, p, pushProtocol)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if _, err := s.Write(frame); err != nil {
		return nil, err
	}
	return readKind(bufio.NewReader(s), answer, most)
}

// card is the record that a device shows when it is asked who it is. It is made
// anew now and then, also where no node takes a record.
type card struct {
	me   *identity.Identity
	life time.Duration
	now  func() time.Time

	mu    sync.Mutex
	value []byte
	until time.Time
}

func (c *card) show() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.value != nil && now.Before(c.until) && now.After(c.until.Add(-c.life)) {
		return c.value, nil
	}
	b, err := encodeRecord(c.me, uint64(max(now.UnixMilli(), 1)), now, now.Add(c.life))
	if err != nil {
		return nil, err
	}
	c.value, c.until = b, now.Add(c.life/4)
	return b, nil
}
