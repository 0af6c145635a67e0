//go:build linux

package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"peerlink/cmd/peerchat/internal/control"
	"peerlink/cmd/peerchat/internal/forward"
)

// within bounds every wait on a connection of a test.
const within = 30 * time.Second

// receive waits for something that a goroutine of the test tells.
func receive[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(within):
		t.Fatal("nothing came")
	}
	return v
}

// tcpServer hands each connection to do, which it closes afterwards.
func tcpServer(t *testing.T, do func(c *net.TCPConn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
				do(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

// forwarded returns where connections are taken that go to an address at another
// device, as peerchat forward -L has it.
func (h *house) forwarded(t *testing.T, to *house, addr string) (at string) {
	t.Helper()
	target, err := forward.ParseAddress(addr)
	if err != nil {
		t.Fatal(err)
	}
	allow := control.ForwardChange{Do: "allow", Who: h.id().String(), May: forward.DoDial, Addr: addr}
	if _, err := control.OpForwards.Ask(t.Context(), to.client, allow); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- forward.Relay(ctx, l, forward.RelayConfig{
			Note: func(err error) { t.Logf("a connection was refused: %v", err) },
			Open: func(ctx context.Context) (net.Conn, error) {
				c, err := h.client.Connect(ctx, control.Connect{Device: to.id(), URI: forward.URIDial})
				if err != nil {
					return nil, err
				}
				return c, forward.Dial(ctx, c, target)
			},
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Relay: %v", err)
		}
	})
	return l.Addr().String()
}

// twoHouses are two accounts that can reach each other.
func twoHouses(t *testing.T) (alice, bob *house) {
	t.Helper()
	local, dir := street(t), t.TempDir()
	return open(t, dir+"/alice", local), open(t, dir+"/bob", local)
}

// A server answers before it has read an upload, and leaves. Its answer arrives as
// it does without a forward, however the server leaves and the client reads.
//
// case: E5
func TestAnEarlyAnswerArrives(t *testing.T) {
	const times = 60
	alice, bob := twoHouses(t)
	answer := append([]byte("HTTP/1.1 413 Content Too Large\r\n\r\n"), bytes.Repeat([]byte("too large "), 3000)...)
	leave := map[string]func(c *net.TCPConn){
		"closed": func(*net.TCPConn) {},
		"ended":  func(c *net.TCPConn) { _ = c.CloseWrite(); _, _ = io.CopyN(io.Discard, c, 1<<20) },
	}
	for how, leave := range leave {
		at := alice.forwarded(t, bob, tcpServer(t, func(c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 1000))
			_, _ = c.Write(answer)
			leave(c)
		}))
		for i := range times {
			t.Run(fmt.Sprint(how, i), func(t *testing.T) {
				conn, err := net.Dial("tcp", at)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(within))
				uploaded := make(chan error, 1)
				go func() {
					_, err := io.CopyN(conn, zeros{}, 16<<20)
					uploaded <- err
				}()
				if i%2 == 0 { // a client that reads once it can write no more
					err = <-uploaded
					uploaded <- err
				}
				got, err := io.ReadAll(conn)
				if !bytes.Equal(got, answer) || err != nil && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%d bytes of %d, %v", len(got), len(answer), err)
				}
				<-uploaded
			})
		}
	}
}

// zeros is endless.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// echoes says something through a forward and reads it back.
func echoes(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(within))
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return err
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "hello" {
		return fmt.Errorf("%q, %w", b, err)
	}
	return nil
}

// case: E6
func TestConnectionsWaitForAPlace(t *testing.T) {
	alice, bob := twoHouses(t)
	addr := tcpServer(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	one, other := alice.forwarded(t, bob, addr), alice.forwarded(t, bob, addr)
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			c, err := net.Dial("tcp", one)
			if err == nil {
				err = errors.Join(echoes(c), c.Close())
			}
			if err != nil {
				t.Errorf("connection %d of many at once: %v", i, err)
			}
		})
	}
	wg.Wait()
	var idle []net.Conn
	for i := range forward.MaxConns {
		c, err := net.Dial("tcp", one)
		if err == nil {
			defer c.Close()
			err = echoes(c)
		}
		if err != nil {
			t.Fatalf("idle connection %d: %v", i, err)
		}
		idle = append(idle, c)
	}
	late, err := net.Dial("tcp", other)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	_ = late.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := late.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the 129th, of another port, reads as %v", err)
	}
	_ = idle[0].Close()
	if err := echoes(late); err != nil {
		t.Errorf("the 129th, once there is a place: %v", err)
	}
}
