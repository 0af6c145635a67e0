package webrtc_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"peerlink/dht"
	"peerlink/identity"
	"peerlink/internal/signalling"
	"peerlink/webrtc"
	"peerlink/webrtc/switchboard"
)

var _ webrtc.Signaller = (*dht.Node)(nil)

// patience is what tests wait for that is to happen, on a machine however busy.
const patience = time.Minute

func withPatience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// node starts a node of the DHT on loopback that ends with the test. Without an
// identity it serves.
func node(t *testing.T, me *identity.Identity, bootstrap []string) *dht.Node {
	t.Helper()
	cfg := dht.Config{Identity: me, Bootstrap: bootstrap}
	if me == nil {
		cfg.Mode, cfg.Listen = dht.Server, []string{"/ip4/127.0.0.1/tcp/0"}
	}
	n, err := dht.Start(withPatience(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// dhtNodes starts three nodes that know each other.
func dhtNodes(t *testing.T) []string {
	t.Helper()
	first := node(t, nil, nil)
	all := []*dht.Node{first, node(t, nil, first.Addrs()), node(t, nil, first.Addrs())}
	for _, n := range all {
		if err := n.Ready(withPatience(t)); err != nil {
			t.Fatal(err)
		}
	}
	return first.Addrs()
}

// reached is a device on this carrier alone.
type reached struct {
	*webrtc.Transport
	id identity.DeviceID
}

// overDHT makes a device whose signals go over what wire makes of its node.
func overDHT(t *testing.T, name string, bootstrap []string, wire func(*identity.Identity, *dht.Node) webrtc.Signaller) reached {
	t.Helper()
	me, err := identity.Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	n := node(t, me, bootstrap)
	if err := n.Ready(withPatience(t)); err != nil {
		t.Fatal(err)
	}
	w, err := webrtc.New(webrtc.Config{Identity: me, Signaller: wire(me, n), Loopback: true, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return reached{w, me.DeviceID()}
}

// call has one device dial another that greets whoever comes.
func call(ctx context.Context, from, to reached, text string) error {
	greeted := make(chan error, 1)
	go func() {
		conn, peer, err := to.Accept(ctx)
		if err == nil && peer.Device != from.id {
			err = fmt.Errorf("accepted %v", peer)
		}
		if err == nil {
			_, err = io.WriteString(conn, text)
			conn.Close()
		}
		greeted <- err
	}()
	conn, peer, err := from.Dial(ctx, to.id)
	if err != nil {
		return err
	}
	defer conn.Close()
	if peer.Device != to.id {
		return fmt.Errorf("dialled %v", peer)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != text {
		return fmt.Errorf("read %q: %w", got, err)
	}
	return <-greeted
}

// Two devices that have nothing but a DHT in common call each other up over it,
// each the other at the same time. fault: E3
func TestOverADHT(t *testing.T) {
	bootstrap := dhtNodes(t)
	plain := func(_ *identity.Identity, n *dht.Node) webrtc.Signaller { return n }
	a, b := overDHT(t, "alice", bootstrap, plain), overDHT(t, "bob", bootstrap, plain)
	ctx := withPatience(t)
	var calls sync.WaitGroup
	calls.Go(func() {
		if err := call(ctx, a, b, "hello alice"); err != nil {
			t.Errorf("alice calls bob: %v", err)
		}
	})
	calls.Go(func() {
		if err := call(ctx, b, a, "hello bob"); err != nil {
			t.Errorf("bob calls alice: %v", err)
		}
	})
	calls.Wait()
}

// A device on a switchboard reaches one that is on the DHT alone: the switchboard
// says that it is not there, and the DHT, which another carrier reads as well,
// carries the call.
func TestOverADHTBesideASwitchboard(t *testing.T) {
	bootstrap, url := dhtNodes(t), board(t)
	split := func(n *dht.Node) *signalling.Branch {
		s := signalling.Split(n, nil, nil, signalling.Kinds{To: 15}, signalling.Kinds{From: 16, To: 19})
		t.Cleanup(func() { s.Close() })
		return s.Branch(1)
	}
	onBoth := func(me *identity.Identity, n *dht.Node) webrtc.Signaller {
		line, err := switchboard.Dial(withPatience(t), url, switchboard.Config{Identity: me})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { line.Close() })
		j := signalling.Join(nil, nil, line, split(n))
		t.Cleanup(func() { j.Close() })
		return j
	}
	onDHT := func(_ *identity.Identity, n *dht.Node) webrtc.Signaller { return split(n) }
	a, b := overDHT(t, "alice", bootstrap, onBoth), overDHT(t, "bob", bootstrap, onDHT)
	ctx := withPatience(t)
	for _, c := range []struct{ from, to reached }{{a, b}, {b, a}} {
		if err := call(ctx, c.from, c.to, "hello"); err != nil {
			t.Error(err)
		}
	}
}

// A device that is not on the DHT is not reached, in time, and the error says so.
func TestOverADHTNobodyThere(t *testing.T) {
	bootstrap := dhtNodes(t)
	a := overDHT(t, "alice", bootstrap, func(_ *identity.Identity, n *dht.Node) webrtc.Signaller { return n })
	nobody, err := identity.Generate("nobody")
	if err != nil {
		t.Fatal(err)
	}
	var conn net.Conn
	if conn, _, err = a.Dial(withPatience(t), nobody.DeviceID()); err == nil {
		conn.Close()
		t.Fatal("reached")
	}
	if !strings.Contains(err.Error(), "no record of this device was found") {
		t.Error(err)
	}
}
