package multiplex

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
)

func TestConfigIsMadeSafe(t *testing.T) {
	c := Config{Window: -1, MaxBuffered: -1, MaxPending: -1}.withDefaults()
	if c.Window != 64<<10 || c.MaxBuffered != 64<<10 || c.MaxPending != 0 {
		t.Errorf("%+v", c)
	}
	if c := (Config{Window: math.MaxInt}).withDefaults(); c.Window != maxWindow || c.MaxBuffered != maxWindow {
		t.Errorf("%+v", c)
	}
}

// Scenario 21, and FAULTS C10 at this layer.
func TestCloseEndsEverybodysWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		a, _ := between(t, client, server, "x")
		_, b := between(t, client, server, "y")
		var wg sync.WaitGroup
		wait := func(what string, want func(error) bool, f func() error) {
			wg.Go(func() {
				if err := f(); !want(err) {
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		closed := func(err error) bool { return errors.Is(err, net.ErrClosed) }
		away := func(err error) bool { _, ok := errors.AsType[*GoingAwayError](err); return ok }
		wait("read here", closed, func() error { _, err := a.Read(make([]byte, 1)); return err })
		wait("write here", closed, func() error { _, err := a.Write(fill(1 << 20)); return err })
		wait("open here", closed, func() error { _, err := client.Open(context.Background(), "hangs"); return err })
		wait("accept there", away, func() error {
			_, _ = server.Accept(context.Background())
			_, err := server.Accept(context.Background())
			return err
		})
		wait("write there", away, func() error { _, err := b.Write(fill(1 << 20)); return err })
		wait("open there", away, func() error { _, err := server.Open(context.Background(), "hangs"); return err })
		synctest.Wait()
		start := time.Now()
		for range 3 {
			wg.Go(func() { _ = client.Close() })
		}
		wg.Wait()
		if d := time.Since(start); d != 0 {
			t.Errorf("it took %v", d)
		}
		<-server.Done()
		if !away(server.Err()) || !closed(client.Err()) {
			t.Errorf("ended by %v and %v", client.Err(), server.Err())
		}
		if n, m := len(client.Channels()), len(server.Channels()); n+m != 0 {
			t.Errorf("%d and %d channels are listed", n, m)
		}
		if _, err := client.Open(context.Background(), "late"); !closed(err) {
			t.Errorf("open after close: %v", err)
		}
		if _, err := server.Accept(context.Background()); !away(err) {
			t.Errorf("accept after close: %v", err)
		}
	})
}

func TestCloseIsBoundedWhenThePeerIsSilent(t *testing.T) {
	for name, cfg := range map[string]Config{"v2": {}, "v1": {Version: 1}, "2 s": {CloseTimeout: 2 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHostile(t, cfg, Client)
				start := time.Now()
				_ = h.s.Close()
				if d := time.Since(start); d > max(cfg.CloseTimeout, time.Second) {
					t.Errorf("closed after %v", d)
				}
			})
		})
	}
}

func TestCloseIsBoundedWhenThePeerTalksOn(t *testing.T) {
	facing(t, Config{}, func(t *testing.T, h *hostile) {
		h.accepted(1)
		var wg sync.WaitGroup
		wg.Go(func() {
			for _, err := h.conn.Write(frameOf(1, fill(100))); err == nil; _, err = h.conn.Write(frameOf(1, fill(100))) {
				time.Sleep(time.Millisecond)
			}
		})
		defer wg.Wait()
		start := time.Now()
		_ = h.s.Close()
		if d := time.Since(start); d != time.Second {
			t.Errorf("closed after %v", d)
		}
		if !errors.Is(h.s.Err(), net.ErrClosed) {
			t.Error(h.s.Err())
		}
	})
}

func TestBothSidesMayCloseAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		between(t, client, server, "x")
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { _ = client.Close() })
		wg.Go(func() { _ = server.Close() })
		wg.Wait()
		if d := time.Since(start); d != 0 {
			t.Errorf("it took %v", d)
		}
		for _, s := range []*Socket{client, server} { // whoever was first may have been heard already
			if _, away := errors.AsType[*GoingAwayError](s.Err()); !away && !errors.Is(s.Err(), net.ErrClosed) {
				t.Errorf("ended by %v", s.Err())
			}
		}
	})
}

