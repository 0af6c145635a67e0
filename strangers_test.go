package peerlink_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
)

// knows changes a Config so that some devices are members.
func knows(devices ...*device) func(*peerlink.Config) {
	return func(c *peerlink.Config) {
		c.Trust = new(identity.Trust)
		for _, d := range devices {
			_ = c.Trust.Set(d.id.DeviceID(), identity.Allowed)
		}
	}
}

// crowd makes devices with keys of their own, which nobody knows.
func (n *network) crowd(t *testing.T, many int) (ds []*device) {
	t.Helper()
	for i := range many {
		ds = append(ds, n.newDevice(t, fmt.Sprint("key ", i), nil))
	}
	return ds
}

// another makes one more link and opens a channel on it.
func another(from, to *device, uri string) (*channel.Socket, error) {
	return from.ConnectDevice(background, to.id.DeviceID(), uri, peerlink.ConnectOptions{Mode: peerlink.NewLink})
}

// case: S11
func TestMembersHaveHalfOfTheLinks(t *testing.T) {
	const capacity = 60
	for name, use := range map[string]bool{"in use": true, "empty": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork("memory")
				members := []*device{}
				for i := range capacity {
					members = append(members, n.newDevice(t, fmt.Sprint("member ", i), nil))
				}
				bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
					knows(members...)(c)
					c.Capacity = capacity
				})
				bob.echo(t, "*")
				crowd := n.crowd(t, 100)
				up := takeLinks(t, crowd, bob, use)
				if most, taken := bob.Capacity(); most != taken || use && up != capacity || len(links(bob, crowd[0])) > 4 {
					t.Fatalf("%d links came up, %d of %d are there, %d of one stranger", up, taken, most, len(links(bob, crowd[0])))
				}
				began, in := time.Now(), 0
				for _, d := range members {
					if sock, err := d.ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{}); err == nil {
						exchange(t, sock, "hello")
						in++
					} else if !errors.Is(err, peerlink.ErrBusy) {
						t.Error(err)
					}
				}
				want := capacity // links that carry nothing give way, all of them
				if use {
					want = capacity / 2
				}
				if in != want || time.Since(began) != 0 {
					t.Errorf("%d members came in within %v, want %d", in, time.Since(began), want)
				}
				for _, d := range append(crowd, members...) {
					_ = d.Close()
				}
				synctest.Wait()
				if _, taken := bob.Capacity(); taken != 0 {
					t.Errorf("%d places are taken after all have left", taken)
				}
			})
		})
	}
}

// takeLinks has devices make as many links as they can, and use them or not. It
// returns how many came up.
func takeLinks(t *testing.T, crowd []*device, to *device, use bool) (up int) {
	t.Helper()
	for _, d := range crowd {
		for range 5 {
			sock, err := another(d, to, "x://")
			switch {
			case err == nil && use:
				up++
			case err == nil:
				up++
				_ = sock.Close()
			case !errors.Is(err, peerlink.ErrBusy):
				t.Fatal(err)
			}
		}
		time.Sleep(200 * time.Millisecond) // until all refusals are told
	}
	synctest.Wait()
	return up
}

// links returns the links of a manager with a device.
func links(of, with *device) (ls []peerlink.Connection) {
	for l := range of.Links() {
		if l.Peer.Device == with.id.DeviceID() {
			ls = append(ls, l)
		}
	}
	return ls
}

// A call of this side is no stranger's wish.
//
// case: S11
func TestOwnCallsHaveRoomWhileStrangersFillTheLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) { c.Capacity = 20 })
		bob.echo(t, "*")
		crowd := n.crowd(t, 20)
		for _, d := range crowd {
			exchange(t, connect(t, d, bob, "x://"), "hello")
		}
		for range 10 {
			called := n.newDevice(t, "called", nil)
			called.echo(t, "*")
			exchange(t, connect(t, bob, called, "x://"), "hello")
		}
		called := n.newDevice(t, "called", nil)
		if _, err := bob.ConnectDevice(background, called.id.DeviceID(), "x://", peerlink.ConnectOptions{}); !errors.Is(err, peerlink.ErrCapacity) {
			t.Errorf("what strangers use of their own half: %v", err)
		}
	})
}

