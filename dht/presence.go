package dht

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	kbucket "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"

	"peerlink/identity"
	"peerlink/internal/pause"
)

// Pace of presence.
const (
	checkEvery     = 90 * time.Second // between looks at who is nearest, ± 25 %
	checkSoon      = time.Second      // after a change, ± 25 %: many come together
	announceWithin = 2 * time.Second  // after the network is back: all others announce themselves, too
	retryMin       = time.Second      // before a node that failed is tried again
	retryMax       = 2 * time.Minute
	maxFailedNodes = 64
	subscriberTag  = "peerlink-subscription"
)

// presence keeps a device reachable: its record at the nodes nearest to its key
// and a listening stream at the nearest eight of them. run owns all fields but
// the atomic ones; everything that waits happens in goroutines that report back
// through events.
type presence struct {
	n     *Node
	me    *identity.Identity
	inbox *inbox
	log   *slog.Logger
	key   string

	events chan func() // what happened, run by the owner
	metc   chan peer.ID

	near      []peer.ID // nearest first; nil before the first look
	looking   bool
	lookAgain bool // something changed meanwhile
	subs      map[peer.ID]*subscription
	failed    map[peer.ID]failure
	timer     *time.Timer
	next      time.Time // when it fires; zero: it has fired

	pub          publication
	publishing   bool
	publishAgain bool // something changed meanwhile

	clock clock

	ready      chan struct{}
	readyDone  bool
	up, wanted atomic.Int64 // subscriptions that stand, and that should
	holders    atomic.Int64 // nodes that showed the record when it was read back
}

// failure says when a node may be tried again.
type failure struct {
	until time.Time
	times int
}

// subscription is one listening stream.
type subscription struct {
	cancel context.CancelFunc
	up     bool
}

func newPresence(n *Node, in *inbox) *presence {
	id := n.cfg.Identity
	return &presence{
		n: n, me: id, inbox: in, log: n.cfg.Logger, key: recordKey(id.DeviceID()),
		events: make(chan func()), metc: make(chan peer.ID, 64),
		subs: make(map[peer.ID]*subscription), failed: make(map[peer.ID]failure),
		ready: make(chan struct{}),
		pub:   publication{me: id, life: n.cfg.recordLife},
	}
}

// run is the owner loop, until ctx is done.
func (p *presence) run(ctx context.Context) {
	if p.n.service != nil {
		p.listenHere(ctx)
	}
	p.timer, p.next = time.NewTimer(0), time.Now()
	defer p.timer.Stop()
	joined := p.n.joiner.joined.Next() // held on to until it fires, or one would be missed
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-p.events:
			f()
		case <-joined:
			joined = p.n.joiner.joined.Next()
			first := p.pub.seq == 0
			p.pub.forget() // the network was empty: what it held is gone
			if first {
				p.schedule(0)
			} else {
				p.schedule(rand.N(announceWithin))
			}
		case id := <-p.metc:
			p.met(id)
		case <-p.timer.C:
			p.next = time.Time{}
			p.look(ctx)
			p.schedule(jittered(checkEvery))
		}
	}
}

// report has the owner run f, unless ctx ends first.
func (p *presence) report(ctx context.Context, f func()) {
	select {
	case p.events <- f:
	case <-ctx.Done():
	}
}

// schedule sets the next look, if that is sooner than what was set.
func (p *presence) schedule(d time.Duration) {
	at := time.Now().Add(d)
	if !p.next.IsZero() && p.next.Before(at) {
		return
	}
	p.next = at
	p.timer.Reset(d)
}

// meet tells presence, without blocking, of a node that came; one that is lost
// in the crowd is found by the next look.
func (p *presence) meet(id peer.ID) { pause.Tell(p.metc, id) }

// met has a look soon if the node is nearer than those that are listened to.
func (p *presence) met(id peer.ID) {
	if p.subs[id] != nil || p.near == nil {
		return
	}
	delete(p.failed, id) // it is alive
	if len(p.near) < replication || kbucket.Closer(id, p.near[replication-1], p.key) {
		p.schedule(jittered(checkSoon))
	}
}

// look asks the network who is nearest and reports it.
func (p *presence) look(ctx context.Context) {
	if p.looking {
		p.lookAgain = true
		return
	}
	p.looking, p.lookAgain = true, false
	p.n.life.Go(func(context.Context) {
		var near []peer.ID
		if p.n.joiner.populated() {
			near, _ = p.n.closest(ctx, p.key) // what was found in time will do
		}
		p.report(ctx, func() { p.looked(ctx, near) })
	})
}

// looked brings subscriptions and publication in line with who is nearest.
func (p *presence) looked(ctx context.Context, near []peer.ID) {
	p.looking = false
	if p.lookAgain {
		p.schedule(0)
	}
	if len(near) == 0 && !p.n.joiner.alone() {
		p.schedule(jittered(checkEvery)) // joined comes first
		return
	}
	p.near = near
	p.reconcile(ctx)
	p.publish(ctx)
}

