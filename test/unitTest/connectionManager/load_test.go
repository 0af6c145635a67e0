package connectionmanager_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peerlink"
	"peerlink/channel"
	"peerlink/peerlinktest"
)

// The load tests run with
//
//	go test -run Load -v -timeout 30m ./test/unitTest/connectionManager -load
//
// at full size, over direct TCP or another carrier of the table, and print what
// they measured.
var (
	load    = flag.Bool("load", false, "run the load tests at full size")
	carrier = flag.String("load.carrier", "tcp", "which `carrier` the load tests run over")
	cycles  = flag.Int("load.cycles", 100_000, "how often TestLoadChurn connects and closes")
)

func loadWorld(t *testing.T) world {
	t.Helper()
	if !*load {
		t.Skip("a load test: give -load")
	}
	if *carrier == "account" {
		return newAccountWorld(t)
	}
	for _, c := range carriers() {
		if c.Name == *carrier {
			return network{peerlinktest.New(t, c)}
		}
	}
	t.Fatalf("there is no carrier %q", *carrier)
	return nil
}

// usage is what the process holds.
type usage struct {
	memory, goroutines, descriptors int
}

func measure() usage {
	runtime.GC()
	runtime.GC() // the second one frees what pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := usage{memory: int(m.HeapInuse + m.StackInuse), goroutines: runtime.NumGoroutine()}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.descriptors = len(fds)
	}
	return u
}

func (u usage) String() string {
	return fmt.Sprintf("%.1f MiB, %d goroutines, %d descriptors", float64(u.memory)/(1<<20), u.goroutines, u.descriptors)
}

// each runs f for 0 to n-1, some at a time.
func each(n, atOnce int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				f(i)
			}
		})
	}
	wg.Wait()
}

func mustOpen(t *testing.T, from, to *device, uri string, opts peerlink.ConnectOptions) *channel.Socket {
	opts.ChannelTimeout = 5 * time.Minute
	ctx, cancel := context.WithTimeout(background, 5*time.Minute)
	defer cancel()
	s, err := from.ConnectDevice(ctx, to.id.DeviceID(), uri, opts)
	if err != nil {
		t.Errorf("%s: %v", uri, err)
		return nil
	}
	return s
}

// Row 9 at full size.
func TestLoadAllChannelsOfBothSidesTwice(t *testing.T) {
	w := loadWorld(t)
	ds := [2]*device{w.device(t, "alice", nil), w.device(t, "bob", nil)}
	for _, d := range ds {
		d.answering(t, func(c *channel.Socket) {
			buf := make([]byte, 32)
			if _, err := io.ReadFull(c, buf); err == nil {
				_, _ = c.Write(buf)
			}
		})
	}
	mustOpen(t, ds[0], ds[1], "first://", peerlink.ConnectOptions{}).Close()
	const n = 32_767
	for round := range 2 {
		began := time.Now()
		socks := [2][]*channel.Socket{make([]*channel.Socket, n), make([]*channel.Socket, n)}
		each(2*n, 512, func(i int) {
			k := i % 2
			socks[k][i/2] = mustOpen(t, ds[k], ds[1-k], fmt.Sprintf("n://%d/%d", round, i), peerlink.ConnectOptions{})
		})
		opened := time.Since(began)
		if t.Failed() {
			return
		}
		st := ds[0].Connections()[0]
		held := measure()
		each(2*n, 512, func(i int) {
			c := socks[i%2][i/2]
			defer c.Close()
			want := fmt.Sprintf("%-32d", i)
			_, _ = io.WriteString(c, want)
			if got, err := io.ReadAll(c); err != nil || string(got) != want {
				t.Errorf("channel %d: %q, %v", i, got, err)
			}
		})
		t.Logf("round %d: %d channels at once (%d of them open at one time), opened in %v, all done after %v, %v", round, 2*n, len(st.Channels), opened.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), held)
	}
	if c := ds[0].Connections(); len(c) != 1 {
		t.Errorf("%d links", len(c))
	}
}

// answering runs f for each channel that comes, and closes it.
func (d *device) answering(t *testing.T, f func(c *channel.Socket)) {
	t.Helper()
	l, err := d.Listen("*")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				f(c.(*channel.Socket))
			})
		}
	})
	t.Cleanup(func() {
		_ = d.Close()
		wg.Wait()
	})
}

