package dht

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
)

func somePeer(t *testing.T) peer.ID {
	t.Helper()
	_, pub, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The library may put the first entry into the table before we do; whoever waits
// must hear of it all the same.
func TestFirstEntryIsTold(t *testing.T) {
	n := start(t, Config{Mode: Server})
	for round := range 3 {
		joined := n.joiner.joined.Next()
		p := somePeer(t)
		if n.joiner.populated() {
			t.Fatal("the table is not empty")
		}
		// The library may just be looking who is alive, and throw it out again.
		eventually(t, "an entry stays", func() bool {
			if _, err := n.kad.RoutingTable().TryAddPeer(p, true, true); err != nil {
				t.Fatal(err)
			}
			return n.joiner.populated()
		})
		select {
		case <-joined:
		default:
			t.Errorf("round %d: nobody was told", round)
		}
		again := n.joiner.joined.Next()
		if n.joiner.populated() {
			select {
			case <-again:
				t.Errorf("round %d: told twice", round)
			default:
			}
		}
		n.kad.RoutingTable().RemovePeer(p)
	}
}

// fault: E7
func TestPacesAreJittered(t *testing.T) {
	id := newIdentity(t, "alice")
	seen := map[time.Duration]bool{}
	for range 100 {
		p := publication{me: id, life: time.Hour}
		if _, err := p.current(t0); err != nil {
			t.Fatal(err)
		}
		after := p.refreshAt.Sub(t0)
		if after < time.Hour/5 || after > time.Hour/3 {
			t.Fatalf("refreshed after %v", after)
		}
		seen[after.Truncate(time.Second)] = true
		if d := jittered(time.Minute); d < 45*time.Second || d > 75*time.Second {
			t.Fatalf("jittered to %v", d)
		}
	}
	if len(seen) < 50 {
		t.Errorf("%d different refreshes of 100", len(seen))
	}
}

func TestPublicationIsRefreshedAndRepaired(t *testing.T) {
	p := publication{me: newIdentity(t, "alice"), life: time.Hour}
	near := []peer.ID{"a", "b", "c"}
	if got := p.due(t0, near); len(got) != 3 {
		t.Errorf("at first to %q", got)
	}
	first, err := p.current(t0)
	if err != nil {
		t.Fatal(err)
	}
	p.note("a")
	p.note("c")
	if got := p.due(t0, near); len(got) != 1 || got[0] != "b" {
		t.Errorf("what is missing goes to %q", got)
	}
	if same, err := p.current(t0.Add(time.Minute)); err != nil || string(same) != string(first) {
		t.Errorf("made anew too early, %v", err)
	}
	seq := p.seq
	if got := p.due(t0.Add(time.Hour/2), near); len(got) != 3 {
		t.Errorf("when it is over, to %q", got)
	}
	if _, err := p.current(t0.Add(-time.Hour)); err != nil { // the clock was set back
		t.Fatal(err)
	}
	p.forget()
	if _, err := p.current(t0.Add(-time.Hour)); err != nil || p.seq != seq+1 {
		t.Errorf("number %d after %d, %v", p.seq, seq, err)
	}
	if p.overtake(p.seq-1, t0) {
		t.Error("an older record was answered")
	}
	if newer := p.seq + 1000; !p.overtake(newer, t0) || p.seq <= newer || p.overtake(p.seq+1000, t0) {
		t.Error("a newer record is to be answered once")
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	n := start(t, Config{Mode: Server, Bootstrap: []string{"/ip4/127.0.0.1/tcp/1/p2p/" + somePeer(t).String()}})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := n.joiner.wait(ctx); err != context.Canceled {
		t.Error(err)
	}
}

// A bootstrap node that did not say what it speaks is joined all the same, over
// another connection: over the first one it is not asked again.
// fault: E5
func TestNodeThatDidNotSayWhatItSpeaksIsAskedAnew(t *testing.T) {
	node := start(t, Config{Mode: Server})
	asked := make(chan struct{}, 1)
	node.host.SetStreamHandler(identify.ID, func(s network.Stream) {
		_ = s.Reset()
		select {
		case asked <- struct{}{}:
		default:
		}
	})
	device := start(t, Config{Mode: Server, Bootstrap: node.Addrs()})
	select {
	case <-asked:
	case <-testContext(t).Done():
		t.Fatal("the node was not asked what it speaks")
	}
	says, err := identify.NewIDService(node.host)
	if err != nil {
		t.Fatal(err)
	}
	says.Start()
	defer says.Close()
	ready(t, device)
}