// A link that carries nothing gives way to another stranger, once it had time to be
// used; one that is in use does not.
//
// case: S11
func TestAnEmptyLinkOfAStrangerGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) { c.Capacity = 3 })
		bob.echo(t, "*")
		crowd := n.crowd(t, 5)
		used := connect(t, crowd[0], bob, "x://")
		for _, d := range crowd[1:3] {
			_ = connect(t, d, bob, "x://").Close()
			time.Sleep(time.Second)
		}
		late, opts := crowd[3], peerlink.ConnectOptions{}
		if _, err := late.ConnectDevice(background, bob.id.DeviceID(), "x://", opts); !errors.Is(err, peerlink.ErrBusy) {
			t.Errorf("while all are new or in use: %v", err)
		}
		time.Sleep(4 * time.Second)
		exchange(t, connect(t, late, bob, "x://"), "hello")
		exchange(t, used, "hello")
		synctest.Wait()
		if len(links(bob, crowd[1])) != 0 || len(links(bob, crowd[2])) != 1 {
			t.Error("it was not the link that had no channel for longest")
		}
		time.Sleep(time.Minute)
		exchange(t, connect(t, crowd[4], bob, "x://"), "hello")
		if _, err := crowd[1].ConnectDevice(background, bob.id.DeviceID(), "x://", opts); !errors.Is(err, peerlink.ErrBusy) {
			t.Errorf("while all are in use: %v", err)
		}
	})
}

// A stranger may go on making links: those that it makes no use of go.
//
// case: S11
func TestAStrangersFifthLinkTakesThePlaceOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		bob.echo(t, "*")
		var socks []*channel.Socket
		for range 4 {
			sock, err := another(alice, bob, "x://")
			if err != nil {
				t.Fatal(err)
			}
			socks = append(socks, sock)
		}
		for range 5 {
			if _, err := another(alice, bob, "x://"); !errors.Is(err, peerlink.ErrBusy) {
				t.Errorf("a fifth link: %v", err)
			}
			time.Sleep(time.Second)
			_ = socks[0].Close()
			synctest.Wait()
			sock, err := another(alice, bob, "x://")
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if socks = append(socks[1:], sock); len(links(bob, alice)) != 4 {
				t.Errorf("%d links", len(links(bob, alice)))
			}
			for _, s := range socks {
				exchange(t, s, "hello")
			}
		}
	})
}

// case: S11
func TestADeviceThatBecomesAMemberKeepsItsLink(t *testing.T) {
	for name, known := range map[string]func(c *peerlink.Config, id identity.DeviceID){
		"it is allowed": func(c *peerlink.Config, id identity.DeviceID) { _ = c.Trust.Set(id, identity.Allowed) },
		"it is made a contact": func(c *peerlink.Config, id identity.DeviceID) {
			c.Trust.SetMembers(func(p identity.Peer) bool { return p.Device == id })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork("memory")
				crowd := n.crowd(t, 8)
				var cfg *peerlink.Config
				bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
					c.Trust, c.Capacity = new(identity.Trust), 4
					cfg = c
				})
				bob.echo(t, "*")
				trust := cfg.Trust
				for _, d := range crowd[:4] {
					_ = connect(t, d, bob, "x://").Close()
					time.Sleep(time.Second)
				}
				known(&peerlink.Config{Trust: trust}, crowd[0].id.DeviceID()) // its link is the oldest
				time.Sleep(10 * time.Second)
				for _, d := range crowd[4:7] {
					exchange(t, connect(t, d, bob, "x://"), "hello")
				}
				if len(links(bob, crowd[0])) != 1 {
					t.Error("its link has given way")
				}
				if _, err := crowd[7].ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{}); !errors.Is(err, peerlink.ErrBusy) {
					t.Error(err)
				}
			})
		})
	}
}

