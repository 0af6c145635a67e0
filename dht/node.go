package dht

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"

	"peerlink/identity"
	"peerlink/internal/life"
	"peerlink/internal/quota"
)

// errClosed matches net.ErrClosed.
var errClosed = fmt.Errorf("dht: the node is closed: %w", net.ErrClosed)

// Node is a running member of the network. Its methods may be called
// concurrently. Close ends it.
type Node struct {
	cfg       Config
	host      host.Host
	kad       *kad.IpfsDHT
	messenger *messenger
	joiner    *joiner
	service   *service // nil for a client, unless it serves its neighbours
	hub       *hub
	records   *store
	disk      *disk     // nil without a data folder, and for a client
	inbox     *inbox    // nil without an identity
	presence  *presence // nil without an identity
	memory    *memory   // nil without a ReachFile

	auto       *auto       // nil unless the mode is Auto
	neighbours *neighbours // nil without LAN
	cache      *lru.Cache[identity.DeviceID, found]
	callers    *lru.Cache[identity.DeviceID, found]     // what callers told of themselves
	told       *lru.Cache[identity.DeviceID, time.Time] // until when a device knows our sealing key
	sending    chan struct{}                            // one for each signal being put
	drops      *drops

	life life.Group // ends when Close begins: every goroutine of the node's own

	lastSum atomic.Pointer[Delivery] // of the last signal; nil: there was none
	closeMe func() error
}

// Start starts a node. It returns as soon as the node runs on this machine: the
// network need not be there, it is joined in the background, again and again
// with growing, jittered pauses. ctx bounds this call only. Its errors are about
// the Config, the key file and the listening addresses.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	bootstrap, err := cfg.check()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("dht: start: %w", err)
	}
	n := &Node{
		cfg: cfg, drops: new(drops), records: newStore(),
		cache:   quota.NewLRU[identity.DeviceID, found](cacheLen),
		callers: quota.NewLRU[identity.DeviceID, found](cacheLen),
		told:    quota.NewLRU[identity.DeviceID, time.Time](cacheLen),
		sending: make(chan struct{}, maxDeliveries),
	}
	if err := n.open(); err != nil {
		return nil, err
	}
	n.joiner = newJoiner(n.host, n.kad, bootstrap, n.memory.nodes(), cfg.Logger)
	n.closeMe = sync.OnceValue(n.shutdown)
	if err := n.start(); err != nil {
		_ = n.Close()
		return nil, fmt.Errorf("dht: start: %w", err)
	}
	return n, nil
}

// open opens the data folder and makes the host and its Kademlia part, or none
// of them.
func (n *Node) open() (err error) {
	if n.cfg.Mode == Server && n.cfg.DataDir != "" {
		if n.disk, err = openDisk(n.cfg.DataDir, n.records, n.cfg.Logger); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				_ = n.disk.close()
			}
		}()
	}
	if n.cfg.Mode == Auto {
		n.auto = &auto{n: n, lookc: make(chan struct{}, 1)}
	}
	if n.host, err = newHost(n.cfg, n.auto); err != nil {
		return err
	}
	if n.memory = openMemory(n.cfg.ReachFile, n.cfg.Logger); n.memory != nil {
		n.memory.host = n.host
	}
	n.records.place(n.host.ID())
	if n.kad, err = newKad(n.cfg, n.host, n.records, &guard{drops: n.drops, values: n.records, now: time.Now, rates: requestRates(recordRate)}); err != nil {
		_ = n.host.Close()
	}
	return err
}

func (n *Node) start() error {
	var err error
	if n.messenger, err = newMessenger(n.host); err != nil {
		return err
	}
	n.hub = newHub(n.cfg.MaxListeners, n.cfg.MaxStored, n.drops)
	met := n.memory.noteNode
	if n.cfg.Identity != nil {
		n.inbox = newInbox(n.cfg, n.drops)
		n.inbox.met = n.called
		n.presence = newPresence(n, n.inbox)
		met = func(p peer.ID) { n.memory.noteNode(p); n.presence.meet(p) }
	}
	sub, err := n.host.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerIdentificationFailed), new(event.EvtPeerConnectednessChanged),
	}, eventbus.BufSize(256))
	if err != nil {
		return err
	}
	n.life.Go(func(ctx context.Context) { n.joiner.watch(ctx, sub, met) })
	if n.cfg.Mode != Client || n.cfg.LAN {
		n.serve()
	}
	if n.auto != nil {
		n.life.Go(n.auto.run)
	}
	if n.cfg.LAN {
		n.neighbours = &neighbours{n: n, log: n.cfg.Logger, now: time.Now, seen: make(map[peer.ID]neighbour), dialing: make(map[peer.ID]bool)}
		n.life.Go(n.neighbours.run)
	}
	if n.memory != nil {
		n.life.Go(n.memory.run)
	}
	if n.disk != nil {
		n.life.Go(n.disk.run)
	}
	if n.presence != nil {
		n.life.Go(n.presence.run)
		n.life.Go(n.heartbeat)
	}
	n.life.Go(n.joiner.run)
	n.life.Go(n.follow)
	return nil
}

