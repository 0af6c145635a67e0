package multiplex

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
	"peerlink/internal/stream"
)

// eagerPipe is pipe over conns that can be written to without waiting. c and s
// count what is written.
func eagerPipe(t testing.TB, cfg Config) (client, server *Socket, c, s *memConn) {
	t.Helper()
	a, b := memPipe(1<<20, 0, 0)
	client, server = Client(eagerMemConn{a}, cfg), Server(eagerMemConn{b}, cfg)
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	return client, server, a, b
}

// exchange makes n round trips of a byte; far echoes.
func exchange(t *testing.T, near, far *channel.Socket, n int) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		var b [1]byte
		for range n {
			if _, err := far.Read(b[:]); err != nil {
				done <- err
				return
			}
			if _, err := far.Write(b[:]); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for i := range n {
		b := [1]byte{byte(i)}
		if _, err := near.Write(b[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := near.Read(b[:]); err != nil || b[0] != byte(i) {
			t.Fatal(b, err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestLoneReadReceivesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _, _ := eagerPipe(t, Config{})
		a, b := between(t, client, server, "x")
		exchange(t, a, b, 100)
		for _, s := range []*Socket{client, server} {
			if n := s.baton.epoch.Load(); n < 90 {
				t.Errorf("%d of 100 Reads received by themselves", n)
			}
		}
	})
}

func TestSeveralReadsLeaveReceivingToTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _, _ := eagerPipe(t, Config{})
		a, b := between(t, client, server, "x")
		c, d := between(t, client, server, "y")
		go func() { _, _ = c.Read(make([]byte, 1)) }() // waits all the time
		go func() { _, _ = d.Read(make([]byte, 1)) }()
		exchange(t, a, b, 3)
		synctest.Wait()
		before := client.baton.epoch.Load() + server.baton.epoch.Load()
		exchange(t, a, b, 100)
		if n := client.baton.epoch.Load() + server.baton.epoch.Load() - before; n > 100 {
			t.Errorf("%d Reads received for others", n)
		}
	})
}

// An application that goes away from its Read for long leaves the link to the
// patrol: the other side is answered, and its data is taken.
func TestLinkIsServedWhileItsOnlyReaderIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _, _ := eagerPipe(t, Config{})
		a, b := between(t, client, server, "x")
		exchange(t, a, b, 100)
		if server.baton.held.Load() {
			t.Fatal("somebody reads although the only application is away")
		}
		rtt, err := client.Ping(t.Context())
		if err != nil || rtt > 2*maxPatrol {
			t.Errorf("answered after %v, %v", rtt, err)
		}
		if _, err := a.Write(make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * maxPatrol)
		if n := b.Stats().Unread; n != 100_000 {
			t.Errorf("%d bytes were taken", n)
		}
	})
}

// Whoever begins to wait for the peer while nobody reads is served at once.
func TestWaitingForThePeerCallsTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _, _ := eagerPipe(t, Config{})
		a, b := between(t, client, server, "x")
		serve(server, func(s *channel.Socket) { _, _ = io.Copy(io.Discard, s) })
		var read sync.WaitGroup
		for name, wait := range map[string]func() error{
			"ping":   func() error { _, err := client.Ping(t.Context()); return err },
			"open":   func() error { _, err := client.Open(t.Context(), "y"); return err },
			"credit": func() error { _, err := a.Write(make([]byte, 1<<20)); return err },
		} {
			if name == "credit" {
				read.Go(func() { _, _ = io.CopyN(io.Discard, b, 1<<20) })
			} else {
				exchange(t, a, b, 100)
			}
			start := time.Now()
			// The server answers late, when its patrol comes; the client not later.
			if err := wait(); err != nil || time.Since(start) > 2*maxPatrol {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
			read.Wait()
		}
	})
}

// fault: C4, C7
func TestReadThatReceivesForTheLinkObeysItsDeadlineAndItsClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _, _ := eagerPipe(t, Config{})
		a, b := between(t, client, server, "x")
		other, far := between(t, client, server, "y")
		exchange(t, a, b, 100)
		start := time.Now()
		_ = a.SetReadDeadline(start.Add(time.Second))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("read: %v after %v", err, time.Since(start))
		}
		_ = a.SetReadDeadline(time.Time{})
		exchange(t, a, b, 3)
		done := make(chan error)
		go func() { _, err := a.Read(make([]byte, 1)); done <- err }()
		synctest.Wait()
		if !client.baton.held.Load() {
			t.Error("the Read does not receive for the link")
		}
		_ = a.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
		exchange(t, other, far, 100) // the link lives
	})
}

