package dht

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	record "github.com/libp2p/go-libp2p-record"
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
)

// hostile is a node that speaks the protocols and lies.
type hostile struct {
	host.Host
	// get answers a request for the record under key.
	get func(key string) *recpb.Record
	// stored is told of each record that the node pretends to store.
	stored func(value []byte)
}

func startHostile(t *testing.T, hs *hostile, boot *Node) *hostile {
	t.Helper()
	cfg := Config{Mode: Server, Listen: []string{loopback}}
	if _, err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	var err error
	if hs.Host, err = newHost(cfg, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hs.Close() })
	if hs.get == nil {
		hs.get = func(string) *recpb.Record { return nil }
	}
	hs.SetStreamHandler(kadProtocol, hs.serveKad)
	hs.SetStreamHandler(pushProtocol, hs.servePush)
	if boot != nil {
		if err := hs.Connect(testContext(t), peer.AddrInfo{ID: boot.host.ID(), Addrs: boot.host.Addrs()}); err != nil {
			t.Fatal(err)
		}
	}
	return hs
}

func (h *hostile) addrs() []string {
	return []string{h.Addrs()[0].String() + "/p2p/" + h.ID().String()}
}

func (h *hostile) serveKad(s network.Stream) {
	defer func() { _ = s.Reset() }()
	r := msgio.NewVarintReaderSize(s, 1<<20)
	for {
		raw, err := r.ReadMsg()
		m := new(pb.Message)
		if err != nil || proto.Unmarshal(raw, m) != nil {
			return
		}
		reply := pb.NewMessage(m.GetType(), m.GetKey(), 0)
		switch m.GetType() {
		case pb.Message_PUT_VALUE:
			reply.Record = m.GetRecord() // "stored"
			if h.stored != nil {
				h.stored(m.GetRecord().GetValue())
			}
		case pb.Message_GET_VALUE:
			reply.Record = h.get(string(m.GetKey()))
		}
		if _, err := protodelim.MarshalTo(s, reply); err != nil {
			return
		}
	}
}

// servePush says of every signal that it was pushed, and accepts every listener.
func (h *hostile) servePush(s network.Stream) {
	defer func() { _ = s.Reset() }()
	k, _, err := readFrame(s, maxPutLen)
	switch {
	case err != nil:
		return
	case k == kindPut:
		_, _ = s.Write(appendFrame(nil, kindTaken, []byte{statusPushed}))
		_ = s.Close()
	case k == kindListen:
		_, _ = s.Write(appendFrame(nil, kindChallenge, make([]byte, nonceLen)))
		if _, _, err := readFrame(s, maxProofLen); err != nil {
			return
		}
		_, _ = s.Write(appendFrame(nil, kindListening))
		_, _, _ = readFrame(s, 1) // until the device goes
	}
}

// A hostile node in the routing table answers with garbage, another device's
// record or an expired one, and swallows signals: the honest node's answer is
// taken, and the signal arrives through it.
//
// fault: E4
func TestHostileNodeCannotForgeARecordOrSwallowASignal(t *testing.T) {
	eve := newIdentity(t, "eve")
	for name, lie := range map[string]func(bob *Node) []byte{
		"garbage":          func(*Node) []byte { return bytes.Repeat([]byte("garbage"), 1000) },
		"another's record": func(*Node) []byte { return mustRecord(t, eve, maxSequence, time.Now()) },
		"an expired record": func(bob *Node) []byte {
			return mustRecord(t, bob.cfg.Identity, maxSequence, time.Now().Add(-2*time.Hour))
		},
		"a record too long": func(*Node) []byte { return make([]byte, maxRecordLen+1) },
		"nothing":           func(*Node) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			node := startNodes(t, 1)[0]
			var value atomic.Pointer[[]byte] // set once the lie can be made
			startHostile(t, &hostile{get: func(key string) *recpb.Record {
				if v := value.Load(); v != nil && *v != nil {
					return record.MakePutRecord(key, *v)
				}
				return nil
			}}, node)
			eventually(t, "the hostile node is in the table", func() bool { return node.Health().Table == 1 })
			bob := device(t, "bob", node)
			v := lie(bob)
			value.Store(&v)
			alice := device(t, "alice", node)
			eventually(t, "alice knows both", func() bool { return alice.Health().Table == 2 })
			rec, err := alice.Lookup(testContext(t), bob.id())
			if err != nil || rec.Peer.Device != bob.id() || time.Now().After(rec.Expires) {
				t.Fatalf("%+v, %v", rec, err)
			}
			exchange(t, alice, bob, "in spite of it")
		})
	}
}