// case: S11
func TestMembersArriveWhileStrangersWaitForADecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		var asked atomic.Int32
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			knows(alice)(c)
			c.OnICERequest = func(ctx context.Context, p identity.Peer) error {
				if p.Name != "alice" {
					asked.Add(1)
					<-ctx.Done()
				}
				return context.Cause(ctx)
			}
		})
		bob.echo(t, "*")
		var calls sync.WaitGroup
		for _, d := range n.crowd(t, 150) {
			for range 5 {
				calls.Go(func() { _, _ = another(d, bob, "x://") })
			}
		}
		synctest.Wait()
		began := time.Now()
		exchange(t, connect(t, alice, bob, "chat://"), "hello")
		if d := time.Since(began); d != 0 || asked.Load() != 512 {
			t.Errorf("alice waited %v, and bob was asked %d times about strangers", d, asked.Load())
		}
		calls.Wait()
		time.Sleep(time.Minute)
		stranger := n.newDevice(t, "stranger", nil) // all is given back
		ctx, cancel := within(time.Second)
		defer cancel()
		_, _ = stranger.ConnectDevice(ctx, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{})
		if asked.Load() != 513 {
			t.Errorf("bob was asked %d times", asked.Load())
		}
	})
}

// case: S11, S5
func TestMembersAreServedWhileStrangersHoldCallbacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		release := make(chan struct{})
		var held atomic.Int32
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			knows(alice)(c)
			c.OnChannelRequest = func(context.Context, identity.Peer, string) error { return nil }
			c.OnConnectionReady = func(p identity.Peer, s *channel.Socket) {
				if p.Name != "alice" {
					held.Add(1)
					<-release
				}
				_, _ = io.WriteString(s, "hello")
			}
		})
		crowd := n.crowd(t, 100)
		for _, d := range crowd[:16] {
			for range 128 {
				connect(t, d, bob, "x://")
			}
		}
		synctest.Wait()
		var calls sync.WaitGroup
		for _, d := range crowd[16:] {
			calls.Go(func() {
				if _, err := d.ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{ChannelTimeout: time.Hour}); !errors.Is(err, peerlink.ErrDeclined) {
					t.Errorf("one more stranger: %v", err)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		for range 256 {
			if b, err := readOf(connect(t, alice, bob, "x://"), 5); err != nil || b != "hello" {
				t.Fatalf("alice got %q, %v", b, err)
			}
		}
		if d := time.Since(began); d != 0 || held.Load() != 2048 {
			t.Errorf("alice waited %v, strangers hold %d callbacks", d, held.Load())
		}
		calls.Wait()
		close(release)
		if b, err := readOf(connect(t, crowd[99], bob, "x://"), 5); err != nil || b != "hello" {
			t.Errorf("afterwards a stranger got %q, %v", b, err)
		}
	})
}

// A request that nobody decides holds a goroutine: strangers' have a bound.
//
// case: S5
func TestMembersAreAskedForWhileStrangersRequestsHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			knows(alice)(c)
			c.OnChannelRequest = func(ctx context.Context, p identity.Peer, _ string) error {
				if p.Name != "alice" {
					<-ctx.Done()
				}
				return errors.New("no")
			}
		})
		const each, all = 8, 400
		peerlink.LimitAsked(bob.ConnectionManager, each, all)
		bob.echo(t, "chat://*")
		crowd := n.crowd(t, 100)
		var calls sync.WaitGroup
		var declined atomic.Int32
		for _, d := range crowd[:99] {
			for range each + 2 {
				calls.Go(func() {
					_, err := d.ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{ChannelTimeout: time.Hour})
					if !errors.Is(err, peerlink.ErrDeclined) {
						t.Errorf("a stranger: %v", err)
					}
					declined.Add(1)
				})
			}
		}
		synctest.Wait()
		if want := int32(99*(each+2) - all); declined.Load() != want {
			t.Errorf("%d requests were declined at once, want %d", declined.Load(), want)
		}
		began := time.Now()
		exchange(t, connect(t, alice, bob, "chat://"), "hello")
		if d := time.Since(began); d != 0 {
			t.Errorf("alice waited %v", d)
		}
		calls.Wait()
		exchange(t, connect(t, crowd[99], bob, "chat://"), "hello")
	})
}

