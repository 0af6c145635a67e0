package connectionmanager_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/multiplex"
)

func TestS04_PeerOfVersion1(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		old := func(c *peerlink.Config) { c.Link = multiplex.Config{Version: 1} }
		strict := func(c *peerlink.Config) { c.Link = multiplex.Config{MinVersion: 2, BeaconTimeout: time.Second} }
		alice, bob, carol := w.device(t, "alice", old), w.device(t, "bob", nil), w.device(t, "carol", strict)
		bob.echoing(t, "*")
		carol.echoing(t, "*")
		c := connect(t, alice, bob, "chat://bob")
		exchange(t, c, "hello")
		bob.ConnectivityChanged() // has no beacon for such a peer
		exchange(t, c, "still here")
		if _, err := alice.ConnectDevice(background, carol.id.DeviceID(), "chat://carol", peerlink.ConnectOptions{}); err == nil {
			t.Error("version 1 was let in where it is switched off")
		}
		if _, err := carol.ConnectDevice(background, alice.id.DeviceID(), "chat://alice", peerlink.ConnectOptions{}); err == nil || !strings.Contains(err.Error(), "no hello") {
			t.Errorf("version 1 is switched off: %v", err)
		}
	})
}

func TestS09_ManyChannelsOfBothSidesTwice(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		ends := func(d *device) {
			channels := d.accepting(t, "*")
			go func() {
				for c := range channels {
					go func() { // the acceptor closes
						buf := make([]byte, 32)
						if _, err := io.ReadFull(c, buf); err == nil {
							_, _ = c.Write(buf)
						}
						_ = c.Close()
					}()
				}
			}()
		}
		ends(alice)
		ends(bob)
		connect(t, alice, bob, "first://").Close()
		for round := range 2 {
			var wg sync.WaitGroup
			for i := range scaled {
				for k, d := range [][2]*device{{alice, bob}, {bob, alice}} {
					wg.Go(func() {
						uri := fmt.Sprintf("n://%d/%d/%d", round, k, i)
						c := connect(t, d[0], d[1], uri)
						defer c.Close()
						want := fmt.Sprintf("%-32s", uri)
						_, _ = io.WriteString(c, want)
						if got, err := io.ReadAll(c); err != nil || string(got) != want {
							t.Errorf("%s: %q, %v", uri, got, err)
						}
					})
				}
			}
			wg.Wait()
		}
		if len(alice.Connections()) != 1 {
			t.Errorf("%d links", len(alice.Connections()))
		}
	})
}

func TestS11_ManyCallersMakeOneConnection(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		bob.echoing(t, "*")
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() { exchange(t, connect(t, alice, bob, fmt.Sprint("chat://", i)), "hello") })
		}
		wg.Wait()
		if a, b := alice.Metrics(), bob.Metrics(); a.Opened != 1 || b.Opened != 1 || a.Failed != 0 {
			t.Errorf("64 callers: %+v, and at the other end %+v", a, b)
		}
	})
}

func TestS19_EveryConnectSucceedsWhileLinksAreKilled(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		channels := bob.accepting(t, "*")
		go func() {
			for c := range channels {
				go func() { // each channel reports its end
					_, _ = c.Read(make([]byte, 1))
					_ = c.Close()
				}()
			}
		}()
		connect(t, alice, bob, "first://")
		var wg sync.WaitGroup
		kill := make(chan struct{}, 4)
		wg.Go(func() {
			for range kill {
				bob.CloseConnectionsWith(alice.id.DeviceID())
			}
		})
		var opens sync.WaitGroup
		for i := range scaled {
			if i%100 == 50 {
				kill <- struct{}{}
			}
			opens.Go(func() {
				c := connect(t, alice, bob, fmt.Sprintf("n://%d", i))
				wg.Go(func() {
					if _, err := c.Read(make([]byte, 1)); err == nil {
						t.Errorf("channel %d read something", i)
					}
				})
			})
			if i%10 == 0 {
				opens.Wait()
			}
		}
		opens.Wait()
		close(kill)
		alice.CloseConnectionsWith(bob.id.DeviceID())
		wg.Wait()
		eventually(t, "no link is left", func() bool { return len(alice.Connections())+len(bob.Connections()) == 0 })
	})
}

