package multiplex

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
)

// On a path of 100 ms a channel reaches 90 % of what the path carries.
func TestWindowGrowsToFillALongPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, total = 50e6, 300 << 20
		a, b := memPipe(1<<30, rate, 50*time.Millisecond)
		client, server := Client(a, Config{}), Server(b, Config{})
		defer client.Close()
		defer server.Close()
		x, y := between(t, client, server, "x")
		go func() { _, _ = x.Write(make([]byte, total)) }()
		if _, err := io.CopyN(io.Discard, y, total/3); err != nil { // until it has grown
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := io.CopyN(io.Discard, y, total/3); err != nil {
			t.Fatal(err)
		}
		got := float64(total/3) / time.Since(start).Seconds()
		if got < 0.9*rate {
			t.Errorf("%.1f MB/s of %.1f", got/1e6, rate/1e6)
		}
		if n := server.Stats().Unread; n > 16<<20 {
			t.Errorf("%d bytes unread", n)
		}
		_ = x.Reset(1)
	})
}

func TestWindowDoesNotGrowForAReaderThatIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memPipe(1<<30, 50e6, 50*time.Millisecond)
		client, server := Client(a, Config{}), Server(b, Config{})
		defer client.Close()
		defer server.Close()
		x, y := between(t, client, server, "x")
		go func() { _, _ = x.Write(make([]byte, 64<<20)) }()
		buf := make([]byte, 10_000)
		for range 400 { // 1 MB/s
			if _, err := y.Read(buf); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := server.promised; n > 1<<20 {
			t.Errorf("the window has grown by %d", n)
		}
		_ = x.Reset(1)
	})
}

// fault: J1
func TestBudgetIsSharedByLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := NewBudget(2 << 20)
		cfg := Config{Budget: budget}
		type link struct{ client, server *Socket }
		var links []link
		for range 8 {
			c, s := pipe(t, cfg)
			links = append(links, link{c, s})
		}
		most := int64(0)
		refused := 0
		var socks []*channel.Socket
		for i := range 4 { // 32 channels, each would hold 256 KiB: 8 MiB
			for _, l := range links {
				x, err := l.client.OpenEarly(t.Context(), "x")
				if err != nil {
					t.Fatal(err)
				}
				_ = x.SetWriteDeadline(time.Now().Add(time.Second))
				go func() { _, _ = x.Write(make([]byte, 1<<20)) }()
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				if r, err := l.server.Accept(ctx); err != nil {
					refused++
				} else if i < 3 { // the last round's wait for a decision for ever
					y, _ := r.Accept()
					socks = append(socks, y)
				}
				cancel()
				synctest.Wait()
				most = max(most, budget.Unread())
			}
		}
		time.Sleep(2 * time.Second)
		if bound := int64(2<<20 + 8*linkFloor); most > bound || most < 1<<20 {
			t.Errorf("%d bytes were unread, the bound is %d", most, bound)
		}
		if refused == 0 {
			t.Error("no request was declined")
		}
		for _, l := range links {
			_ = l.client.Close()
			_ = l.server.Close()
		}
		for _, y := range socks {
			_ = y.Close()
		}
		if budget.Unread() != 0 || budget.held.Load()+budget.extra.Load() != 0 {
			t.Errorf("%d bytes unread and %d promised after all has ended", budget.Unread(), budget.held.Load()+budget.extra.Load())
		}
	})
}

// fault: C1
func TestStalledReadersTakeNothingFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _, _ := eagerPipe(t, Config{})
		for range 64 {
			x, _ := between(t, client, server, "stalled")
			go func() { _, _ = x.Write(make([]byte, 1<<20)) }()
		}
		synctest.Wait()
		if n := server.Stats().Unread; n > 16<<20 || n < 4<<20 {
			t.Errorf("%d bytes unread", n)
		}
		a, b := between(t, client, server, "busy")
		go func() { _, _ = a.Write(make([]byte, 32<<20)) }()
		if _, err := io.CopyN(io.Discard, b, 32<<20); err != nil {
			t.Errorf("the channel that is read: %v", err)
		}
		if n := len(server.Channels()); n != 65 {
			t.Errorf("%d channels live", n)
		}
		server.mu.Lock()
		if n := server.table[b.ID()].windowLocked(); n < 256<<10 {
			t.Errorf("its window is %d", n)
		}
		server.mu.Unlock()
	})
}

// wide is a conn that prefers large frames.
type wide struct{ eagerMemConn }

func (wide) FrameSize() int { return 1 << 20 } // more than a frame can have

func TestFramesAreAsLargeAsTheConnPrefers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := memPipe(1<<20, 0, 0)
		client, server := Client(wide{eagerMemConn{x}}, Config{}), Server(wide{eagerMemConn{y}}, Config{})
		defer client.Close()
		defer server.Close()
		a, b := between(t, client, server, "x")
		time.Sleep(time.Second)
		before := server.Stats().FramesReceived
		go func() { _, _ = a.Write(make([]byte, 4*maxBody)) }()
		if _, err := io.CopyN(io.Discard, b, 4*maxBody); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := server.Stats().FramesReceived - before; n > 10 { // 17 of the default size; credit and beacons are among them
			t.Errorf("%d frames", n)
		}
	})
}

