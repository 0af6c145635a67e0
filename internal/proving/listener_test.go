package proving

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"peerlink/identity"
	"peerlink/internal/pause"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// known is a connection that has said a byte: the queue that it belongs to.
type known struct {
	net.Conn
	queue string
}

func (k known) Peer() identity.Peer { return identity.Peer{Device: identity.DeviceID{1}} }

// world is a listener over a source that a test feeds.
type world struct {
	*Listener[known]
	in   chan any // net.Conn or error
	stop atomic.Int32
}

// prove reads a byte.
func prove(ctx context.Context, conn net.Conn) (known, error) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var b [1]byte
	if _, err := conn.Read(b[:]); err != nil {
		_ = conn.Close()
		return known{}, err
	}
	return known{conn, string(b[:])}, nil
}

func newWorld(gate *Gate, keep bool) *world {
	w := &world{in: make(chan any)}
	w.Listener = Listen(Config[known]{
		Room: "room", Carrier: "wire", Logger: slog.New(slog.DiscardHandler), Gate: gate, Prove: prove, Keep: keep,
		Queues: []string{"a", "b"}, Queue: func(k known) string { return k.queue },
		Stop: func() { w.stop.Add(1) },
	}, func(ctx context.Context) (net.Conn, error) {
		select {
		case v := <-w.in:
			if err, failed := v.(error); failed {
				return nil, err
			}
			return v.(net.Conn), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	return w
}

// call makes a connection and returns the caller's end, which has said what.
func (w *world) call(what string) net.Conn {
	ours, theirs := net.Pipe()
	w.in <- ours
	if what != "" {
		_, _ = theirs.Write([]byte(what))
	}
	return theirs
}

func TestProvenConnectionsComeOutOfTheirQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(&Gate{Places: 8}, true)
		defer w.Close()
		first, second := w.call("b"), w.call("a")
		defer first.Close()
		defer second.Close()
		for _, queue := range []string{"a", "b"} {
			conn, err := w.Accept(t.Context(), queue)
			if err != nil || conn.queue != queue {
				t.Errorf("from %s: %v, %v", queue, conn, err)
			}
			conn.Close()
		}
		if _, err := w.Accept(t.Context(), "c"); err == nil || errors.Is(err, net.ErrClosed) {
			t.Errorf("a queue that is not there: %v", err)
		}
		w.call("").Close()
		synctest.Wait()
		if s := w.Stats(); s != (Stats{Proven: 2, Failed: 1}) || w.Held() != 0 {
			t.Errorf("%+v, %d places are taken", s, w.Held())
		}
	})
}

// fault: D7
func TestTheOldestThatSaysNothingLosesItsPlaceAndIsCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(&Gate{Places: 2, Grace: time.Second}, true)
		defer w.Close()
		kept := w.call("a") // waits to be accepted, and keeps its place
		silent := w.call("")
		start := time.Now()
		next := w.call("a") // is heard once it has the place of the silent one
		if d := time.Since(start); d != time.Second {
			t.Errorf("the newcomer waited %v, want the grace", d)
		}
		for range 2 {
			conn, err := w.Accept(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			synctest.Wait()
		}
		for _, c := range []net.Conn{kept, silent, next} {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("a connection is still open")
			}
		}
		if s := w.Stats(); s != (Stats{Proven: 2, Shed: 1}) {
			t.Errorf("%+v", s)
		}
	})
}

// fault: J2
func TestAListenerEndsWithItsSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(&Gate{Places: 8}, false)
		w.in <- syscall.EMFILE // for a moment
		start := time.Now()
		caller := w.call("a")
		defer caller.Close()
		if d := time.Since(start); d != FirstPause {
			t.Errorf("after a failure the source was asked again after %v, want %v", d, FirstPause)
		}
		w.in <- net.ErrClosed // for good
		synctest.Wait()
		if _, err := w.Accept(t.Context(), "a"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v, want net.ErrClosed", err)
		}
		for range 2 {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
		if n := w.stop.Load(); n != 1 {
			t.Errorf("the sources were stopped %d times", n)
		}
		if s := w.Stats(); s.AcceptErrors != 1 || w.Held() != 0 {
			t.Errorf("%+v, %d places are taken", s, w.Held())
		}
	})
}

func TestAProofEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read := func(ctx context.Context, limit time.Duration, said string) (known, error) {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			if said != "" {
				go theirs.Write([]byte(said))
			}
			k, err := Within(ctx, ours, limit, "said a byte", func() (known, error) {
				var b [1]byte
				_, err := ours.Read(b[:])
				return known{ours, string(b[:])}, err
			})
			if err != nil {
				if _, err := ours.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("the connection is not closed: %v", err)
				}
			}
			return k, err
		}
		if k, err := read(t.Context(), time.Second, "a"); err != nil || k.queue != "a" || k.Close() != nil {
			t.Errorf("%v, %v", k, err)
		}
		start := time.Now()
		if _, err := read(t.Context(), time.Second, ""); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		if _, err := read(ctx, 0, ""); !errors.Is(err, context.Canceled) || time.Since(start) != time.Second+time.Minute {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// A proof that succeeds too late is none: what it made is closed.
func TestAProofThatComesTooLateIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		_, err := Within(t.Context(), ours, time.Second, "come", func() (known, error) {
			time.Sleep(2 * time.Second)
			return known{Conn: ours}, nil
		})
		if err == nil {
			t.Error("it was taken")
		}
		if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%v, want io.EOF", err)
		}
	})
}

// flood has silent connections come from addresses in turn, so many a second. stop
// ends that, and returns how many were closed by then.
func (w *world) flood(perSecond int, address func(i int) string) (stop func() int32) {
	ctx, cancel := context.WithCancel(context.Background())
	var closed atomic.Int32
	var flooding sync.WaitGroup
	flooding.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			ours, theirs := net.Pipe()
			if !w.come(ctx, stranger{ours, from(address(i)).addr}) {
				return
			}
			go func() {
				_, _ = theirs.Read(make([]byte, 1))
				closed.Add(1)
			}()
			_ = pause.For(ctx, time.Second/time.Duration(perSecond))
		}
	})
	return func() int32 {
		cancel()
		flooding.Wait()
		return closed.Load()
	}
}

// come is the source's next connection; false if ctx ends before it is taken.
func (w *world) come(ctx context.Context, conn net.Conn) bool {
	select {
	case w.in <- conn:
		return true
	case <-ctx.Done():
		return false
	}
}

// contact makes a connection from an address, proves it, and returns how long that took.
func (w *world) contact(t *testing.T, address string) time.Duration {
	t.Helper()
	began := time.Now()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		if w.come(ctx, stranger{ours, from(address).addr}) {
			_, _ = theirs.Write([]byte("a"))
		}
	}()
	conn, err := w.Accept(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	return time.Since(began)
}

// One address has a share of the places and a rate: a contact does not notice its
// flood. Many addresses, each within its share, fill the places: a contact waits until
// the oldest of them has had its grace, as long as fewer come than that frees.
//
// case: S11
func TestAContactGetsThroughAFloodOfSilentConnections(t *testing.T) {
	for name, tt := range map[string]struct {
		perSecond int
		address   func(i int) string
		most      time.Duration
	}{
		"of one address":     {300, func(int) string { return "192.0.2.1" }, 0},
		"of one network":     {300, func(i int) string { return fmt.Sprintf("192.0.2.%d", i%256) }, 0},
		"of four networks":   {300, func(i int) string { return fmt.Sprintf("192.0.%d.1", i%4) }, grace},
		"of 10 000 networks": {places / 5, func(i int) string { return fmt.Sprintf("2001:db8:%x::1", i%10_000) }, grace},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(newGate(), true)
				defer w.Close()
				stop := w.flood(tt.perSecond, tt.address)
				time.Sleep(12 * time.Second)
				for range 5 {
					if d := w.contact(t, "198.51.100.7"); d > tt.most {
						t.Errorf("a contact got through in %v, want %v at most", d, tt.most)
					}
					time.Sleep(time.Second)
				}
				if n := w.Held(); n > places {
					t.Errorf("%d places are taken", n)
				}
				if stop() == 0 {
					t.Error("no silent connection has lost its place")
				}
			})
		})
	}
}
