package multiplex

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
)

// bounded is a conn that looks, before each Read, at how much its link holds unread.
type bounded struct {
	net.Conn
	link atomic.Pointer[Socket]
	most atomic.Int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if s := b.link.Load(); s != nil {
		b.most.Store(max(b.most.Load(), s.buffered.Load()))
	}
	return b.Conn.Read(p)
}

// within makes a link and fails the test if either side ever holds more unread
// than its bound.
func within(t *testing.T, cfg [2]Config, conns func() (a, b net.Conn)) (client, server *Socket) {
	t.Helper()
	a, b := conns()
	ends := [2]*bounded{{Conn: a}, {Conn: b}}
	client, server = Client(ends[0], cfg[0]), Server(ends[1], cfg[1])
	for i, s := range []*Socket{client, server} {
		ends[i].link.Store(s)
		t.Cleanup(func() {
			_ = s.Close()
			if most := ends[i].most.Load(); most > int64(s.cfg.MaxBuffered) {
				t.Errorf("%d bytes were unread, the bound is %d", most, s.cfg.MaxBuffered)
			}
		})
	}
	return client, server
}

// text is what channel i carries.
func text(all []byte, i, size int) []byte { return all[i%1000:][:size] }

// paused opens n channels of which each carries size bytes that are read after
// a while only, and wants all of them.
func paused(t *testing.T, client, server *Socket, n, size int, early bool) {
	all := random(1, size+1000)
	var writers, readers sync.WaitGroup
	go func() {
		for i := 0; ; i++ {
			r, err := server.Accept(t.Context())
			if err != nil {
				return
			}
			c, err := r.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			readers.Go(func() {
				defer c.Close()
				time.Sleep(3 * time.Second)
				var at int
				_, _ = fmt.Sscan(c.URI(), &at)
				if got, err := io.ReadAll(c); !bytes.Equal(got, text(all, at, size)) || err != nil {
					t.Errorf("channel %d: %d of %d bytes, %v", at, len(got), size, err)
				}
			})
		}
	}()
	open := client.Open
	if early {
		open = client.OpenEarly
	}
	for i := range n {
		c, err := open(t.Context(), fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		writers.Go(func() {
			if k, err := c.Write(text(all, i, size)); k != size || err != nil {
				t.Errorf("channel %d: %d written, %v", i, k, err)
			}
			_ = c.Close()
		})
	}
	writers.Wait()
	readers.Wait()
	if client.Err() != nil || server.Err() != nil {
		t.Errorf("the link ended: %v, %v", client.Err(), server.Err())
	}
	settle()
	for _, s := range []*Socket{client, server} {
		s.mu.Lock()
		if s.promised != 0 || s.early != 0 || s.lent != 0 || len(s.table) != 0 {
			t.Errorf("after all has ended %d bytes are promised, %d early, %d lent, to %d channels", s.promised, s.early, s.lent, len(s.table))
		}
		s.mu.Unlock()
	}
}

// case: E2
func TestReadersThatPauseLoseNothing(t *testing.T) {
	for name, c := range map[string]struct {
		n, size int
		early   bool
		cfg     Config
	}{
		"a thousand":            {n: 1000, size: 64 << 10},
		"a thousand, early":     {n: 1000, size: 64 << 10, early: true},
		"of a megabyte":         {n: 200, size: 1 << 20},
		"of a megabyte, early":  {n: 200, size: 1 << 20, early: true},
		"in little memory":      {n: 200, size: 64 << 10, early: true, cfg: Config{MaxBuffered: 128 << 10, Window: 64 << 10, MaxChannels: 300}},
		"with a budget":         {n: 40, size: 64 << 10, cfg: Config{Budget: NewBudget(4 << 20)}},
		"with a budget, early":  {n: 40, size: 64 << 10, early: true, cfg: Config{Budget: NewBudget(4 << 20)}},
		"more than may be open": {n: 3000, size: 3000, early: true, cfg: Config{MaxBuffered: 1 << 20}},
	} {
		t.Run(name, func(t *testing.T) {
			if raceEnabled {
				c.n /= 5
			}
			synctest.Test(t, func(t *testing.T) {
				client, server := within(t, [2]Config{{}, c.cfg}, net.Pipe)
				paused(t, client, server, c.n, c.size, c.early)
			})
		})
	}
}

// All ids of both halves; every hundredth channel is read late.
//
// case: E2
func TestEveryIDCarriesItsBytesBesideSlowReaders(t *testing.T) {
	n, bound := int(lastClientID), 16<<20
	if testing.Short() || raceEnabled {
		n, bound = 600, 16<<20/55
	}
	const size = 2000
	all := random(2, size+1000)
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{MaxBuffered: bound, Window: 64 << 10, MaxChannels: 2 * n}
		client, server := within(t, [2]Config{cfg, cfg}, net.Pipe)
		var wg sync.WaitGroup
		late := make(chan struct{})
		for _, s := range []*Socket{client, server} {
			serve(s, func(c *channel.Socket) {
				defer wg.Done()
				var at int
				_, _ = fmt.Sscan(c.URI(), &at)
				if at%100 == 0 {
					<-late
				}
				got, err := io.ReadAll(c)
				if !bytes.Equal(got, text(all, at, size)) || err != nil {
					t.Errorf("channel %d: %d bytes, %v", at, len(got), err)
				}
			})
		}
		var writers sync.WaitGroup
		for i := range n {
			for _, s := range []*Socket{client, server} {
				wg.Add(1)
				c, err := s.Open(t.Context(), fmt.Sprint(i))
				if err != nil {
					t.Fatal(err)
				}
				writers.Go(func() {
					if k, err := c.Write(text(all, i, size)); k != size || err != nil {
						t.Errorf("channel %d: %d written, %v", i, k, err)
					}
					_ = c.CloseWrite()
				})
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		close(late)
		writers.Wait()
		wg.Wait()
		if a, b := client.Stats().Channels, server.Stats().Channels; a != 2*n || b != 2*n {
			t.Errorf("%d and %d channels", a, b)
		}
	})
}

// longPath is a path of 50 MB/s and 50 ms there and back.
func longPath() (a, b net.Conn) { return memPipe(1<<30, 50e6, 25*time.Millisecond) }

// bulk writes and reads on a channel until stop is closed, and counts.
type bulk struct {
	n    atomic.Int64
	sock *channel.Socket // the writer's
}

func begin(t *testing.T, client, server *Socket, stop <-chan struct{}) *bulk {
	x, y := between(t, client, server, "bulk")
	b := &bulk{sock: x}
	go func() {
		for p := make([]byte, 64<<10); ; {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := x.Write(p); err != nil {
				return
			}
		}
	}()
	go func() {
		for p := make([]byte, 64<<10); ; {
			n, err := y.Read(p)
			b.n.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	return b
}

// during returns how many bytes a second each carries for so long.
func during(d time.Duration, bs ...*bulk) (rates []float64) {
	for _, b := range bs {
		rates = append(rates, -float64(b.n.Load()))
	}
	time.Sleep(d)
	for i, b := range bs {
		rates[i] = (rates[i] + float64(b.n.Load())) / d.Seconds()
	}
	return rates
}

// case: E2
func TestBulkThatBeginsLaterGetsItsShare(t *testing.T) {
	for _, later := range []time.Duration{0, 200 * time.Millisecond, time.Second} {
		for _, k := range []int{2, 8} {
			t.Run(fmt.Sprint(k, " channels, each later by ", later), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					client, server := within(t, [2]Config{}, longPath)
					time.Sleep(time.Second)
					stop := make(chan struct{})
					var bs []*bulk
					for range k {
						bs = append(bs, begin(t, client, server, stop))
						time.Sleep(later)
					}
					time.Sleep(3 * time.Second)
					rates, sum, least := during(3*time.Second, bs...), 0., 1e9
					for _, r := range rates {
						sum, least = sum+r, min(least, r)
					}
					if mean := sum / float64(k); least < 0.8*mean || sum < 0.95*0.95*50e6 {
						t.Errorf("%.1f MB/s", rates)
					}
					close(stop)
					_, _ = client.Close(), server.Close()
				})
			})
		}
	}
}

