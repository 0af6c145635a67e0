package forward

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"peerlink/multiplex"
)

// shortConn is a connection that says a word and is reset.
type shortConn struct {
	net.Conn
	said bool
}

// Read implements net.Conn.
func (c *shortConn) Read(p []byte) (int, error) {
	if c.said {
		return 0, syscall.ECONNRESET
	}
	c.said = true
	return copy(p, "word"), nil
}

// A load test, or a port scan, through a forward leaves the link alone, and the
// other channels of it.
//
// case: E23
func TestManyShortConnectionsLeaveTheLinkAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 3000 // in no time, as the bubble's clock has it
		a, b := net.Pipe()
		here, there := multiplex.Client(a, multiplex.Config{}), multiplex.Server(b, multiplex.Config{})
		defer here.Close()
		defer there.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for {
				r, err := there.Accept(ctx)
				if err != nil {
					return
				}
				go func() {
					if c, err := r.Accept(); err == nil {
						_, _ = io.Copy(c, c)
						_ = c.Close()
					}
				}()
			}
		}()
		innocent, err := here.Open(ctx, "innocent://")
		if err != nil {
			t.Fatal(err)
		}
		defer innocent.Close()
		far := newLine()
		done := make(chan error, 1)
		var lost atomic.Pointer[error]
		go func() {
			done <- Relay(ctx, far, RelayConfig{Open: func(ctx context.Context) (net.Conn, error) {
				c, err := here.Open(ctx, URIDial)
				if err != nil { // and not a nil *Socket in an interface
					return nil, err
				}
				return c, nil
			}, Note: func(err error) { lost.CompareAndSwap(nil, &err) }})
		}()
		for range many {
			near, program := net.Pipe()
			_ = program.Close()
			far.conns <- &shortConn{Conn: near}
		}
		_ = far.Close()
		<-done
		if err := lost.Load(); err != nil {
			t.Errorf("a connection was not joined: %v", *err)
		}
		if _, err := io.WriteString(innocent, "hello"); err != nil {
			t.Fatalf("the innocent channel: %v", err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(innocent, got); err != nil || string(got) != "hello" {
			t.Errorf("the innocent channel: %q, %v", got, err)
		}
	})
}