// without is a conn that knows no deadlines.
type without struct{ *memConn }

func (without) SetReadDeadline(time.Time) error { return errors.ErrUnsupported }

func TestReadDeadlineHoldsOverAConnWithoutDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := memPipe(1<<20, 0, 0)
		client, server := Client(without{x}, Config{}), Server(without{y}, Config{})
		defer client.Close()
		defer server.Close()
		a, b := between(t, client, server, "x")
		exchange(t, a, b, 100)
		start := time.Now()
		_ = a.SetReadDeadline(start.Add(time.Second))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("read: %v after %v", err, time.Since(start))
		}
	})
}

// fault: C3
func TestReadThatReceivesForTheLinkLearnsOfItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, c, _ := eagerPipe(t, Config{})
		a, b := between(t, client, server, "x")
		exchange(t, a, b, 100)
		done := make(chan error)
		go func() { _, err := a.Read(make([]byte, 1)); done <- err }()
		synctest.Wait()
		_ = c.Close()
		if err := <-done; err == nil || errors.Is(err, io.EOF) {
			t.Errorf("read: %v", err)
		}
		<-client.Done()
	})
}

func TestEarlyOpenGoesOutWithItsFirstBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, c, _ := eagerPipe(t, Config{})
		time.Sleep(time.Second)
		before := c.sent()
		a, err := client.OpenEarly(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if n := c.sent() - before; n != 0 {
			t.Errorf("%d writes before there was anything to say", n)
		}
		if _, err := a.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r, err := server.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b, _ := r.Accept()
		got := make([]byte, 5)
		if _, err := io.ReadFull(b, got); err != nil || string(got) != "hello" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func TestWhatIsLazyGoesOutAMomentLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _, _ := eagerPipe(t, Config{})
		start := time.Now()
		if _, err := client.OpenEarly(t.Context(), "x"); err != nil { // and says nothing
			t.Fatal(err)
		}
		if _, err := server.Accept(t.Context()); err != nil || time.Since(start) > lateness+maxPatrol {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// A peer that takes nothing holds up nobody: what does not fit waits for the
// writer, and Writes obey their deadlines.
//
// fault: B9
func TestWriteToAFullConnObeysItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memPipe(10_000, 0, 0)
		client := Client(eagerMemConn{a}, Config{BeaconInterval: -1})
		defer client.Close()
		defer b.Close()
		x, err := client.OpenEarly(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		_ = x.SetWriteDeadline(time.Now().Add(time.Second))
		start := time.Now()
		n, err := x.Write(make([]byte, 1<<20))
		if n > earlyCredit || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%d, %v after %v", n, err, time.Since(start))
		}
	})
}

// Requests to a peer of version 1 stand in the order of the data: no small
// frame may overtake its own request.
func TestEarlyBytesStayBehindTheirRequestInVersion1(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(t, Config{Version: 1})
		between(t, client, server, "first") // from here on both know the version
		a, b := between(t, server, client, "second")
		exchange(t, a, b, 1)
		x, err := client.OpenEarly(t.Context(), "third")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
		r, err := server.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		y, _ := r.Accept()
		got := make([]byte, 2)
		_ = y.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := io.ReadFull(y, got); err != nil || string(got) != "hi" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func TestReaderMakesWayForSmallFramesBesideBulk(t *testing.T) {
	var b baton
	own, other := new(stream.Stream), new(stream.Stream)
	b.leader = own
	expect := func(want bool, st *stream.Stream, n int, woke bool, why string) {
		t.Helper()
		if b.makesWay(st, n, woke) != want {
			t.Errorf("%s: makes way %v, want %v", why, !want, want)
		}
	}
	expect(false, other, 64, true, "no bulk")
	expect(false, other, expressLen+1, true, "bulk itself")
	expect(false, own, 64, true, "its own Read, which comes next")
	expect(false, other, 64, false, "nobody waits")
	for range besideBulk {
		expect(true, other, 64, true, "beside bulk")
	}
	expect(false, other, 64, true, "long after bulk")
}

func TestWrittenBulkCountsAsBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _, _ := eagerPipe(t, Config{})
		a, b := between(t, client, server, "x")
		exchange(t, a, b, 10)
		if client.baton.bulk.Load() != 0 || server.baton.bulk.Load() != 0 {
			t.Error("small frames count as bulk")
		}
		if _, err := a.Write(make([]byte, 4*gatherLen)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(b, make([]byte, 4*gatherLen)); err != nil {
			t.Fatal(err)
		}
		if client.baton.bulk.Load() == 0 || server.baton.bulk.Load() == 0 {
			t.Error("bulk does not")
		}
	})
}