func readOf(c *channel.Socket, n int) (string, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	return string(b), err
}

// case: S11
func TestMembersAreAcceptedWhileStrangersFillAListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		bob := n.newDevice(t, "bob", knows(alice))
		l, err := bob.Listen("*")
		if err != nil {
			t.Fatal(err)
		}
		taken, declined := 0, 0
		var mu sync.Mutex
		var calls sync.WaitGroup
		for _, d := range n.crowd(t, 100) {
			for i := range 3 {
				calls.Go(func() {
					_, err := d.ConnectDevice(background, bob.id.DeviceID(), fmt.Sprint("x://", i), peerlink.ConnectOptions{ChannelTimeout: time.Hour})
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						taken++
					case errors.Is(err, peerlink.ErrDeclined):
						declined++
					default:
						t.Error(err)
					}
				})
			}
		}
		synctest.Wait()
		began := time.Now()
		for range 128 {
			connect(t, alice, bob, "x://")
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("alice waited %v", d)
		}
		calls.Wait()
		if taken != 128 || declined != 172 {
			t.Errorf("%d channels of strangers were taken, %d declined", taken, declined)
		}
		for range 256 {
			if _, err := l.Accept(); err != nil {
				t.Fatal(err)
			}
		}
		connect(t, n.newDevice(t, "stranger", nil), bob, "x://")
	})
}

// lineCount counts what is logged.
type lineCount struct{ n atomic.Int32 }

func (l *lineCount) Write(b []byte) (int, error) {
	l.n.Add(int32(strings.Count(string(b), "\n")))
	return len(b), nil
}

// Keys cost nothing: what is logged about all strangers has a bound, too.
//
// case: S11
func TestStrangersDoNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		log := new(lineCount)
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			knows(alice)(c)
			c.Logger = slog.New(slog.NewTextHandler(log, nil))
			c.OnICERequest = func(context.Context, identity.Peer) error { return errors.New("no") }
		})
		for _, d := range n.crowd(t, 150) {
			_, _ = d.ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{})
		}
		before := log.n.Load()
		if before > 120 {
			t.Errorf("%d lines about 150 strangers", before)
		}
		_, _ = alice.ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{})
		synctest.Wait()
		if log.n.Load() != before+1 {
			t.Error("nothing was logged about a member")
		}
	})
}

// Channels are memory: strangers' have at most half of what there is for them, and 8
// a link.
//
// case: S5
func TestMembersOpenChannelsWhileStrangersHoldAllTheirs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice := n.newDevice(t, "alice", nil)
		bob := n.newDevice(t, "bob", func(c *peerlink.Config) {
			knows(alice)(c)
			c.Link.Budget = multiplex.NewBudget(8 << 20) // 4 MiB for channels, 1 KiB each
		})
		bob.echo(t, "*")
		crowd, held := n.crowd(t, 100), 0
		for _, d := range crowd {
			for {
				if _, err := d.ConnectDevice(background, bob.id.DeviceID(), "x://", peerlink.ConnectOptions{}); err != nil {
					break
				}
				held++
			}
		}
		if held > 2048+8*len(crowd) || held < 2048 {
			t.Errorf("%d channels are held by strangers", held)
		}
		for range 200 {
			exchange(t, connect(t, alice, bob, "x://"), "hello")
		}
		for _, d := range crowd[:99] {
			_ = d.Close()
		}
		synctest.Wait()
		for range 200 {
			exchange(t, connect(t, crowd[99], bob, "x://"), "hello")
		}
	})
}