// What a Write has returned is sent before the link ends.
func TestCloseSendsWhatWasWritten(t *testing.T) {
	for _, v := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			client, server := pipe(t, Config{Version: v})
			a, b := between(t, client, server, "x")
			_, _ = a.Write(fill(200_000))
			_ = a.Close()
			_ = client.Close()
			if got, err := io.ReadAll(b); len(got) != 200_000 || err != nil {
				t.Errorf("version %d: %d bytes, %v", v, len(got), err)
			}
		})
	}
}

func TestCodeAndReasonReachThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{})
		if err := server.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		_ = client.CloseWith(300, "out for lunch")
		<-server.Done()
		away, ok := errors.AsType[*GoingAwayError](server.Err())
		if !ok || away.Code != 300 || away.Reason != "out for lunch" {
			t.Errorf("ended by %v", server.Err())
		}
	})
}

func TestVersionsMeet(t *testing.T) {
	for _, v := range [][2]int{{1, 1}, {1, 2}, {2, 1}, {2, 2}} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			client, server := Client(a, Config{Version: v[0]}), Server(b, Config{Version: v[1]})
			defer server.Close()
			defer client.Close()
			for _, s := range []*Socket{client, server} {
				serve(s, func(c *channel.Socket) {
					_, _ = io.Copy(c, c)
					_ = c.Close()
				})
			}
			for i := range 6 {
				c, err := []*Socket{client, server}[i%2].Open(t.Context(), "echo://")
				if err != nil {
					t.Fatalf("%v: %v", v, err)
				}
				go func() {
					_, _ = c.Write(fill(1 << 20))
					_ = c.CloseWrite()
				}()
				if b, err := io.ReadAll(c); len(b) != 1<<20 || err != nil {
					t.Errorf("%v: %d bytes, %v", v, len(b), err)
				}
				_ = c.Close()
			}
			settle()
			if n, m := client.Stats().Channels, server.Stats().Channels; n != 0 || m != 0 {
				t.Errorf("%v: %d and %d channels are left", v, n, m)
			}
			if want := min(v[0], v[1]); client.Version() != want || server.Version() != want {
				t.Errorf("%v: versions %d and %d", v, client.Version(), server.Version())
			}
		})
	}
}

// failing is a conn whose writes fail, or fall short, from some time on.
type failing struct {
	net.Conn
	short atomic.Bool
	err   atomic.Pointer[error]
}

func (f *failing) Write(p []byte) (int, error) {
	switch err := f.err.Load(); {
	case err != nil:
		return 0, *err
	case f.short.Load():
		return f.Conn.Write(p[:len(p)-1])
	}
	return f.Conn.Write(p)
}

// Scenarios 34 and 35: a write error or a short write during a channel request.
func TestFailedWriteEndsTheLinkOnce(t *testing.T) {
	for want, fail := range map[error]func(*failing){
		io.ErrShortWrite: func(f *failing) { f.short.Store(true) },
		os.ErrPermission: func(f *failing) { f.err.Store(&os.ErrPermission) },
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			f := &failing{Conn: a}
			client, server := Client(f, Config{}), Server(b, Config{})
			defer server.Close()
			defer client.Close()
			c, s := between(t, client, server, "x")
			synctest.Wait()
			before := client.Stats()
			fail(f)
			_, err := client.Open(context.Background(), "y")
			_, rerr := c.Read(make([]byte, 1))
			if !errors.Is(err, want) || !errors.Is(client.Err(), want) || !errors.Is(rerr, want) {
				t.Errorf("open: %v, read: %v, link: %v; want %v", err, rerr, client.Err(), want)
			}
			if st := client.Stats(); st.Channels != 0 || want == os.ErrPermission && st.BytesSent != before.BytesSent {
				t.Errorf("before %+v, after %+v", before, st)
			}
			if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("the other side reads %v", err)
			}
		})
	}
}

