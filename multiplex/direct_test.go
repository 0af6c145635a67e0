package multiplex

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
)

// memoryPipe is pipe over conns that are memory, with room for so many bytes.
func memoryPipe(t testing.TB, room int, cfg Config) (client, server *Socket, c, s stagingMemConn) {
	t.Helper()
	a, b := memPipe(room, 0, 0)
	c, s = staging(a), staging(b)
	client, server = Client(c, cfg), Server(s, cfg)
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	return client, server, c, s
}

// Bulk through memory is copied once on each side: from the Write to the conn,
// and from the conn to the Read that waits.
func TestBulkThroughMemoryIsCopiedOnceOnEachSide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, c, s := memoryPipe(t, 1<<20, Config{})
		a, b := between(t, client, server, "x")
		exchange(t, a, b, 10)
		p, buf := random(1, 64<<10), make([]byte, 64<<10)
		s.into.Store(&buf)
		for range 50 {
			done := make(chan error)
			go func() {
				_, err := io.ReadFull(b, buf)
				done <- err
			}()
			synctest.Wait()
			if n, err := a.Write(p); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
			if err := <-done; err != nil || !bytes.Equal(buf, p) {
				t.Fatal(err)
			}
		}
		if staged, read := c.stages.Load(), s.reads.Load(); staged < 20 || read < 20 {
			t.Errorf("%d frames were staged, and %d Reads got theirs from the conn, of 100", staged, read)
		}
		if st := client.Stats(); st.BytesSent != server.Stats().BytesReceived {
			t.Errorf("%d bytes are counted as sent, %d as received", st.BytesSent, server.Stats().BytesReceived)
		}
	})
}

// Frames of all sizes, of several channels, both ways: each channel's bytes come
// in their order.
func TestChannelsThroughMemoryKeepTheirBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, c, s := memoryPipe(t, 300_000, Config{})
		var wg sync.WaitGroup
		for i, size := range []int{64 << 10, 700, 300_000, 17_000} {
			a, b := between(t, client, server, "x")
			for k, way := range [][2]*channel.Socket{{a, b}, {b, a}} {
				want := random(byte(2*i+k), 600_000)
				wg.Go(func() {
					for p := want; len(p) > 0; p = p[min(size, len(p)):] {
						if _, err := way[0].Write(p[:min(size, len(p))]); err != nil {
							t.Error(err)
						}
					}
					_ = way[0].CloseWrite()
				})
				wg.Go(func() {
					if got, err := io.ReadAll(way[1]); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%d bytes by %d came as %d others, %v", len(want), size, len(got), err)
					}
				})
			}
		}
		wg.Wait()
		a, b := between(t, client, server, "alone")
		for _, way := range [][2]*channel.Socket{{a, b}, {b, a}} { // many writers may leave each other no moment for it
			synctest.Wait()
			want, got := random(1, 64<<10), make([]byte, 64<<10)
			wg.Go(func() {
				if _, err := io.ReadFull(way[1], got); err != nil || !bytes.Equal(got, want) {
					t.Errorf("alone: other bytes, %v", err)
				}
			})
			if _, err := way[0].Write(want); err != nil {
				t.Error(err)
			}
			wg.Wait()
		}
		if c.stages.Load() == 0 || s.stages.Load() == 0 {
			t.Error("nothing was staged")
		}
	})
}

// The request that opened a channel stands before the bulk that follows it at
// once.
func TestBulkDoesNotOvertakeItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, c, _ := memoryPipe(t, 1<<20, Config{})
		for range 20 {
			a, err := client.OpenEarly(t.Context(), "x")
			if err != nil {
				t.Fatal(err)
			}
			if n, err := a.Write(fill(earlyCredit)); n != earlyCredit || err != nil {
				t.Fatal(n, err)
			}
			r, err := server.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			b, _ := r.Accept()
			if _, err := io.ReadFull(b, make([]byte, earlyCredit)); err != nil {
				t.Fatal(err)
			}
			_, _ = a.Close(), b.Close()
		}
		if c.stages.Load() == 0 {
			t.Error("nothing was staged")
		}
	})
}

// A peer that takes nothing: the Write has sent what it says, and no more.
//
// fault: A10, B9
func TestBulkIntoFullMemoryObeysItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _, _ := memoryPipe(t, 100_000, Config{BeaconInterval: -1})
		a, b := between(t, client, server, "x")
		exchange(t, a, b, 10)
		time.Sleep(time.Minute)
		p := random(1, 1<<20)
		start := time.Now()
		_ = a.SetWriteDeadline(start.Add(time.Second))
		n, err := a.Write(p)
		if n != 256<<10-10 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%d, %v after %v", n, err, time.Since(start))
		}
		_ = a.CloseWrite()
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, p[:n]) {
			t.Errorf("%d bytes came of %d, %v", len(got), n, err)
		}
	})
}