// case: E2
func TestBulkThatStopsGivesItsCreditBack(t *testing.T) {
	for _, idle := range []int{1, 100} {
		t.Run(fmt.Sprint(idle), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := within(t, [2]Config{}, longPath)
				time.Sleep(time.Second)
				for range idle { // each has had all there is for a while
					stop := make(chan struct{})
					a := begin(t, client, server, stop)
					time.Sleep(2 * time.Second)
					close(stop)
					_ = a
					time.Sleep(time.Second)
				}
				stop := make(chan struct{})
				b := begin(t, client, server, stop)
				time.Sleep(500 * time.Millisecond) // ten round trips
				if r := during(2*time.Second, b)[0]; r < 0.9*0.95*50e6 {
					t.Errorf("%.1f MB/s beside %d that are idle", r/1e6, idle)
				}
				if c, s := client.Err(), server.Err(); c != nil || s != nil {
					t.Errorf("the link ended: %v, %v", c, s)
				}
				close(stop)
				_, _ = client.Close(), server.Close()
			})
		})
	}
}

// case: E2
func TestPeersWithoutPromisesAreServedAsBefore(t *testing.T) {
	for name, cfg := range map[string][2]Config{
		"opener":    {{plain: true}, {}},
		"acceptor":  {{}, {plain: true}},
		"version 1": {{Version: 1}, {}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := within(t, cfg, net.Pipe)
				paused(t, client, server, 100, 100<<10, name != "version 1")
			})
			synctest.Test(t, func(t *testing.T) {
				client, server := within(t, cfg, net.Pipe)
				_ = client.Ready(t.Context())
				for range 100 { // each needs 64 KiB
					a, b := between(t, client, server, "x")
					if n, err := a.Write(fill(earlyCredit)); n != earlyCredit || err != nil {
						t.Errorf("%d written, %v", n, err)
					}
					if n, err := b.Write(fill(earlyCredit)); n != earlyCredit || err != nil {
						t.Errorf("%d written back, %v", n, err)
					}
				}
			})
		})
	}
}

