package multiplex

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// forgetful is one end of a path that loses what is under way when it is closed,
// as a carrier does that runs over its own socket.
type forgetful struct{ *memConn }

func (c forgetful) Close() error {
	c.out.mu.Lock()
	c.out.chunks = nil
	c.out.mu.Unlock()
	return c.memConn.Close()
}

// A link that is drained is closed when the peer has read everything, however long
// the path is; without the time for that, Drain says so.
//
// case: E3
func TestDrainWaitsUntilThePeerHasAllBytes(t *testing.T) {
	for patience, whole := range map[time.Duration]bool{time.Minute: true, time.Second: false} {
		synctest.Test(t, func(t *testing.T) {
			a, b := memPipe(1<<20, 0, 3*time.Second)
			cfg := Config{BeaconTimeout: time.Minute}
			client, server := Client(a, cfg), Server(forgetful{b}, cfg)
			defer client.Close()
			go func() {
				r, err := server.Accept(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				sock, err := r.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadAll(sock); err != nil {
					t.Error(err)
				}
				if _, err := sock.Write(make([]byte, 50_000)); err != nil {
					t.Error(err)
				}
				_ = sock.Close()
			}()
			sock, err := client.Open(t.Context(), "x://")
			if err != nil {
				t.Fatal(err)
			}
			_ = sock.CloseWrite()
			time.Sleep(3100 * time.Millisecond) // the far end has written it all, and none has come
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			drained := make(chan error, 1)
			go func() { drained <- server.Drain(ctx, 0, "") }()
			got, err := io.ReadAll(sock)
			if (err == nil && len(got) == 50_000) != whole {
				t.Errorf("within %v, %d bytes came, then %v", patience, len(got), err)
			}
			if err := <-drained; (err == nil) != whole || !whole && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("within %v: %v", patience, err)
			}
		})
	}
}

// The answer to a first beacon may come before data that still waits on a slow path:
// Drain asks again, and does not leave it to Close, which has a second.
func TestDrainWaitsForWhatABeaconHasOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		client, server := Client(narrow{a, 20_000}, Config{}), Server(b, Config{})
		defer server.Close()
		near, far := between(t, client, server, "x")
		_ = far.CloseWrite()
		read := make(chan int64, 1)
		go func() {
			n, _ := io.Copy(io.Discard, far)
			read <- n
		}()
		if _, err := near.Write(fill(60_000)); err != nil {
			t.Fatal(err)
		}
		_ = near.Close() // both directions have ended, and the path is busy for three seconds
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := client.Drain(ctx, 0, ""); err != nil {
			t.Error(err)
		}
		if n := <-read; n != 60_000 {
			t.Errorf("%d bytes were read", n)
		}
	})
}
