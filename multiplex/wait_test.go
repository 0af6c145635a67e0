package multiplex

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
)

// What TrySend can never take it says so of; the rest finds room some time, and
// WaitSend waits for that.
//
// case: E13
func TestMessagesFindRoomOrAreTooLong(t *testing.T) {
	for name, c := range map[string]struct {
		cfg   Config
		conns func() (a, b net.Conn)
		size  int // 0: MaxSend
		idle  int // channels that are open beside
		bulk  int // channels that send beside
		odd   int // bytes that are sent before and read
	}{
		"alone":                      {},
		"after odd bytes":            {odd: 140_000},
		"through memory":             {conns: func() (a, b net.Conn) { x, y := memPipe(1<<20, 0, 0); return staging(x), staging(y) }},
		"beside bulk":                {bulk: 3, size: 100_000, conns: func() (a, b net.Conn) { return memPipe(1<<20, 100e6, 0) }},
		"with a small window":        {cfg: Config{Window: 64 << 10}, size: 200_000},
		"beside many":                {idle: 300, size: 64 << 10},
		"beside many, large":         {idle: 300},
		"to a peer without promises": {cfg: Config{plain: true}, size: 64 << 10, odd: 10_000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if c.conns == nil {
					c.conns = func() (a, b net.Conn) { x, y := memPipe(1<<20, 0, 0); return eagerMemConn{x}, eagerMemConn{y} }
				}
				client, server := within(t, [2]Config{{}, c.cfg}, c.conns)
				stop := make(chan struct{})
				defer func() { close(stop); _, _ = client.Close(), server.Close() }()
				for range c.idle {
					between(t, client, server, "idle")
				}
				for range c.bulk {
					begin(t, client, server, stop)
				}
				a, b := between(t, client, server, "x")
				go func() { _, _ = a.Write(fill(c.odd)) }()
				if _, err := io.ReadFull(b, make([]byte, c.odd)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				most := a.MaxSend()
				if c.size == 0 {
					c.size = most
				}
				for _, n := range []int{most + 1, 256 << 10, 1 << 30} {
					if n > most && !errors.Is(a.WaitSend(n), channel.ErrTooLong) {
						t.Errorf("wait for %d bytes of %d: %v", n, most, a.WaitSend(n))
					}
				}
				if err := a.TrySend(fill(most + 1)); !errors.Is(err, channel.ErrTooLong) {
					t.Errorf("%d bytes of %d: %v", most+1, most, err)
				}
				sendMany(t, a, b, c.size)
			})
		})
	}
}

func sendMany(t *testing.T, a, b *channel.Socket, size int) {
	const messages = 5
	want := random(3, messages*size)
	got := make(chan error, 1)
	go func() {
		buf := make([]byte, len(want))
		_, err := io.ReadFull(b, buf)
		if err == nil && !bytes.Equal(buf, want) {
			err = errors.New("other bytes have come")
		}
		got <- err
	}()
	_ = a.SetWriteDeadline(time.Now().Add(time.Minute))
	for i := 0; i < messages; {
		if err := a.WaitSend(size); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		switch err := a.TrySend(want[i*size:][:size]); {
		case err == nil:
			i++
		case !errors.Is(err, channel.ErrWouldBlock):
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// case: E13
func TestWaitForRoomEndsWithItsReason(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(a, b *channel.Socket, client *Socket)
		want error
	}{
		"deadline":   {func(a, _ *channel.Socket, _ *Socket) { _ = a.SetWriteDeadline(time.Now().Add(time.Second)) }, os.ErrDeadlineExceeded},
		"closed":     {func(a, _ *channel.Socket, _ *Socket) { _ = a.Close() }, net.ErrClosed},
		"peer":       {func(_, b *channel.Socket, _ *Socket) { _ = b.Reset(300) }, nil},
		"link":       {func(_, _ *channel.Socket, client *Socket) { _ = client.Close() }, net.ErrClosed},
		"CloseWrite": {func(a, _ *channel.Socket, _ *Socket) { _ = a.CloseWrite() }, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server, _, _ := eagerPipe(t, Config{})
				a, b := between(t, client, server, "x")
				synctest.Wait()
				for a.TrySend(fill(10_000)) == nil { // until all credit is used
					synctest.Wait()
				}
				errc := make(chan error, 1)
				go func() { errc <- a.WaitSend(200_000) }()
				synctest.Wait()
				select {
				case err := <-errc:
					t.Fatalf("there is room: %v", err)
				default:
				}
				c.end(a, b, client)
				err := <-errc
				if _, reset := errors.AsType[*channel.ResetError](err); c.want == nil && !reset || c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
			})
		})
	}
}