// A node that says that it stored the record but shows none does not count.
//
// fault: E6
func TestPublicationThatCannotBeReadBackDoesNotCount(t *testing.T) {
	read := make(chan struct{}, 100)
	put := make(chan struct{}, 100)
	liar := startHostile(t, &hostile{
		get:    func(string) *recpb.Record { read <- struct{}{}; return nil },
		stored: func([]byte) { put <- struct{}{} },
	}, nil)
	alice := start(t, Config{Identity: newIdentity(t, "alice"), Bootstrap: liar.addrs()})
	for what, c := range map[string]chan struct{}{"put": put, "read back": read} {
		select {
		case <-c:
		case <-testContext(t).Done():
			t.Fatalf("no record was %s", what)
		}
	}
	ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
	defer cancel()
	if err := alice.Ready(ctx); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ready: %v", err)
	}
	if h := alice.Health(); h.Holders != 0 || h.Subscriptions != 1 {
		t.Errorf("health %+v", h)
	}
}

// A node that floods a device through its subscription is cut by its rate, and
// signals through another node still arrive.
//
// fault: E2
func TestNodeThatFloodsItsListenerIsDropped(t *testing.T) {
	nodes := startNodes(t, 2)
	alice, bob := device(t, "alice", nodes[0]), device(t, "bob", nodes[1])
	eventually(t, "both nodes have both devices", func() bool {
		a, _ := nodes[0].hub.size()
		b, _ := nodes[1].hub.size()
		return a+b == 4
	})
	const flood = 5000
	nodes[0].hub.mu.Lock()
	l := nodes[0].hub.boxes[bob.id()].listeners[0]
	nodes[0].hub.mu.Unlock()
	for i := range flood {
		l.queue <- []byte{byte(i), byte(i >> 8)}
	}
	eventually(t, "the flood was dropped", func() bool {
		return bob.drops[dropSourceRate].Load()+bob.drops[dropRate].Load()+bob.drops[dropSealed].Load() == flood
	})
	limit := uint64(openShare * defaultSignalRate * (burstSeconds + int(deadline/time.Second)))
	if opened := bob.drops[dropSealed].Load(); opened > limit || bob.drops[dropSourceRate].Load() == 0 {
		t.Errorf("%d were opened: %v", opened, bob.Health().Dropped)
	}
	bob.inbox.opens.SetBurst(1 << 20) // as if the seconds had passed that the rate in all needs
	bob.inbox.opens.SetLimit(1 << 20)
	exchange(t, alice, bob, "through the other node")
}

// One of two bootstrap nodes is hostile: it names nobody, shows no record and
// says of everything that it stored or pushed it. Devices that know both are
// found and called through the honest one.
//
// fault: E4, E5
func TestOneHostileBootstrapNodeOfTwoOnlyDelays(t *testing.T) {
	honest := startNodes(t, 3)
	liar := startHostile(t, &hostile{}, nil)
	both := append(liar.addrs(), honest[0].Addrs()...)
	alice := start(t, Config{Identity: newIdentity(t, "alice"), Bootstrap: both})
	bob := start(t, Config{Identity: newIdentity(t, "bob"), Bootstrap: both})
	ready(t, alice)
	ready(t, bob)
	eventually(t, "bob's record is at honest nodes", func() bool { return bob.Health().Holders == len(honest) })
	exchange(t, alice, bob, "offer")
	exchange(t, bob, alice, "answer")
	if _, err := alice.SendLetter(testContext(t), bob.id(), []byte("letter"), time.Minute); err != nil {
		t.Error(err)
	}
	if _, msg, _, err := bob.ReceiveLetter(testContext(t)); err != nil || string(msg) != "letter" {
		t.Errorf("%q, %v", msg, err)
	}
}

// A device changes its place five times in a row; whoever calls it reaches the
// latest one, and what it said before is not taken any more.
//
// fault: E9
func TestDeviceThatMovesFiveTimesIsReachedWhereItIs(t *testing.T) {
	nodes := startNodes(t, 3)
	alice := device(t, "alice", nodes[0])
	id := newIdentity(t, "bob")
	var last uint64
	for i := range 5 {
		near := nodes[i%3]
		bob := start(t, Config{Identity: id, Bootstrap: near.Addrs()})
		ready(t, bob)
		var rec Record
		eventually(t, "alice finds the record of this place", func() bool { // ready says: a node shows it
			alice.cache.Purge()
			var err error
			rec, err = alice.Lookup(testContext(t), id.DeviceID())
			return err == nil && rec.Seq > last
		})
		if last > 0 {
			eventually(t, "the node near bob holds it", func() bool {
				stored, err := near.records.Get(testContext(t), storeKey([]byte(recordKey(id.DeviceID()))))
				if err != nil {
					return false
				}
				held, err := decodeRecord(envelopeOf(stored).GetValue(), id.DeviceID(), time.Now())
				return err == nil && held.Seq > last
			})
			m, err := newMessenger(bareHost(t, near))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.put(testContext(t), near.host.ID(), recordKey(id.DeviceID()), mustRecord(t, id, last, time.Now())); err == nil {
				t.Errorf("place %d: the record of the one before was taken", i)
			}
		}
		last = rec.Seq
		exchange(t, alice, bob, "offer")
		if err := bob.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