func (n *Node) serve() {
	n.service = newService(n.host, n.hub, n.records, n.drops, n.cfg.Logger, &n.life)
	n.service.auto, n.service.public = n.auto, n.cfg.public
	if id := n.cfg.Identity; id != nil {
		n.service.card = &card{me: id, life: n.cfg.recordLife, now: n.cfg.now}
		if n.cfg.Mode != Server {
			me := id.DeviceID()
			n.service.only = &me
		}
	}
	n.host.SetStreamHandler(pushProtocol, n.service.handle)
	n.life.Go(n.service.sweeper)
}

// serves reports whether this node serves everybody now.
func (n *Node) serves() bool { return n.cfg.Mode == Server || n.auto.addrs() != nil }

// Addrs returns the multiaddresses under which others can use this node as a
// bootstrap node, each with its /p2p/ID. A client has none.
func (n *Node) Addrs() []string {
	var addrs []string
	for _, a := range n.host.Addrs() {
		addrs = append(addrs, a.String()+"/p2p/"+n.host.ID().String())
	}
	return addrs
}

// Ready blocks until the device can be found and called: nodes showed its record
// when it was read back, and at least half of the nodes nearest to it push its
// signals. A node without an identity is ready when it knows another node, or
// was told of none. The error says what is missing; it matches
// os.ErrDeadlineExceeded or net.ErrClosed.
func (n *Node) Ready(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.life.Context(), cancel)()
	if n.presence == nil {
		if err := n.joiner.wait(ctx); err != nil {
			return n.explain(ctx, fmt.Errorf("dht: not ready: none of %d bootstrap nodes was reached: %w", len(n.joiner.nodes), err))
		}
		return nil
	}
	select {
	case <-n.presence.ready:
		return nil
	case <-ctx.Done():
		h := n.Health()
		return n.explain(ctx, fmt.Errorf("dht: not ready: %d nodes known, the record held by %d, %d of %d subscriptions up%s: %w",
			h.Table, h.Holders, h.Subscriptions, h.Wanted, n.presence.clock.hint(), ctx.Err()))
	}
}

// Receive returns the next signal: sent by from, who signed it, to this device
// alone, within the last 30 s, and not delivered before. It blocks until there is
// one; the error matches net.ErrClosed after Close, and is ctx's otherwise.
func (n *Node) Receive(ctx context.Context) (from identity.Peer, msg []byte, err error) {
	if n.inbox == nil {
		return identity.Peer{}, nil, errNoIdentity
	}
	s, err := n.receive(ctx, n.inbox.queue)
	return s.from, s.body, err
}

// ReceiveLetter is Receive for letters: sent is when the letter was signed, by
// its sender's clock, at most 10 min ago. A letter is delivered once, but after a
// restart of this device once more if nodes still keep it. At most 64 letters
// wait here; the nodes keep others for their life and bring them when this device
// listens anew.
func (n *Node) ReceiveLetter(ctx context.Context) (from identity.Peer, msg []byte, sent time.Time, err error) {
	if n.inbox == nil {
		return identity.Peer{}, nil, time.Time{}, errNoIdentity
	}
	s, err := n.receive(ctx, n.inbox.letterQueue)
	return s.from, s.body, s.at, err
}

var errNoIdentity = errors.New("dht: receive: this node has no identity to receive for")

func (n *Node) receive(ctx context.Context, queue *quota.Queue[signal]) (signal, error) {
	s, ok := queue.Take(ctx, n.life.Done())
	switch {
	case ok:
		return s, nil
	case n.life.Ended():
		return signal{}, errClosed
	}
	return signal{}, n.explain(ctx, fmt.Errorf("dht: receive: %w", ctx.Err()))
}

// Close ends the node and waits for everything it began. Calls that wait return
// an error that matches net.ErrClosed. It may be called more than once.
func (n *Node) Close() error { return n.closeMe() }

func (n *Node) shutdown() error {
	n.life.End()
	err := errors.Join(n.kad.Close(), n.host.Close()) // which is what interrupts reads
	n.life.Wait()
	if n.disk != nil {
		err = errors.Join(err, n.disk.close())
	}
	if err != nil {
		return fmt.Errorf("dht: close: %w", err)
	}
	return nil
}