// promising is facing for a peer with promises.
func promising(t *testing.T, cfg Config, f func(t *testing.T, h *hostile)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, cfg, Server)
		go h.listen()
		h.send(frame{protocolID, encodeHello(version2, featurePromises)})
		f(t, h)
	})
}

// case: E2
func TestMoreThanWasPromisedResetsItsChannel(t *testing.T) {
	reset := func(t *testing.T, h *hostile, id channel.ID) {
		t.Helper()
		if codes := h.resets(id); len(codes) != 1 || codes[0] != channel.CodeFlowControl {
			t.Errorf("channel %d: resets %v", id, codes)
		}
		h.alive()
	}
	t.Run("early", func(t *testing.T) {
		promising(t, Config{}, func(t *testing.T, h *hostile) {
			for id := channel.ID(1); id <= 4; id++ { // a quarter of what all may send, and their least windows
				h.send(h.open(id, "x"), frame{id, fill(earlyCredit / 4)})
			}
			h.send(h.open(5, "x"), frame{5, fill(5 * h.s.least())}, frame{5, fill(2)})
			reset(t, h, 5)
			if n := h.s.Stats().Unread; n > earlyCredit+5*int64(h.s.least()) {
				t.Errorf("%d bytes are held", n)
			}
		})
	})
	t.Run("early, again and again", func(t *testing.T) {
		promising(t, Config{MaxBuffered: 128 << 10, Window: 64 << 10, BeaconInterval: -1}, func(t *testing.T, h *hostile) {
			for id := channel.ID(1); id <= 100; id++ { // taken, ended on both sides, and not read
				h.send(h.open(id, "x"), frame{id, fill(60_000)})
				if len(h.resets(id)) > 0 {
					h.alive()
					return
				}
				h.send(frame{id, nil})
				r, err := h.s.Accept(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if c, err := r.Accept(); err == nil {
					_ = c.CloseWrite()
				}
				if n := h.s.Stats().Unread; n > 128<<10 {
					t.Fatalf("%d bytes are held", n)
				}
			}
			t.Error("nothing was reset")
		})
	})
	t.Run("later", func(t *testing.T) {
		promising(t, Config{}, func(t *testing.T, h *hostile) {
			h.accepted(1)
			n := h.requests()[0].window
			for ; n > 0; n -= min(n, 60_000) {
				h.send(frame{1, fill(min(n, 60_000))})
			}
			h.alive()
			if len(h.resets(1)) != 0 {
				t.Fatal("reset within its window")
			}
			h.send(frame{1, fill(1)})
			reset(t, h, 1)
		})
	})
}

// case: E2
func TestCreditThatIsNotThereCannotBeGivenBack(t *testing.T) {
	for name, n := range map[string]int{"none": 0, "all": 256 << 10, "more": 1 << 30} {
		t.Run(name, func(t *testing.T) {
			promising(t, Config{BeaconInterval: -1}, func(t *testing.T, h *hostile) {
				h.accepted(1)
				h.endsBy(ErrProtocol, frame{protocolID, encodeNumbers("u", 1, uint64(n))})
			})
		})
	}
	promising(t, Config{BeaconInterval: -1}, func(t *testing.T, h *hostile) {
		c := h.accepted(1)
		before := h.s.promised
		h.send(frame{protocolID, encodeNumbers("u", 1, 200<<10)})
		h.alive()
		if h.s.promised != before-200<<10 {
			t.Errorf("%d bytes are promised, %d were", h.s.promised, before)
		}
		h.send(frame{1, fill(56 << 10)})
		if n, err := io.ReadFull(c, make([]byte, 56<<10)); err != nil {
			t.Errorf("%d bytes read, %v", n, err)
		}
		h.send(frame{1, fill(57 << 10)})
		h.alive()
		h.endsBy(ErrProtocol, repeat(frame{protocolID, encodeNumbers("u", 7, 1)}, lateFrames+1)...)
	})
}

// case: E2
func TestFloodOfAsksIsAnsweredOnce(t *testing.T) {
	promising(t, Config{BeaconInterval: -1}, func(t *testing.T, h *hostile) {
		for id := range channel.ID(20) {
			h.accepted(1 + id) // the peer has given 1 MiB of credit
		}
		time.Sleep(idleTime)
		var asks []frame
		for i := range 1000 { // each asks for a byte more
			asks = append(asks, frame{protocolID, encodeAsk(2000 - i)})
		}
		h.send(asks...)
		h.alive()
		ms, n := h.messages('u'), 0
		for _, m := range ms {
			for _, g := range m.grants {
				if n++; g.n != 1<<20-2000 {
					t.Errorf("%+v", g)
				}
			}
		}
		if n != 20 {
			t.Errorf("credit was given back %d times, want once on each of 20 channels", n)
		}
	})
}

// A program may write early on one channel after the other, and take them
// afterwards, as long as all fits; what does not waits for the answers.
//
// case: E2
func TestEarlyBytesOfAllRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := within(t, [2]Config{}, net.Pipe)
		var wg sync.WaitGroup
		for range 16 {
			c, err := client.OpenEarly(t.Context(), "x")
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				if n, err := c.Write(fill(20_000)); n != 20_000 || err != nil {
					t.Errorf("%d written, %v", n, err)
				}
			})
		}
		synctest.Wait()
		if n := server.Stats().Unread; n != earlyCredit {
			t.Errorf("%d bytes came early", n)
		}
		if err := mustFail(client.OpenEarly(t.Context(), "y")); err != nil {
			t.Fatal(err)
		}
		for range 17 {
			r, err := server.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Accept(); err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		if _, err := client.Open(t.Context(), ""); !errors.Is(err, ErrBadName) {
			t.Error(err)
		}
	})
}
