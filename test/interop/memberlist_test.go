package interop_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
)

const (
	packetURI, streamURI = "memberlist://packet", "memberlist://stream"
	// packetLen is the length of memberlist's packets in bytes: each fits into one
	// datagram of a QUIC connection.
	packetLen = 1000
	// queueLen is how many packets may wait for a channel to a member.
	queueLen = 64
)

// gossip is memberlist's transport over peerlink. A member's name is its device
// id, packets are datagrams of a channel to each member, a stream is a channel.
type gossip struct {
	device  *device
	packets chan *memberlist.Packet
	streams chan net.Conn
	ctx     context.Context
	end     context.CancelFunc
	life    sync.WaitGroup

	mu     sync.Mutex
	queues map[identity.DeviceID]chan []byte
}

func newGossip(t *testing.T, d *device) *gossip {
	g := &gossip{
		device: d, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		queues: map[identity.DeviceID]chan []byte{},
	}
	g.ctx, g.end = context.WithCancel(t.Context())
	packets, streams := d.listen(t, packetURI), d.listen(t, streamURI)
	context.AfterFunc(g.ctx, func() { _, _ = packets.Close(), streams.Close() })
	g.life.Go(func() { g.accept(packets, g.receive) })
	g.life.Go(func() { g.accept(streams, g.hand) })
	return g
}

// accept gives each channel of a listener to a goroutine.
func (g *gossip) accept(l net.Listener, take func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		g.life.Go(func() { take(c) })
	}
}

// hand gives a stream to memberlist.
func (g *gossip) hand(c net.Conn) {
	select {
	case g.streams <- c:
	case <-g.ctx.Done():
		_ = c.Close()
	}
}

// receive gives the packets of a channel to memberlist.
func (g *gossip) receive(c net.Conn) {
	defer context.AfterFunc(g.ctx, func() { _ = c.Close() })()
	defer c.Close()
	from, _ := peerlink.PeerOf(c)
	for {
		buf := make([]byte, packetLen)
		n, err := c.Read(buf) // one datagram
		if err != nil {
			return
		}
		p := &memberlist.Packet{Buf: buf[:n], From: deviceAddr(from.Device.String()), Timestamp: time.Now()}
		select {
		case g.packets <- p:
		case <-g.ctx.Done():
			return
		}
	}
}

// send sends the packets of a queue, by a new channel where there is none.
func (g *gossip) send(to identity.DeviceID, queue <-chan []byte) {
	var c *channel.Socket
	for {
		select {
		case p := <-queue:
			if c == nil {
				ctx, cancel := context.WithTimeout(g.ctx, 5*time.Second)
				if conn, err := g.device.dial(ctx, to, packetURI); err == nil {
					c = conn.(*channel.Socket)
				}
				cancel()
			}
			if c == nil {
				continue // the packet is lost, as packets may be
			}
			if err := c.SendUnreliable(p); err != nil && !errors.Is(err, channel.ErrWouldBlock) {
				_ = c.Close()
				c = nil
			}
		case <-g.ctx.Done():
			if c != nil {
				_ = c.Close()
			}
			return
		}
	}
}

