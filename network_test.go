package peerlink_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/multiplex"
	"peerlink/peerlinktest"
)

// quiet has a device send no beacons of its own accord.
func quiet(c *peerlink.Config) { c.Link = multiplex.Config{BeaconInterval: -1} }

// on puts a device on a network that the test cuts.
func on(n *peerlinktest.Network, name string, change func(*peerlink.Config)) *device {
	p := new(port)
	peer := n.Peer(name, func(c *peerlink.Config) {
		p.over, c.Dialers[0] = c.Dialers[0], p
		if change != nil {
			change(c)
		}
	})
	return &device{peer.ConnectionManager, peer.Identity, p}
}

// fault: F2. Rows 27 and 28.
func TestChangedNetworkReplacesLinksThatDoNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peerlinktest.New(t)
		alice, bob, carol := on(n, "alice", quiet), on(n, "bob", quiet), on(n, "carol", quiet)
		bob.echo(t, "*")
		carol.echo(t, "*")
		lost, kept := connect(t, alice, bob, "chat://bob"), connect(t, alice, carol, "chat://carol")
		exchange(t, lost, "hello")
		exchange(t, kept, "hello")
		old := alice.Connections()[0].ID
		n.Silence("alice", "bob")
		began := time.Now()
		alice.ConnectivityChanged()
		events := alice.Events(background)
		for e := range events { // the successor, before the lost link has even ended
			if e.Kind == peerlink.LinkUp && !e.Initial {
				if d := time.Since(began); d < 2*time.Second || d > 3*time.Second || e.Peer.Name != "bob" {
					t.Errorf("a new link with %v after %v", e.Peer, d)
				}
				break
			}
		}
		exchange(t, connect(t, alice, bob, "chat://new"), "by the new link")
		if _, err := lost.Read(make([]byte, 1)); !errors.Is(err, multiplex.ErrDead) || time.Since(began) != 5*time.Second {
			t.Errorf("the lost channel: %v after %v", err, time.Since(began))
		}
		synctest.Wait()
		exchange(t, kept, "still here")
		cs := alice.Connections()
		if len(cs) != 2 || cs[0].ID == old || cs[1].ID == old {
			t.Errorf("links: %+v", cs)
		}
	})
}

// A link that breaks while it is asked whether it lives is replaced at once, if
// it had channels.
func TestLinkThatBreaksUnderProbeIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peerlinktest.New(t)
		alice, bob := on(n, "alice", nil), on(n, "bob", nil)
		bob.echo(t, "*")
		c := connect(t, alice, bob, "chat://bob")
		n.Silence("alice", "bob")
		alice.ConnectivityChanged()
		time.Sleep(time.Second)
		n.Reset("alice", "bob")
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the channel lives")
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if cs := alice.Connections(); alice.Metrics().Opened != 2 || len(cs) != 1 {
			t.Errorf("%d links were made, and there are %+v", alice.Metrics().Opened, cs)
		}
	})
}

// A change of the network while a link is asked has it asked again, once: the
// answer may have left before the change.
func TestLinkIsAskedAgainAfterAChangeUnderProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peerlinktest.New(t)
		alice, bob := on(n, "alice", quiet), on(n, "bob", quiet)
		bob.echo(t, "*")
		exchange(t, connect(t, alice, bob, "chat://bob"), "hello")
		synctest.Wait()
		sent := func() uint64 { return alice.Connections()[0].BytesSent }
		before := sent()
		alice.ConnectivityChanged()
		synctest.Wait()
		beacon := sent() - before
		n.Cut("alice", "bob")
		alice.ConnectivityChanged()
		synctest.Wait()
		alice.ConnectivityChanged()
		alice.ConnectivityChanged()
		synctest.Wait()
		n.Heal("alice", "bob")
		synctest.Wait()
		if n := sent() - before; beacon == 0 || n != 3*beacon {
			t.Errorf("%d bytes of beacons, want 3 of %d", n, beacon)
		}
	})
}