// Scenario 44. fault: C3
func TestDeadTransportIsNeverACleanEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		client, server := Client(a, Config{}), Server(b, Config{})
		defer server.Close()
		defer client.Close()
		c, s := between(t, client, server, "x")
		_, _ = c.Write(fill(100_000))
		errc := make(chan error)
		go func() {
			_, err := s.Write(fill(1 << 20))
			errc <- err
		}()
		synctest.Wait()
		_ = a.Close()
		got, rerr := io.ReadAll(s)
		if len(got) != 100_000 || !errors.Is(rerr, io.ErrUnexpectedEOF) {
			t.Errorf("read %d bytes, then %v", len(got), rerr)
		}
		if werr := <-errc; !errors.Is(werr, io.ErrUnexpectedEOF) || !errors.Is(server.Err(), io.ErrUnexpectedEOF) {
			t.Errorf("write: %v, link: %v", werr, server.Err())
		}
	})
}

func TestReadyTellsWhetherThePeerEverSpoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{}, Client)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.s.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ready: %v", err)
		}
		_ = h.conn.Close()
		if err := h.s.Ready(context.Background()); err == nil {
			t.Error("ready although the conn closed before any frame")
		}
	})
	facing(t, Config{}, func(t *testing.T, h *hostile) {
		_ = h.conn.Close()
		<-h.s.Done()
		if err := h.s.Ready(context.Background()); err != nil {
			t.Errorf("it was up: %v", err)
		}
	})
}

func TestEndedLinkListsNoChannels(t *testing.T) {
	facing(t, Config{}, func(t *testing.T, h *hostile) {
		h.accepted(1)
		h.send(h.open(2, "y"), frame{2, fill(10)})
		if cs := h.s.Channels(); len(cs) != 2 || cs[0].ID() != 1 || cs[1].URI() != "y" {
			t.Errorf("channels %v", cs)
		}
		if st := h.s.Stats(); st.Channels != 2 || st.Unread != 10 || st.FramesReceived != 4 || st.BytesReceived == 0 || st.Created.IsZero() {
			t.Errorf("%+v", st)
		}
		_ = h.conn.Close()
		<-h.s.Done()
		_ = h.s.handleRequest(request{name: "late", id: 3}) // the reader had it in its buffer
		if cs := h.s.Channels(); len(cs) != 0 {
			t.Errorf("channels %v", cs)
		}
	})
}

func TestOpenReturnsAtOnceWhenTheLinkIsClosed(t *testing.T) {
	facing(t, Config{}, func(t *testing.T, h *hostile) { // whose far end does not answer the going away
		errc := make(chan error)
		go func() {
			_, err := h.s.Open(context.Background(), "x")
			errc <- err
		}()
		synctest.Wait()
		start := time.Now()
		go h.s.Close()
		if err := <-errc; !errors.Is(err, net.ErrClosed) || time.Since(start) != 0 {
			t.Errorf("open: %v after %v", err, time.Since(start))
		}
	})
}

func TestWhatHappensDuringCloseIsNotItsCause(t *testing.T) {
	for name, f := range map[string]func(*hostile){
		"a beacon stays unanswered": func(*hostile) {},
		"the transport breaks":      func(h *hostile) { _ = h.conn.Close() },
		"the peer goes away too":    func(h *hostile) { h.send(frame{protocolID, encodeGoingAway(0, "me first")}) },
		"the peer breaks the rules": func(h *hostile) { h.send(frame{controlID, []byte{0xc1}}) },
	} {
		facing(t, Config{CloseTimeout: time.Minute}, func(t *testing.T, h *hostile) {
			go h.s.Close()
			synctest.Wait()
			f(h)
			if <-h.s.Done(); !errors.Is(h.s.Err(), net.ErrClosed) {
				t.Errorf("%s: ended by %v", name, h.s.Err())
			}
		})
	}
}

func TestPeerOfVersion1IsToldOfNoWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, Config{}, Server)
		go h.listen()
		h.accepted(1)
		if _, err := h.s.OpenEarly(t.Context(), "y"); err != nil {
			t.Fatal(err)
		}
		for _, q := range h.requests() {
			if q.window != 0 {
				t.Errorf("told %+v", q)
			}
		}
	})
}
