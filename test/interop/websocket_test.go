package interop_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
)

// A socket is a WebSocket of either library.
type socket interface {
	// send sends a message in fragments.
	send(ctx context.Context, binary bool, parts ...[]byte) error
	receive(ctx context.Context) (binary bool, message []byte, err error)
	// end closes with a code, and waits for the peer's.
	end(ctx context.Context, code int, reason string) error
}

// A closed is the error of receive after the peer's end.
type closed struct {
	code   int
	reason string
}

func (c closed) Error() string { return fmt.Sprintf("closed with %d, %q", c.code, c.reason) }

type gorillaSocket struct{ *gorilla.Conn }

func (s gorillaSocket) send(ctx context.Context, binary bool, parts ...[]byte) error {
	deadline, _ := ctx.Deadline()
	_ = s.SetWriteDeadline(deadline)
	kind := gorilla.TextMessage
	if binary {
		kind = gorilla.BinaryMessage
	}
	w, err := s.NextWriter(kind)
	return write(w, err, parts)
}

func (s gorillaSocket) receive(ctx context.Context) (bool, []byte, error) {
	deadline, _ := ctx.Deadline()
	_ = s.SetReadDeadline(deadline)
	kind, p, err := s.ReadMessage()
	if end, ok := errors.AsType[*gorilla.CloseError](err); ok {
		err = errors.Join(closed{end.Code, end.Text}, s.Close())
	}
	return kind == gorilla.BinaryMessage, p, err
}

func (s gorillaSocket) end(ctx context.Context, code int, reason string) error {
	deadline, _ := ctx.Deadline()
	if err := s.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(code, reason), deadline); err != nil {
		return err
	}
	_, _, err := s.receive(ctx)
	if end, ok := errors.AsType[closed](err); ok && end.code == code {
		return nil // the peer's answer
	}
	return err
}

type coderSocket struct{ *coder.Conn }

func (s coderSocket) send(ctx context.Context, binary bool, parts ...[]byte) error {
	kind := coder.MessageText
	if binary {
		kind = coder.MessageBinary
	}
	w, err := s.Writer(ctx, kind)
	return write(w, err, parts)
}

func (s coderSocket) receive(ctx context.Context) (bool, []byte, error) {
	kind, p, err := s.Read(ctx)
	if end, ok := errors.AsType[coder.CloseError](err); ok {
		err = closed{int(end.Code), end.Reason}
	}
	return kind == coder.MessageBinary, p, err
}

func (s coderSocket) end(_ context.Context, code int, reason string) error {
	return s.Close(coder.StatusCode(code), reason)
}

// write writes the parts of a message.
func write(w io.WriteCloser, err error, parts [][]byte) error {
	for _, p := range parts {
		if err == nil {
			_, err = w.Write(p)
		}
	}
	if err != nil {
		return err
	}
	return w.Close()
}

// libraries are both ends of each WebSocket library over peerlink.
var libraries = []struct {
	name   string
	accept func(http.ResponseWriter, *http.Request) (socket, error)
	dial   func(ctx context.Context, alice *device, url string) (socket, error)
}{
	{"gorilla", func(w http.ResponseWriter, r *http.Request) (socket, error) {
		c, err := new(gorilla.Upgrader).Upgrade(w, r, nil)
		return gorillaSocket{c}, err
	}, func(ctx context.Context, alice *device, url string) (socket, error) {
		d := gorilla.Dialer{NetDialContext: alice.ConnectionManager().DialContext}
		c, _, err := d.DialContext(ctx, "ws"+url, nil)
		return gorillaSocket{c}, err
	}},
	{"coder", func(w http.ResponseWriter, r *http.Request) (socket, error) {
		c, err := coder.Accept(w, r, nil)
		if err == nil {
			c.SetReadLimit(-1)
		}
		return coderSocket{c}, err
	}, func(ctx context.Context, alice *device, url string) (socket, error) {
		client := &http.Client{Transport: alice.ConnectionManager().Transport()}
		c, _, err := coder.Dial(ctx, "http"+url, &coder.DialOptions{HTTPClient: client})
		if err == nil {
			c.SetReadLimit(-1)
		}
		return coderSocket{c}, err
	}},
}

// Each library's client talks to each library's server.
func TestWebSocket(t *testing.T) {
	overWays(t, func(t *testing.T, alice, bob *device) {
		ctx := limited(t)
		mux, ends := http.NewServeMux(), make(chan error)
		for _, l := range libraries {
			mux.HandleFunc("/"+l.name, func(w http.ResponseWriter, r *http.Request) {
				s, err := l.accept(w, r)
				if err == nil {
					err = echo(ctx, s)
				}
				select {
				case ends <- err:
				case <-ctx.Done():
				}
			})
		}
		bob.serve(t, mux)
		for _, client := range libraries {
			for _, server := range libraries {
				t.Run(client.name+" to "+server.name, func(t *testing.T) {
					talk(ctx, t, ends, func() socket {
						s, err := client.dial(ctx, alice, "://"+bob.id().String()+"/"+server.name)
						if err != nil {
							t.Fatal(err)
						}
						return s
					})
				})
			}
		}
	})
}

// talk has either side end a connection with a code. ends tells how the server's
// handlers end.
func talk(ctx context.Context, t *testing.T, ends <-chan error, dial func() socket) {
	s := dial()
	echoes(ctx, t, s)
	if err := s.end(ctx, 4321, "enough"); err != nil {
		t.Errorf("the client's end: %v", err)
	}
	wantClosed(t, await(ctx, t, ends), closed{4321, "enough"})

	s = dial()
	if err := s.send(ctx, false, []byte("end")); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.receive(ctx)
	wantClosed(t, err, closed{4000, "as asked"})
	if err := await(ctx, t, ends); err != nil {
		t.Errorf("the server's end: %v", err)
	}
}

// echo sends back what it receives, in three fragments, until either side ends.
func echo(ctx context.Context, s socket) error {
	for {
		binary, p, err := s.receive(ctx)
		switch {
		case err != nil:
			return err
		case !binary:
			return s.end(ctx, 4000, "as asked")
		}
		if err := s.send(ctx, true, p[:len(p)/3], p[len(p)/3:len(p)/2], p[len(p)/2:]); err != nil {
			return err
		}
	}
}

// echoes sends messages of many lengths, and wants each of them back.
func echoes(ctx context.Context, t *testing.T, s socket) {
	t.Helper()
	random := rand.NewChaCha8([32]byte{})
	for _, n := range []int{0, 1, 125, 126, 4096, 65535, 65536, 1<<20 + 1} {
		p := make([]byte, n)
		_, _ = random.Read(p)
		sent := make(chan error, 1)
		go func() { sent <- s.send(ctx, true, p[:n/2], p[n/2:n/2], p[n/2:]) }()
		binary, q, err := s.receive(ctx)
		if err != nil || !binary || !bytes.Equal(p, q) {
			t.Fatalf("of %d bytes %d come back, binary %t, %v", n, len(q), binary, err)
		}
		if err := await(ctx, t, sent); err != nil {
			t.Fatal(err)
		}
	}
}

func wantClosed(t *testing.T, err error, want closed) {
	t.Helper()
	if end, ok := errors.AsType[closed](err); !ok || end != want {
		t.Errorf("the end is %v, want: %v", err, want)
	}
}

// await returns the next value of a channel.
func await[E any](ctx context.Context, t *testing.T, c <-chan E) E {
	t.Helper()
	select {
	case e := <-c:
		return e
	case <-ctx.Done():
		t.Fatal(context.Cause(ctx))
		panic("unreachable")
	}
}