// Through memory a window grows with the speed of its reader alone, to a bound.
func TestWindowGrowsThroughMemory(t *testing.T) {
	for _, c := range []struct {
		name string
		conn func(*memConn) net.Conn
		rate float64
		want int
	}{
		{"fast", func(c *memConn) net.Conn { return wide{eagerMemConn{c}} }, 8e9, memoryWindow},
		{"slow", func(c *memConn) net.Conn { return wide{eagerMemConn{c}} }, 2e8, 256 << 10},
		{"fast, no memory", func(c *memConn) net.Conn { return eagerMemConn{c} }, 8e9, 256 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := memPipe(1<<20, 0, 0)
				client, server := Client(c.conn(a), Config{}), Server(c.conn(b), Config{})
				defer client.Close()
				defer server.Close()
				x, y := between(t, client, server, "x")
				go func() { _, _ = x.Write(make([]byte, 16<<20)) }()
				buf := make([]byte, 64<<10)
				for left := 16 << 20; left > 0; {
					n, err := y.Read(buf)
					if err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Duration(float64(n) / c.rate * 1e9))
					left -= n
				}
				server.mu.Lock()
				defer server.mu.Unlock()
				if got := server.table[y.ID()].windowLocked(); got != c.want {
					t.Errorf("the window is %d, want %d", got, c.want)
				}
			})
		})
	}
}

func TestDrainWaitsForChannelsAndRefusesNewOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		a, b := between(t, client, server, "x")
		drained := make(chan error)
		go func() { drained <- server.Drain(t.Context(), 300, "restart") }()
		synctest.Wait()
		away, ok := errors.AsType[*GoingAwayError](mustFail(client.Open(t.Context(), "y")))
		if !ok || away.Code != 300 || away.Reason != "restart" {
			t.Errorf("open there: %v", away)
		}
		if _, err := server.Open(t.Context(), "y"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("open here: %v", err)
		}
		if client.Err() != nil || !client.Ending() {
			t.Errorf("the link: %v, ending %v", client.Err(), client.Ending())
		}
		time.Sleep(time.Minute)
		exchange(t, a, b, 3)
		_ = a.Close()
		_ = b.Close()
		if err := <-drained; err != nil {
			t.Errorf("drain: %v", err)
		}
		<-client.Done()
		if _, ok := errors.AsType[*GoingAwayError](client.Err()); !ok {
			t.Errorf("the peer's link ended by %v", client.Err())
		}
	})
}

func TestDrainCutsOffWhoTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		a, _ := between(t, client, server, "x")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := server.Drain(ctx, 0, "")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if _, err := a.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("the channel that was cut off: %v", err)
		}
	})
}

func mustFail(_ *channel.Socket, err error) error { return err }

// A link by itself keeps within a Budget by its promises: what they let in is no
// reason to decline a further channel.
func TestPromisesThatFitDeclineNoChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		budget := NewBudget(1 << 20)
		client, server := Client(a, Config{}), Server(b, Config{Budget: budget})
		defer server.Close()
		defer client.Close()
		serve(server, func(*channel.Socket) {}) // nothing is read
		for i := range 32 {
			x, err := client.Open(t.Context(), "x")
			if err != nil {
				t.Fatalf("with %d bytes unread, channel %d: %v", budget.Unread(), i, err)
			}
			go func() {
				if _, err := x.Write(fill(48 << 10)); err == nil {
					_ = x.CloseWrite() // what its window had more is free for others
				}
			}()
			synctest.Wait()
		}
		if n := budget.Unread(); n <= 3<<18 {
			t.Errorf("only %d bytes are unread", n)
		}
	})
}

// fillTable has channels opened and taken, and never used, until one is declined.
func fillTable(t *testing.T, client, server *Socket) (n int) {
	t.Helper()
	serve(server, func(*channel.Socket) {})
	for ; ; n++ {
		if _, err := client.Open(t.Context(), "idle"); errors.Is(err, ErrDeclined) {
			return n
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// A table is memory: it counts in the budget, and a link that fills it leaves as much
// as it takes.
//
// case: S5
func TestChannelsCountInTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := NewBudget(4 << 20)
		most := int(budget.limit) / 2 / channelCost
		all := 0
		var got []int
		for range 8 {
			client, server := pipe(t, Config{})
			server.cfg.Budget = budget
			defer client.Close()
			defer server.Close()
			n := fillTable(t, client, server)
			got, all = append(got, n), all+n
			if n < floorChannels {
				t.Errorf("link %d has %d channels", len(got), n)
			}
		}
		if all > most+8*floorChannels || got[0] > most/2+1 {
			t.Errorf("%d channels in all, %d on the first link; want %d and %d at most", all, got[0], most, most/2)
		}
	})
}

// case: S11
func TestLinksOfAHalfLeaveTheOtherHalfToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole := NewBudget(4 << 20)
		half := whole.Half()
		link := func(b *Budget) (client, server *Socket) {
			x, y := net.Pipe()
			client, server = Client(x, Config{}), Server(y, Config{Budget: b})
			t.Cleanup(func() {
				_ = client.Close()
				_ = server.Close()
			})
			return client, server
		}
		var last *Socket
		for range 40 { // until they have only what each may have all the same
			var client *Socket
			client, last = link(half)
			fillTable(t, client, last)
		}
		if n := half.tables.Load(); n > whole.limit/4+40*floorChannels*channelCost || n != whole.tables.Load() {
			t.Errorf("channels take %d bytes of a half of %d, and %d of the whole", n, whole.limit/2, whole.tables.Load())
		}
		client, server := link(whole)
		if n := fillTable(t, client, server); n < 200 {
			t.Errorf("a link of the whole has %d channels", n)
		}
		last.Lift()
		last.mu.Lock()
		tight := last.tightLocked()
		last.mu.Unlock()
		if n := half.tables.Load(); tight || n <= whole.limit/4 {
			t.Errorf("a link that was lifted out of the half has no room: %d bytes are held there", n)
		}
	})
}