// Row 10 at full size: 2.1 GB in all.
func TestLoadEveryByteBeforeTheClose(t *testing.T) {
	w := loadWorld(t)
	ds := [2]*device{w.device(t, "alice", nil), w.device(t, "bob", nil)}
	const n = 65_534
	data := pattern(1, n)
	var got sync.WaitGroup
	got.Add(n)
	for _, d := range ds {
		d.answering(t, func(c *channel.Socket) {
			defer got.Done()
			var i int
			_, _ = fmt.Sscanf(c.URI(), "n://%d", &i)
			if b, err := io.ReadAll(c); err != nil || !bytes.Equal(b, data[:i]) {
				t.Errorf("channel %d: %d bytes, %v", i, len(b), err)
			}
		})
	}
	began := time.Now()
	each(n, 256, func(i int) {
		c := mustOpen(t, ds[i%2], ds[1-i%2], fmt.Sprintf("n://%d", i), peerlink.ConnectOptions{})
		if c == nil {
			got.Done()
			return
		}
		if k, err := c.Write(data[:i]); err != nil || k != i {
			t.Errorf("channel %d: wrote %d, %v", i, k, err)
		}
		_ = c.Close()
	})
	got.Wait()
	took := time.Since(began)
	t.Logf("%d channels, %d MB in %v: %.0f MB/s, %.0f channels/s", n, n*(n-1)/2/1_000_000, took.Round(time.Millisecond), float64(n)*float64(n-1)/2/1e6/took.Seconds(), n/took.Seconds())
}

// Row 19 at full size.
func TestLoadEveryConnectSucceedsWhileLinksAreKilled(t *testing.T) {
	w := loadWorld(t)
	alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
	bob.answering(t, func(c *channel.Socket) { _, _ = c.Read(make([]byte, 1)) })
	const n = 49_151
	var ends sync.WaitGroup
	var ended atomic.Int64
	stop := make(chan struct{})
	var killing sync.WaitGroup
	killing.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				bob.CloseConnectionsWith(alice.id.DeviceID())
			case <-stop:
				return
			}
		}
	})
	began := time.Now()
	each(n, 128, func(i int) {
		c := mustOpen(t, alice, bob, fmt.Sprintf("n://%d", i), peerlink.ConnectOptions{})
		if c == nil {
			return
		}
		ends.Go(func() {
			defer c.Close()
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Errorf("channel %d read something", i)
			}
			ended.Add(1)
		})
	})
	took := time.Since(began)
	close(stop)
	killing.Wait()
	alice.CloseConnectionsWith(bob.id.DeviceID())
	ends.Wait()
	m := alice.Metrics()
	t.Logf("%d connects, all but %d succeeded, in %v; %d links killed, %d requests sent again, %d channels reported their end", n, n-int(ended.Load()), took.Round(time.Millisecond), m.Closed, m.Retried, ended.Load())
	if ended.Load() != n {
		t.Errorf("%d of %d channels", ended.Load(), n)
	}
}

// Row 22 at full size.
func TestLoadInterleavedWrites(t *testing.T) {
	w := loadWorld(t)
	alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
	incoming := bob.accepting(t, "*")
	const writes, size = 2600, 8000
	began := time.Now()
	var wg sync.WaitGroup
	for i := range 3 {
		a := connect(t, alice, bob, fmt.Sprint("n://", i))
		b := await(t, incoming, never)
		want := pattern(byte(i), writes*size)
		wg.Go(func() {
			for k := range writes {
				if _, err := a.Write(want[k*size : (k+1)*size]); err != nil {
					t.Error(err)
					return
				}
			}
			_ = a.Close()
		})
		wg.Go(func() {
			if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
				t.Errorf("channel %d: %d of %d bytes, %v", i, len(got), len(want), err)
			}
			_ = b.Close()
		})
	}
	wg.Wait()
	t.Logf("62.4 MB in %v", time.Since(began).Round(time.Millisecond))
}

