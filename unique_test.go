package peerlink_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
)

var unique = peerlink.ConnectOptions{UniqueName: true}

func TestUniqueNameIsOneChannelForAllWhoAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		accepted := bob.accepted(t, "*")
		alice.port.dials = func(ctx context.Context) error { return wait(ctx, time.Second) }
		ask := func(uri string, opts peerlink.ConnectOptions) *channel.Socket {
			s, err := alice.ConnectDevice(background, bob.id.DeviceID(), uri, opts)
			if err != nil {
				t.Error(err)
			}
			return s
		}
		var mu sync.Mutex
		got := map[*channel.Socket]bool{}
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 200 * time.Millisecond) // before, during and after the connect
				s := ask("sync://1", unique)
				mu.Lock()
				defer mu.Unlock()
				got[s] = true
			})
		}
		wg.Wait()
		if len(got) != 1 {
			t.Fatalf("ten calls got %d channels", len(got))
		}
		first := ask("sync://1", unique)
		if !got[first] || ask("sync://2", unique) == first || ask("sync://1", peerlink.ConnectOptions{}) == first {
			t.Error("another name, or a normal call, got the same channel; or the same name another one")
		}
		theirs := <-accepted
		back, err := bob.ConnectDevice(background, alice.id.DeviceID(), "sync://1", unique)
		if err != nil || back != theirs {
			t.Errorf("the other side got %p, %v, want %p", back, err, theirs)
		}
		_ = first.Close()
		synctest.Wait()
		if again := ask("sync://1", unique); again == first {
			t.Error("a closed channel was handed out")
		}
	})
}

// fault: B4. Row 49.
func TestUniqueNameAskedForByBothAtOnceIsOneChannel(t *testing.T) {
	bySeed(t, 200, 2, uniqueOnce)
}

func uniqueOnce(t *testing.T, r *rand.Rand, ids [2]*identity.Identity) {
	n := newNetwork("memory")
	n.latency = time.Duration(r.IntN(2)*r.IntN(40)) * time.Millisecond
	var ds [2]*device
	for i := range ds {
		thinking := time.Duration(r.IntN(2)*r.IntN(50)) * time.Millisecond
		ds[i] = n.deviceOf(t, ids[i], func(c *peerlink.Config) {
			c.OnChannelRequest = func(ctx context.Context, _ identity.Peer, _ string) error { return wait(ctx, thinking) }
			c.OnConnectionReady = func(_ identity.Peer, s *channel.Socket) {}
		})
	}
	if r.IntN(2) == 0 { // connected before, and busy: answers overtake what waits behind bulk
		bulk := [2]*channel.Socket{connect(t, ds[0], ds[1], "other://0"), connect(t, ds[1], ds[0], "other://1")}
		for _, s := range bulk {
			go func() { _, _ = s.Write(make([]byte, 200_000)) }()
		}
	}
	var got [2][]*channel.Socket
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range ds {
		for range 2 {
			start := time.Duration(r.IntN(60)) * time.Millisecond
			wg.Go(func() {
				time.Sleep(start)
				ctx, cancel := within(time.Minute)
				defer cancel()
				s, err := ds[i].ConnectDevice(ctx, ds[1-i].id.DeviceID(), "sync://", unique)
				if err != nil {
					t.Errorf("device %d: %v", i, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				got[i] = append(got[i], s)
			})
		}
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for i := range got {
		if got[i][0] != got[i][1] {
			t.Errorf("device %d has two", i)
		}
	}
	a, b := got[0][0], got[1][0]
	if _, err := a.Write([]byte("ping")); err != nil {
		t.Error(err)
	}
	_ = b.SetReadDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 8)
	if k, err := b.Read(buf); err != nil || string(buf[:k]) != "ping" {
		t.Errorf("the two ends are not of one channel: %q, %v", buf[:k], err)
	}
	time.Sleep(time.Second)
	synctest.Wait()
	for i, d := range ds {
		n := 0
		for c := range d.Links() {
			for _, s := range c.Channels {
				if s.URI == "sync://" {
					n++
				}
			}
		}
		if n != 1 {
			t.Errorf("device %d has %d channels of the name", i, n)
		}
	}
}

func TestUniqueCallerLeavesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		alice.port.dials = func(ctx context.Context) error { return wait(ctx, 5*time.Second) }
		results := make(chan error, 2)
		for _, d := range []time.Duration{time.Second, time.Minute} { // the impatient one begins it
			go func() {
				ctx, cancel := within(d)
				defer cancel()
				_, err := alice.ConnectDevice(ctx, bob.id.DeviceID(), "sync://", unique)
				results <- err
			}()
			synctest.Wait()
		}
		if err := <-results; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the impatient one got %v", err)
		}
		if err := <-results; err != nil {
			t.Errorf("the patient one got %v", err)
		}
	})
}

func TestUniqueRequestThatIsDeclinedIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		if _, err := alice.ConnectDevice(background, bob.id.DeviceID(), "sync://", unique); !errors.Is(err, peerlink.ErrDeclined) {
			t.Errorf("got %v", err)
		}
		bob.echo(t, "sync://*")
		s, err := alice.ConnectDevice(background, bob.id.DeviceID(), "sync://", unique)
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, s, "hello")
	})
}
