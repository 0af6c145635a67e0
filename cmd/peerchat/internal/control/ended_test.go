//go:build linux

package control

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/identity"
)

var somebody = identity.DeviceID{1}

// askers are the ways in which a command depends on a daemon. Each is called
// when it has begun, and returns the error with which it ends.
func askers(c *Client) map[string]func(ctx context.Context, begun func()) error {
	return map[string]func(ctx context.Context, begun func()) error{
		"an answer that never comes": func(ctx context.Context, begun func()) error {
			begun()
			return c.call(ctx, "wait", nil, nil)
		},
		"news": func(ctx context.Context, begun func()) error {
			return Feed[None, None]("news").Follow(ctx, c, None{}, begun, func(None) error { return nil })
		},
		"a listener": func(ctx context.Context, begun func()) error {
			l, err := c.Listen(ctx, "x://*")
			if err != nil {
				return err
			}
			defer l.Close()
			begun()
			_, err = l.Accept()
			return err
		},
		"a channel": func(ctx context.Context, begun func()) error {
			conn, err := c.Connect(ctx, Connect{Device: somebody, URI: "x://"})
			if err != nil {
				return err
			}
			defer conn.Close()
			begun()
			_, err = conn.Read(make([]byte, 1))
			return err
		},
	}
}

// waiting are the handlers for them.
func waiting() Handlers {
	wait := func(ctx context.Context, _ *Call) error { <-ctx.Done(); return nil }
	follow := func(ctx context.Context, c *Call) error {
		err := c.Answer(nil)
		<-ctx.Done()
		return err
	}
	return Handlers{
		"wait": wait, "news": follow,
		OpListen: func(ctx context.Context, c *Call) error {
			err := c.Answer("")
			<-ctx.Done()
			return err
		},
		OpConnect: func(_ context.Context, c *Call) error {
			conn, err := c.Conn("x://", identity.Peer{Device: somebody}, identity.Peer{Device: somebody})
			if err != nil {
				return err
			}
			_, _ = io.Copy(io.Discard, conn)
			return conn.Close()
		},
	}
}

func TestCommandsAreToldThatTheDaemonEnds(t *testing.T) {
	for name := range askers(nil) {
		folder := home(t)
		s := serve(t, folder, waiting())
		begun, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- askers(NewClient(folder))[name](t.Context(), func() { close(begun) }) }()
		select {
		case <-begun:
		case err := <-ended:
			t.Fatalf("%s: %v", name, err)
		}
		for s.waiting() == 0 { // it has asked: there is nothing else to wait on
			time.Sleep(time.Millisecond)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		var end *EndedError
		if err := <-ended; !errors.As(err, &end) || !end.Told || !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "peerchat stop") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// waiting counts the connections that have asked.
func (s *Server) waiting() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		if c != nil {
			n++
		}
	}
	return n
}

// fault: G1
func TestCommandsNoticeThatTheDaemonWasKilled(t *testing.T) {
	for name := range askers(nil) {
		t.Run(name, func(t *testing.T) {
			here, there := pair(t)
			go func() { // a daemon that answers one request, and then is no more
				defer there.Close()
				w := newWire(there)
				c, err := greet(w)
				switch {
				case err != nil || c.op == "wait":
				case c.op == OpConnect:
					_ = c.Answer(Channel{"x://", identity.Peer{Device: somebody}, identity.Peer{Device: somebody}})
				case c.op == OpListen:
					_ = c.Answer("")
				default:
					_ = c.Answer(nil)
				}
			}()
			c := NewClientOf(func(context.Context) (net.Conn, error) { return here, nil })
			err := askers(c)[name](t.Context(), func() {})
			var end *EndedError
			if !errors.As(err, &end) || end.Told || !strings.Contains(err.Error(), "as if killed") {
				t.Errorf("%v", err)
			}
		})
	}
}

// A command that reads nothing must not keep the daemon from ending.
func TestASilentCommandDelaysTheEndALittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := Inside()
		s := Serve(l, Config{Handlers: Handlers{
			"flood": func(ctx context.Context, c *Call) error {
				for ctx.Err() == nil {
					if err := c.Answer(nil); err != nil {
						return err
					}
				}
				return nil
			},
		}})
		here, err := c.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer here.Close()
		w := newWire(here)
		_, _ = here.Write(greeting())
		_, _ = readGreeting(w.br)
		if err := w.writeMessage(request{Op: "flood"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		_ = s.Close()
		if took := time.Since(began); took > 2*lastWords {
			t.Errorf("it took %v to end", took)
		}
	})
}

func TestWhoAskedForTheEndHearsOfItLast(t *testing.T) {
	folder := home(t)
	detached := make(chan net.Conn, 1)
	s := serve(t, folder, Handlers{string(OpStop): func(_ context.Context, c *Call) error {
		err := c.Answer(nil)
		detached <- c.Detach()
		return err
	}})
	begun, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- OpStop.Follow(t.Context(), NewClient(folder), None{}, func() { close(begun) }, func(None) error { return nil })
	}()
	select {
	case <-begun:
	case err := <-ended:
		t.Fatalf("it ended before there was an answer: %v", err)
	}
	conn := <-detached // it follows the answer
	_ = s.Close()
	select {
	case err := <-ended:
		t.Errorf("with the server: %v", err)
	default:
	}
	_ = conn.Close()
	var end *EndedError
	if err := <-ended; !errors.As(err, &end) {
		t.Errorf("%v", err)
	}
}

// What a command wrote before it closed its channel is passed on, however slow
// the other side takes it.
func TestSettleWaitsForWhatACommandWroteAndClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := Inside()
		got := make(chan int64, 1)
		s := Serve(l, Config{Handlers: Handlers{OpConnect: func(_ context.Context, c *Call) error {
			conn, err := c.Conn("x://", identity.Peer{Device: somebody}, identity.Peer{Device: somebody})
			if err != nil {
				return err
			}
			time.Sleep(time.Second)
			n, _ := io.Copy(io.Discard, conn)
			got <- n
			return conn.Close()
		}}})
		conn, err := c.Connect(t.Context(), Connect{URI: "x://"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		s.Settle(t.Context())
		_ = s.Close()
		if n := <-got; n != 100_000 {
			t.Errorf("%d of 100000 bytes were passed on", n)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.Settle(short) // nothing is left: at once
		if short.Err() != nil {
			t.Error("Settle waits for nothing")
		}
	})
}