// A device that comes with another link may have lost the one before: that is
// asked, and not used for channels any more while it is silent.
func TestLinkOfADeviceThatComesAnewIsDoubted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peerlinktest.New(t)
		alice, bob := on(n, "alice", quiet), on(n, "bob", quiet)
		alice.echo(t, "*")
		bob.echo(t, "*")
		connect(t, alice, bob, "chat://old")
		n.Silence("alice", "bob") // and neither side is told of it
		s, err := bob.ConnectDevice(background, alice.id.DeviceID(), "chat://new", peerlink.ConnectOptions{Mode: peerlink.NewLink})
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, s, "hello")
		time.Sleep(2100 * time.Millisecond)
		began := time.Now()
		exchange(t, connect(t, alice, bob, "chat://back"), "hello")
		if d := time.Since(began); d != 0 {
			t.Errorf("it took %v: the silent link was used", d)
		}
	})
}

func TestLinkThatAnswersLateIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peerlinktest.New(t)
		alice, bob := on(n, "alice", nil), on(n, "bob", nil)
		bob.echo(t, "*")
		c := connect(t, alice, bob, "chat://bob")
		n.Cut("alice", "bob")
		alice.ConnectivityChanged()
		time.Sleep(4 * time.Second)
		n.Heal("alice", "bob")
		exchange(t, c, "late, but alive")
		time.Sleep(10 * time.Second)
		exchange(t, c, "and for good")
	})
}

// fault: C8
func TestIdleLinksOfMissingPeersAreNotReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peerlinktest.New(t)
		alice, bob := on(n, "alice", nil), on(n, "bob", nil)
		bob.echo(t, "*")
		_ = connect(t, alice, bob, "chat://bob").Close()
		time.Sleep(time.Second) // the bubble's: both ends know that the channel has ended
		n.Silence("alice", "bob")
		alice.ConnectivityChanged()
		time.Sleep(time.Minute)
		if n := alice.Metrics().Opened; n != 1 || len(alice.Connections()) != 0 {
			t.Errorf("%d links were made, there are %d: nobody wants one", n, len(alice.Connections()))
		}
	})
}

func TestIdleLinksAreClosedAndMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		idle := func(c *peerlink.Config) { c.IdleTimeout = time.Minute }
		alice, bob := n.newDevice(t, "alice", idle), n.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		c := connect(t, alice, bob, "chat://bob")
		time.Sleep(10 * time.Minute)
		exchange(t, c, "a channel keeps its link")
		_ = c.Close()
		closed := time.Now()
		for e := range alice.Events(background) {
			if e.Kind == peerlink.LinkDown {
				break
			}
		}
		if d := time.Since(closed); d < time.Minute || d > 91*time.Second {
			t.Errorf("closed after %v without channels", d)
		}
		synctest.Wait()
		if len(bob.Connections()) != 0 {
			t.Error("the peer was not told")
		}
		exchange(t, connect(t, alice, bob, "chat://bob"), "again")
	})
}

// A channel that is asked for just when its link is given up comes about.
func TestNoRequestIsLostToAnIdleLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		n.latency = 3 * time.Millisecond
		idle := func(c *peerlink.Config) { c.IdleTimeout = 20 * time.Millisecond }
		alice, bob := n.newDevice(t, "alice", idle), n.newDevice(t, "bob", idle)
		alice.echo(t, "*")
		bob.echo(t, "*")
		for i := range 200 {
			for _, d := range [][2]*device{{alice, bob}, {bob, alice}} {
				s := connect(t, d[0], d[1], fmt.Sprint("n://", i))
				exchange(t, s, "x")
				_ = s.Close()
				time.Sleep(time.Duration(15+i%13) * time.Millisecond)
			}
		}
		if m := alice.Metrics(); m.Opened < 10 {
			t.Errorf("only %d links: the test shows nothing", m.Opened)
		}
	})
}

func TestReconnectStormIsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const peers = 100
		n := peerlinktest.New(t)
		alice := on(n, "alice", nil)
		for i := range peers {
			p := on(n, fmt.Sprint("peer ", i), nil)
			p.echo(t, "*")
			connect(t, alice, p, "chat://")
		}
		n.Silence()
		var mu sync.Mutex
		var at []time.Duration
		began := time.Now()
		alice.port.dials = func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(began)-2*time.Second)
			return nil
		}
		alice.ConnectivityChanged()
		time.Sleep(4 * time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		late := 0
		for _, d := range at {
			if d > 300*time.Millisecond {
				late++
			}
		}
		if len(at) != peers || late < peers/3 || late > peers*9/10 {
			t.Errorf("%d dials, %d of them after more than 0.3 s; want %d, spread over a second", len(at), late, peers)
		}
	})
}