func TestS32_ConnectionsAndChannelsAreListed(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		bob.echoing(t, "*")
		alice.echoing(t, "*")
		began := time.Now()
		a, b := connect(t, alice, bob, "chat://1"), connect(t, bob, alice, "chat://2")
		exchange(t, a, "twelve bytes")
		exchange(t, b, "more")
		eventually(t, "the round trip is known", func() bool { return alice.Connections()[0].RTT > 0 })
		c, d := alice.Connections()[0], bob.Connections()[0]
		if c.Peer.Device != bob.id.DeviceID() || c.Direction != peerlink.Outbound || d.Direction != peerlink.Inbound || c.Carrier == "" || c.Path == (peerlink.Path{}) || c.ID.IsZero() {
			t.Errorf("alice %+v, bob %+v", c, d)
		}
		if c.LocalAddr == nil || c.RemoteAddr == nil || c.Created.Before(began) || c.LastActivity.Before(c.Created) || c.BytesSent < 16 || c.BytesReceived < 16 || c.FramesReceived == 0 {
			t.Errorf("alice %+v", c)
		}
		byURI := map[string]peerlink.ChannelInfo{}
		for _, ci := range c.Channels {
			byURI[ci.URI] = ci
		}
		one, two := byURI["chat://1"], byURI["chat://2"]
		if one.Direction != peerlink.Outbound || one.BytesSent != 12 || one.BytesReceived != 12 || one.ID != a.ID() || one.Created.Before(began) {
			t.Errorf("her channel: %+v", one)
		}
		if two.Direction != peerlink.Inbound || two.BytesSent != 4 || two.ID != b.ID() {
			t.Errorf("his channel: %+v", two)
		}
	})
}

func TestS36_TooLongAURIFailsAlone(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		bob.echoing(t, "*")
		c := connect(t, alice, bob, "chat://"+strings.Repeat("x", 248))
		for _, uri := range []string{"chat://" + strings.Repeat("x", 249), strings.Repeat("x", 1<<20), "", "a\x00b", "\xff", "\u202egnp.exe"} { // fault: B6
			if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), uri, peerlink.ConnectOptions{}); !errors.Is(err, multiplex.ErrBadName) {
				t.Errorf("%.20q: %v", uri, err)
			}
		}
		exchange(t, c, "still here")
		if len(alice.Connections()) != 1 {
			t.Error("the link was lost")
		}
	})
}

func TestS45_S51_UniqueNameIsOneChannel(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		incoming := bob.accepting(t, "*")
		ask := func(d, to *device, uri string, unique bool) *channel.Socket {
			s, err := d.ConnectDevice(background, to.id.DeviceID(), uri, peerlink.ConnectOptions{UniqueName: unique})
			if err != nil {
				t.Error(err)
			}
			return s
		}
		var wg sync.WaitGroup
		got := make([]*channel.Socket, 20)
		for i := range got {
			wg.Go(func() { got[i] = ask(alice, bob, "sync://1", true) })
		}
		wg.Wait()
		for i, s := range got {
			if s != got[0] {
				t.Fatalf("call %d got another channel", i)
			}
		}
		theirs := await(t, incoming, never)
		if ask(bob, alice, "sync://1", true) != theirs || ask(alice, bob, "sync://2", true) == got[0] || ask(alice, bob, "sync://1", false) == got[0] {
			t.Error("the peer got another channel; or another name, or a normal call, the same")
		}
		_ = got[0].Close()
		if again := ask(alice, bob, "sync://1", true); again == got[0] {
			t.Error("a closed channel was handed out")
		}
	})
}

func TestS48_UniqueNameAskedForByBothAtOnce(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		alice.accepting(t, "*")
		bob.accepting(t, "*")
		ds := [2]*device{alice, bob}
		for round := range 20 {
			uri := fmt.Sprint("sync://", round)
			var got [2]*channel.Socket
			var wg sync.WaitGroup
			for i := range ds {
				wg.Go(func() {
					s, err := ds[i].ConnectDevice(background, ds[1-i].id.DeviceID(), uri, peerlink.ConnectOptions{UniqueName: true})
					if err != nil {
						t.Error(err)
						return
					}
					got[i] = s
				})
			}
			wg.Wait()
			if t.Failed() {
				return
			}
			_, _ = io.WriteString(got[0], "ping")
			_ = got[1].SetReadDeadline(time.Now().Add(patience))
			buf := make([]byte, 4)
			if _, err := io.ReadFull(got[1], buf); err != nil || string(buf) != "ping" {
				t.Fatalf("round %d: the ends are not of one channel: %q, %v", round, buf, err)
			}
		}
	})
}

// fault: E3
func TestS53_BothConnectAtOnce(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		for round := range 5 {
			ds := [2]*device{w.device(t, fmt.Sprint("alice", round), nil), w.device(t, fmt.Sprint("bob", round), nil)}
			ds[0].echoing(t, "*")
			ds[1].echoing(t, "*")
			var wg sync.WaitGroup
			start := make(chan struct{})
			for i := range ds {
				for k := range 4 {
					wg.Go(func() {
						<-start
						c := connect(t, ds[i], ds[1-i], fmt.Sprintf("chat://%d/%d", i, k))
						for range 20 {
							exchange(t, c, "hello")
						}
						eventually(t, "one link", func() bool { return len(ds[0].Connections()) == 1 && len(ds[1].Connections()) == 1 })
						exchange(t, c, "still here")
					})
				}
			}
			close(start)
			wg.Wait()
			if t.Failed() {
				return
			}
			a, b := ds[0].Connections()[0], ds[1].Connections()[0]
			if a.Direction == b.Direction || len(a.Channels) != 8 || len(b.Channels) != 8 {
				t.Errorf("round %d: %v link with %d channels, %v link with %d", round, a.Direction, len(a.Channels), b.Direction, len(b.Channels))
			}
		}
	})
}