// FinalAdvertiseAddr implements memberlist.Transport: a made-up address, which
// nothing dials.
func (g *gossip) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	id := g.device.id()
	return append(net.IP{0xfd}, id[:15]...), 1, nil
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (g *gossip) WriteToAddress(p []byte, to memberlist.Address) (time.Time, error) {
	id, err := identity.ParseDeviceID(to.Name)
	if err != nil {
		return time.Time{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ctx.Err() != nil {
		return time.Time{}, net.ErrClosed
	}
	queue := g.queues[id]
	if queue == nil {
		queue = make(chan []byte, queueLen)
		g.queues[id] = queue
		g.life.Go(func() { g.send(id, queue) })
	}
	select {
	case queue <- bytes.Clone(p):
	default: // lost, too
	}
	return time.Now(), nil
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (g *gossip) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	id, err := identity.ParseDeviceID(to.Name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(g.ctx, timeout)
	defer cancel()
	return g.device.dial(ctx, id, streamURI)
}

// WriteTo implements memberlist.Transport. All members have names.
func (g *gossip) WriteTo([]byte, string) (time.Time, error) {
	return time.Time{}, fmt.Errorf("a packet to no name")
}

// DialTimeout implements memberlist.Transport. All members have names.
func (g *gossip) DialTimeout(string, time.Duration) (net.Conn, error) {
	return nil, fmt.Errorf("a stream to no name")
}

// PacketCh implements memberlist.Transport.
func (g *gossip) PacketCh() <-chan *memberlist.Packet { return g.packets }

// StreamCh implements memberlist.Transport.
func (g *gossip) StreamCh() <-chan net.Conn { return g.streams }

// Shutdown implements memberlist.Transport.
func (g *gossip) Shutdown() error {
	g.mu.Lock()
	g.end() // from now on no queue is made
	g.mu.Unlock()
	g.life.Wait()
	return nil
}

// watcher keeps what one member's memberlist has told.
type watcher struct {
	news chan struct{} // has room for one

	mu   sync.Mutex
	seen map[string]bool
}

func (w *watcher) note(what, of string) {
	w.mu.Lock()
	w.seen[what+of] = true
	w.mu.Unlock()
	select {
	case w.news <- struct{}{}:
	default:
	}
}

func (w *watcher) saw(what, of string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[what+of]
}

// await waits until memberlist has told something.
func (w *watcher) await(ctx context.Context, t *testing.T, what, of string) {
	t.Helper()
	for !w.saw(what, of) {
		select {
		case <-w.news:
		case <-ctx.Done():
			t.Fatalf("no %s%.100s", what, of)
		}
	}
}

// Implementations of memberlist.EventDelegate, PingDelegate (which hears of
// answers to packets, not to streams) and Delegate.
func (w *watcher) NotifyJoin(n *memberlist.Node)  { w.note("join ", n.Name) }
func (w *watcher) NotifyLeave(n *memberlist.Node) { w.note("leave ", n.Name) }
func (*watcher) NotifyUpdate(*memberlist.Node)    {}
func (*watcher) AckPayload() []byte               { return nil }
func (w *watcher) NotifyPingComplete(other *memberlist.Node, _ time.Duration, _ []byte) {
	w.note("answer ", other.Name)
}
func (w *watcher) NotifyMsg(p []byte)            { w.note("message ", string(p)) }
func (*watcher) NodeMeta(int) []byte             { return nil }
func (*watcher) GetBroadcasts(int, int) [][]byte { return nil }
func (*watcher) LocalState(bool) []byte          { return nil }
func (*watcher) MergeRemoteState([]byte, bool)   {}

// peer is one member: its device, its memberlist and what that told.
type peer struct {
	*device
	*watcher
	list *memberlist.Memberlist
}

func (p *peer) name() string { return p.id().String() }

func newPeer(t *testing.T, d *device) *peer {
	t.Helper()
	p := &peer{device: d, watcher: &watcher{news: make(chan struct{}, 1), seen: map[string]bool{}}}
	cfg := memberlist.DefaultLocalConfig()
	cfg.Name, cfg.RequireNodeNames, cfg.UDPBufferSize = p.name(), true, packetLen
	cfg.Transport, cfg.Events, cfg.Ping, cfg.Delegate = newGossip(t, d), p.watcher, p.watcher, p.watcher
	cfg.TCPTimeout = 10 * time.Second // the first stream to a member makes a link
	cfg.LogOutput = io.Discard        // not the test's: memberlist's goroutines may outlive it
	if testing.Verbose() {
		cfg.LogOutput = os.Stderr
	}
	list, err := memberlist.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := list.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	p.list = list
	return p
}

// Three members find each other by hashicorp/memberlist, probe each other by
// datagrams and send messages by streams. One dies, and the others notice.
func TestMemberlist(t *testing.T) {
	t.Parallel()
	ctx := limited(t)
	w := newWorld(t, way{carrier: "ice", engine: "udp", dht: true})
	var peers []*peer
	for _, name := range []string{"alice", "bob", "carol"} {
		peers = append(peers, newPeer(t, w.device(t, name)))
	}
	for _, p := range peers[1:] {
		if _, err := p.list.Join([]string{peers[0].name() + "/127.0.0.1:1"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range peers {
		for _, o := range peers {
			if p != o {
				p.await(ctx, t, "join ", o.name())
				p.await(ctx, t, "answer ", o.name())
			}
		}
	}
	sendEach(ctx, t, peers, "three")

	victim, left := peers[2], peers[:2]
	if err := victim.Close(); err != nil { // without a word to memberlist
		t.Fatal(err)
	}
	for _, p := range left {
		p.await(ctx, t, "leave ", victim.name())
		p.took(t, w.way)
	}
	sendEach(ctx, t, left, "two")
}

// sendEach has each member send a long message to each other one.
func sendEach(ctx context.Context, t *testing.T, peers []*peer, word string) {
	t.Helper()
	long := strings.Repeat(word, 100_000)
	for _, p := range peers {
		for _, n := range p.list.Members() {
			if n.Name == p.name() {
				continue
			}
			if err := p.list.SendReliable(n, []byte(p.name()+long)); err != nil {
				t.Error(err)
			}
		}
	}
	for _, p := range peers {
		for _, o := range peers {
			if p != o {
				p.await(ctx, t, "message ", o.name()+long)
			}
		}
	}
}
