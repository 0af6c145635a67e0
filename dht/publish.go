package dht

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
)

// publication is the device's record as it stands in the network. It is a plain
// state machine; presence owns it.
type publication struct {
	me   *identity.Identity
	life time.Duration

	seq       uint64
	value     []byte
	refreshAt time.Time
	holders   map[peer.ID]bool // who showed this very record
	overtaken bool             // a newer one was answered already, since the last refresh
}

func (p *publication) due(now time.Time, near []peer.ID) []peer.ID {
	if p.seq == 0 || !now.Before(p.refreshAt) {
		return near
	}
	var missing []peer.ID
	for _, id := range near {
		if !p.holders[id] {
			missing = append(missing, id)
		}
	}
	return missing
}

// current returns the record, made anew when it is time: after a fifth to a
// third of its life, at random, so that devices that started together spread out.
func (p *publication) current(now time.Time) ([]byte, error) {
	if p.seq > 0 && now.Before(p.refreshAt) {
		return p.value, nil
	}
	seq := max(p.seq+1, uint64(max(now.UnixMilli(), 1)))
	value, err := encodeRecord(p.me, seq, now, now.Add(p.life))
	if err != nil {
		return nil, err
	}
	p.seq, p.value = seq, value
	p.refreshAt = now.Add(p.life/5 + rand.N(p.life*2/15))
	p.holders, p.overtaken = nil, false
	return value, nil
}

// note keeps that a node holds the record.
func (p *publication) note(id peer.ID) {
	if p.holders == nil {
		p.holders = make(map[peer.ID]bool)
	}
	if len(p.holders) > 4*bucketSize {
		clear(p.holders) // nodes come and go; the present ones are asked again
	}
	p.holders[id] = true
}

// forget has the record published to everybody again.
func (p *publication) forget() { p.refreshAt = time.Time{} }

// overtake makes the next record follow newer and reports whether it has to be
// made now; once per refresh, so that two runs of one device do not race each other.
func (p *publication) overtake(newer uint64, now time.Time) bool {
	if newer < p.seq || p.overtaken {
		return false
	}
	p.seq = min(newer, maxSequence-1)
	p.refreshAt = time.Time{}
	value, err := p.current(now)
	p.overtaken = true
	return err == nil && value != nil
}

// publish puts a record to nodes, side by side, and reads it back from each. It
// tells held of each that holds it, as soon as it is known, and returns the
// highest number of another valid record that one of them holds instead.
func (n *Node) publish(ctx context.Context, key string, value []byte, nodes []peer.ID, held func(peer.ID)) (newer uint64) {
	if n.serves() {
		// The library's PutValue would ask the network first, for up to its time-out.
		if err := n.records.putOwn(key, value); err != nil {
			n.cfg.Logger.Warn("dht: this node does not store its own record", "err", err)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, p := range nodes {
		wg.Go(func() {
			other, err := n.messenger.put(ctx, p, key, value)
			if err == nil {
				held(p)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			n.cfg.Logger.Debug("dht: record not taken", "node", p.String(), "err", err)
			if rec, err := decodeRecord(other, n.cfg.Identity.DeviceID(), time.Now()); err == nil {
				newer = max(newer, rec.Seq)
			}
		})
	}
	wg.Wait()
	return newer
}