// fault: C11
func TestLoadIdleChannelsOnOneLink(t *testing.T) {
	w := loadWorld(t)
	alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
	incoming := make(chan *channel.Socket, 10_000)
	l, err := bob.Listen("*")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			incoming <- c.(*channel.Socket)
		}
	}()
	mustOpen(t, alice, bob, "first://", peerlink.ConnectOptions{})
	await(t, incoming, never)
	before := measure()
	const n = 10_000
	socks := make([]*channel.Socket, n)
	theirs := make([]*channel.Socket, 0, n)
	began := time.Now()
	each(n, 256, func(i int) { socks[i] = mustOpen(t, alice, bob, fmt.Sprint("idle://", i), peerlink.ConnectOptions{}) })
	for range n {
		theirs = append(theirs, await(t, incoming, never))
	}
	took := time.Since(began)
	idle := measure()
	for _, c := range socks {
		_, _ = c.Write([]byte("x"))
	}
	for _, c := range theirs {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	used := measure()
	t.Logf("%d channels opened in %v; %d B each end idle, %d B after one byte each; before: %v, idle: %v", n, took.Round(time.Millisecond), (idle.memory-before.memory)/(2*n), (used.memory-before.memory)/(2*n), before, idle)
	if per := (idle.memory - before.memory) / (2 * n); per > 2048 {
		t.Errorf("%d bytes per idle channel and end, want 2 048 at most", per)
	}
	runtime.KeepAlive(socks)
	runtime.KeepAlive(theirs)
}

func TestLoadThousandLinks(t *testing.T) {
	w := loadWorld(t)
	many := func(c *peerlink.Config) { c.PerDevice = 2000 }
	alice, bob := w.device(t, "alice", many), w.device(t, "bob", many)
	bob.echoing(t, "*")
	connect(t, alice, bob, "first://")
	before := measure()
	const n = 1000
	began := time.Now()
	each(n, 8, func(i int) {
		if c := mustOpen(t, alice, bob, fmt.Sprint("n://", i), peerlink.ConnectOptions{Mode: peerlink.NewLink}); c != nil {
			_ = c.Close()
		}
	})
	took := time.Since(began)
	eventually(t, "the channels are gone", func() bool { return alice.Metrics().Channels == 1 })
	after := measure()
	if k := len(alice.Connections()); k != n+1 {
		t.Fatalf("%d links", k)
	}
	t.Logf("%d links made in %v (%.0f/s); per link and end: %d B, %.1f goroutines, %.1f descriptors", n, took.Round(time.Millisecond), n/took.Seconds(),
		(after.memory-before.memory)/(2*n), float64(after.goroutines-before.goroutines)/(2*n), float64(after.descriptors-before.descriptors)/(2*n))
	began = time.Now()
	alice.CloseConnectionsWith(bob.id.DeviceID())
	t.Logf("all closed in %v", time.Since(began).Round(time.Millisecond))
}

// fault: J4
func TestLoadChurn(t *testing.T) {
	w := loadWorld(t)
	alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
	bob.echoing(t, "*")
	cycle := func(i int) {
		c := mustOpen(t, alice, bob, fmt.Sprint("n://", i), peerlink.ConnectOptions{Mode: peerlink.NewLink})
		if c == nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "x")
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Errorf("cycle %d: %v", i, err)
		}
		for _, l := range alice.Connections() {
			for _, ch := range l.Channels {
				if ch.URI == c.URI() && ch.ID == c.ID() {
					_ = alice.CloseLink(l.ID)
				}
			}
		}
	}
	settled := func() usage {
		eventually(t, "no link is left", func() bool { return len(alice.Connections())+len(bob.Connections()) == 0 })
		return measure()
	}
	each(1000, 8, cycle)
	start := settled()
	t.Logf("after 1000 cycles: %v", start)
	began := time.Now()
	const steps = 5
	last := start
	for range steps {
		each(*cycles/steps, 8, cycle)
		last = settled()
		t.Logf("%v: %v", time.Since(began).Round(time.Second), last)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d cycles in %v: %.0f/s", *cycles, time.Since(began).Round(time.Millisecond), float64(*cycles)/time.Since(began).Seconds())
	if last.goroutines > start.goroutines+20 || last.descriptors > start.descriptors+20 || last.memory > start.memory+4<<20 {
		t.Errorf("not flat: %v, then %v", start, last)
	}
}