// Whatever ends a channel amid a Write: what the Write has sent is a beginning of
// its data, the end stands behind it, and the link lives.
//
// fault: C4, C5
func TestEndAmidBulkThroughMemory(t *testing.T) {
	for name, end := range map[string]func(near, far *channel.Socket){
		"close write":    func(near, _ *channel.Socket) { _ = near.CloseWrite() },
		"close":          func(near, _ *channel.Socket) { _ = near.Close() },
		"reset":          func(near, _ *channel.Socket) { _ = near.Reset(300) },
		"deadline":       func(near, _ *channel.Socket) { _ = near.SetWriteDeadline(time.Unix(1, 0)) },
		"close far off":  func(_, far *channel.Socket) { _ = far.Close() },
		"reset from far": func(_, far *channel.Socket) { _ = far.Reset(300) },
	} {
		synctest.Test(t, func(t *testing.T) {
			client, server, _, _ := memoryPipe(t, 200_000, Config{MaxBuffered: 256 << 10}) // windows do not grow
			a, b := between(t, client, server, "x")
			other, far := between(t, client, server, "y")
			p := random(1, 2<<20)
			var got []byte
			var wg sync.WaitGroup
			wg.Go(func() {
				buf := make([]byte, 100_000)
				for len(got) < 500_000 {
					n, err := b.Read(buf)
					if got = append(got, buf[:n]...); err != nil {
						return
					}
				}
				end(a, b) // the Write goes on, or waits for credit: it cannot have sent all
				rest, _ := io.ReadAll(b)
				got = append(got, rest...)
			})
			n, err := a.Write(p)
			if name == "deadline" {
				_ = a.SetWriteDeadline(time.Time{})
			}
			_ = a.CloseWrite()
			wg.Wait()
			if err == nil || n == len(p) {
				t.Errorf("%s: wrote %d, %v", name, n, err)
			}
			if len(got) > n || !bytes.Equal(got, p[:len(got)]) || name == "close write" && len(got) != n {
				t.Errorf("%s: %d bytes came of %d, or others", name, len(got), n)
			}
			exchange(t, other, far, 10)
		})
	}
}

// fault: C3
func TestMemoryThatEndsAmidBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, c, _ := memoryPipe(t, 200_000, Config{})
		a, b := between(t, client, server, "x")
		done := make(chan error)
		go func() {
			_, err := io.Copy(io.Discard, b)
			done <- err
		}()
		go func() {
			time.Sleep(100 * time.Millisecond)
			_ = c.Close()
		}()
		var err error
		for err == nil {
			time.Sleep(time.Millisecond)
			_, err = a.Write(fill(100_000))
		}
		if errors.Is(err, net.ErrClosed) && client.Err() == nil {
			t.Errorf("write: %v", err)
		}
		if err := <-done; err == nil {
			t.Error("the reader saw a clean end")
		}
		<-client.Done()
		<-server.Done()
	})
}

// Bulk that its peer has no credit for is not taken, though it may be in the
// Read's buffer already: the channel is reset, and the link lives.
//
// fault: C2
func TestBulkBeyondTheCreditResetsItsChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := memPipe(1<<20, 0, 0)
		cfg := Config{Window: earlyCredit}
		client, server := Client(x, cfg), Server(staging(y), cfg) // x writes 64 KiB at once
		defer client.Close()
		defer server.Close()
		a, b := between(t, client, server, "x")
		exchange(t, a, b, 10)
		send := func(n int) { // a frame, whatever the credit
			client.line.inOrder(a.ID(), fill(n), prompt)
			client.flush()
		}
		read := func() (sum int, err error) {
			_ = b.SetReadDeadline(time.Now().Add(time.Second))
			for err == nil {
				var n int
				n, err = b.Read(make([]byte, 200_000))
				sum += n
			}
			return sum, err
		}
		send(30_000) // which is less than what is granted again
		if n, err := read(); n != 30_000 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(n, err)
		}
		go send(maxBody)
		n, err := read()
		if reset, ok := errors.AsType[*channel.ResetError](err); !ok || n != 0 || reset.Code != channel.CodeFlowControl || reset.Remote {
			t.Errorf("read %d, %v", n, err)
		}
		synctest.Wait()
		if n := server.Stats().Unread; n != 0 {
			t.Errorf("%d bytes are unread", n)
		}
		_ = a.Close()
		c, d := between(t, client, server, "y")
		exchange(t, c, d, 10)
	})
}