// reconcile starts the subscriptions that are missing and ends those that are
// far off by now. One that still stands is kept within twice the number, so that
// a flapping node does not make all others flap.
func (p *presence) reconcile(ctx context.Context) {
	now := time.Now()
	want := 0
	for i, id := range p.near {
		if want == replication {
			break
		}
		if f, failed := p.failed[id]; failed && now.Before(f.until) && p.subs[id] == nil {
			continue
		}
		want++
		if p.subs[id] == nil && i < bucketSize {
			p.subscribe(ctx, id)
		}
	}
	p.wanted.Store(int64(want))
	keep := p.near[:min(len(p.near), 2*replication)]
	for id, s := range p.subs {
		if !slices.Contains(keep, id) {
			s.cancel()
		}
	}
	p.checkReady()
}

func (p *presence) subscribe(ctx context.Context, id peer.ID) {
	sctx, cancel := context.WithCancel(ctx)
	s := &subscription{cancel: cancel}
	p.subs[id] = s
	ok := p.n.life.Go(func(context.Context) {
		defer cancel()
		err := p.listen(sctx, id, func(ahead time.Duration) {
			p.report(ctx, func() { p.stands(id, s, ahead) })
		})
		err = errors.Join(sctx.Err(), err) // before this goroutine's own cancel
		p.report(ctx, func() { p.lost(ctx, id, s, err) })
	})
	if !ok {
		delete(p.subs, id)
		cancel()
	}
}

// stands notes that a subscription was accepted by a node whose clock this one
// is so far ahead of.
func (p *presence) stands(id peer.ID, s *subscription, ahead time.Duration) {
	if p.subs[id] != s {
		return // it was dropped meanwhile
	}
	s.up = true
	if p.clock.note(id, ahead) {
		p.log.Warn("dht: signals and records will be refused" + p.clock.hint())
	}
	p.up.Add(1)
	delete(p.failed, id)
	p.checkReady()
}

// lost notes that a subscription ended, and has it replaced.
func (p *presence) lost(ctx context.Context, id peer.ID, s *subscription, err error) {
	p.drop(id, s)
	p.clock.forget(id)
	if errors.Is(err, context.Canceled) {
		return // ended by reconcile
	}
	delete(p.pub.holders, id) // it may have been restarted, and what it held is gone
	f := p.failed[id]
	f.times = min(f.times+1, 8)
	f.until = time.Now().Add(jittered(min(retryMin<<(f.times-1), retryMax)))
	if len(p.failed) >= maxFailedNodes {
		clear(p.failed) // then some are tried again sooner
	}
	p.failed[id] = f
	p.log.Debug("dht: subscription lost", "node", id.String(), "err", err)
	p.reconcile(ctx)                                // the next nearest takes its place at once
	p.schedule(time.Until(f.until) + time.Second/8) // and who is nearest may have changed
}

// checkReady opens ready once the record is held somewhere and at least half of
// the wanted subscriptions stand: the rest may hang on a node that is gone.
func (p *presence) checkReady() {
	if p.readyDone || p.near == nil && !p.n.joiner.alone() {
		return
	}
	want := p.wanted.Load()
	subscribed := p.up.Load() > 0 && 2*p.up.Load() >= want
	published := p.holders.Load() > 0
	if p.n.serves() && p.n.joiner.alone() {
		subscribed, published = true, p.pub.seq > 0 // with itself, for now
	}
	if p.n.neighbours != nil && p.n.joiner.alone() {
		subscribed, published = true, true // by neighbours, and there is nobody else
	}
	if subscribed && published {
		p.readyDone = true
		close(p.ready)
	}
}

// nodes lists who should hold the record: the nearest that Kademlia asks.
func (p *presence) nodes() []peer.ID { return slices.Clone(p.near[:min(len(p.near), bucketSize)]) }

// publish puts the record where it is due or missing.
func (p *presence) publish(ctx context.Context) {
	if p.publishing {
		p.publishAgain = true
		return
	}
	p.publishAgain = false
	missing := p.pub.due(p.n.cfg.now(), p.nodes())
	if len(missing) == 0 && p.pub.seq > 0 {
		return
	}
	value, err := p.pub.current(p.n.cfg.now())
	if err != nil {
		p.log.Error("dht: the device's record cannot be made", "err", err)
		return
	}
	p.publishing = true
	p.n.life.Go(func(context.Context) {
		seq := p.n.publish(ctx, p.key, value, missing, func(id peer.ID) {
			p.report(ctx, func() { p.held(id) })
		})
		p.report(ctx, func() { p.published(ctx, seq) })
	})
}

// held notes a node that holds the record. Others may be slow, or never answer.
func (p *presence) held(id peer.ID) {
	p.pub.note(id)
	p.holders.Store(int64(len(p.pub.holders)))
	p.checkReady()
}

// published ends a round. A node that holds a newer record of ours means that a
// clock was set back, or that the device runs twice.
func (p *presence) published(ctx context.Context, newer uint64) {
	p.publishing = false
	p.checkReady()
	if p.pub.overtake(newer, p.n.cfg.now()) {
		p.log.Warn("dht: nodes hold a newer record of this device: its clock was set back, or it runs twice", "seq", newer)
		p.publish(ctx)
		return
	}
	if len(p.pub.holders) == 0 && !p.n.joiner.alone() {
		p.log.Warn("dht: no node holds this device's record: it cannot be found for now"+p.clock.hint(), "asked", len(p.near))
		p.schedule(jittered(minRecordRefresh))
	}
	if p.publishAgain {
		p.publish(ctx)
	}
	p.log.Debug("dht: record published", "seq", p.pub.seq, "nodes", slices.Collect(maps.Keys(p.pub.holders)))
}