func TestS63_Statistics(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		bob.echoing(t, "chat://*")
		exchange(t, connect(t, alice, bob, "chat://1"), strings.Repeat("x", 10_000))
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "none://", peerlink.ConnectOptions{}); !errors.Is(err, peerlink.ErrDeclined) {
			t.Error(err)
		}
		stranger := newIdentity(t, "stranger")
		if _, err := alice.ConnectDevice(background, stranger.DeviceID(), "x://", peerlink.ConnectOptions{Carriers: []string{alice.Connections()[0].Carrier}}); err == nil {
			t.Error("connected to nobody")
		}
		carrier := alice.Connections()[0].Carrier
		m := alice.Metrics()
		if m.Opened != 1 || m.Closed != 0 || m.Links != 1 || m.Failed != 1 || m.Channels != 1 || m.BytesSent < 10_000 || m.BytesReceived < 10_000 || m.Connecting != 0 {
			t.Errorf("totals %+v", m)
		}
		if c := m.Carriers[carrier]; c.Opened != 1 || c.Failed != 1 || c.BytesSent < 10_000 || c.FramesSent == 0 || c.FramesReceived == 0 {
			t.Errorf("of %s: %+v", carrier, m.Carriers)
		}
		// Alice may hear of the answer before Bob has counted it.
		eventually(t, "bob's totals", func() bool { m := bob.Metrics(); return m.Accepted == 1 && m.Declined == 1 })
		sent := m.BytesSent
		alice.CloseConnectionsWith(bob.id.DeviceID())
		if m := alice.Metrics(); m.Closed != 1 || m.Links != 0 || m.BytesSent < sent {
			t.Errorf("after the end %+v", m)
		}
	})
}

func TestS66_ListenersEndAndGoOn(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		l, err := bob.Listen("chat://*")
		if err != nil {
			t.Fatal(err)
		}
		gone := connect(t, alice, bob, "chat://gone") // and before anybody accepts it:
		_ = gone.Close()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("a client gone early: %v", err)
		}
		accepting := make(chan error, 1)
		go func() { _, err := l.Accept(); accepting <- err }()
		_ = l.Close()
		if err := <-accepting; !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed during accept: %v", err)
		}
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "chat://2", peerlink.ConnectOptions{}); !errors.Is(err, peerlink.ErrDeclined) {
			t.Errorf("nobody listens: %v", err)
		}
		bob.echoing(t, "chat://*") // the pattern is free again
		exchange(t, connect(t, alice, bob, "chat://3"), "hello")
	})
}

func TestS67_StateChangesAreTold(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		bob.echoing(t, "*")
		ctx, cancel := context.WithTimeout(background, patience) // an event that does not come is missed
		defer cancel()
		var mu sync.Mutex
		told := map[*device][]string{}
		var wg sync.WaitGroup
		for _, d := range []*device{alice, bob} {
			events := d.Events(ctx)
			wg.Go(func() {
				for e := range events {
					mu.Lock()
					told[d] = append(told[d], fmt.Sprintf("%v %v", e.Kind, e.Direction))
					over := e.Kind == peerlink.LinkDown && len(told[d]) > 3
					mu.Unlock()
					if over {
						return
					}
				}
			})
		}
		for range 2 {
			exchange(t, connect(t, alice, bob, "chat://1"), "hello")
			bob.CloseConnectionsWith(alice.id.DeviceID())
			eventually(t, "no link", func() bool { return len(alice.Connections()) == 0 })
		}
		wg.Wait()
		hers := strings.Repeat("connecting inbound, link up outbound, link down outbound, ", 2)
		his := strings.Repeat("link up inbound, link down inbound, ", 2)
		for d, want := range map[*device]string{alice: hers, bob: his} {
			if got := strings.Join(told[d], ", ") + ", "; got != want {
				t.Errorf("%s was told %s\nwant %s", d.id.Name(), got, want)
			}
		}
	})
}

func TestS68_AdoptedStreamIsALink(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		bob.echoing(t, "*")
		a, b := net.Pipe()
		go func() {
			if _, err := bob.AddConn(background, b, alice.id.Peer(), peerlink.Inbound); err != nil {
				t.Error(err)
			}
		}()
		id, err := alice.AddConn(background, a, bob.id.Peer(), peerlink.Outbound)
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, connect(t, alice, bob, "chat://1"), "hello")
		if cs := alice.Connections(); len(cs) != 1 || cs[0].ID != id || cs[0].Carrier != "adopted" {
			t.Errorf("links: %+v", cs)
		}
		if err := alice.CloseLink(id); err != nil {
			t.Error(err)
		}
		exchange(t, connect(t, alice, bob, "chat://2"), "by the carrier now")
	})
}
