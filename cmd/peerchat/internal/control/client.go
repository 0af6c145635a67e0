package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"peerlink/identity"
)

// Client asks the daemon of an account. It keeps no connection; its methods may
// be called concurrently, and each ends with its ctx.
type Client struct {
	dial func(ctx context.Context) (net.Conn, error)
}

// NewClient returns the client of the account in a folder. Whether a daemon
// runs there is found out by each call: if none does its error matches
// ErrNoDaemon.
func NewClient(folder string) *Client {
	return &Client{func(ctx context.Context) (net.Conn, error) { return dialDaemon(ctx, folder) }}
}

// NewClientOf returns a client that reaches its daemon by dial.
func NewClientOf(dial func(ctx context.Context) (net.Conn, error)) *Client { return &Client{dial} }

// request and answer are the first messages.
type request struct {
	Op   string          `json:"op"`
	Body json.RawMessage `json:"body,omitempty"`
}

type answer struct {
	Error *Error          `json:"error,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
}

// call asks and reads the answer into out, unless that is nil. in may be nil.
func (c *Client) call(ctx context.Context, op string, in, out any) error {
	w, end, err := c.ask(ctx, op, in, out)
	if err != nil {
		return err
	}
	end()
	return w.conn.Close()
}

// ask sends a request and reads the answer. end keeps ctx from closing the
// connection; without an error the caller owns that.
func (c *Client) ask(ctx context.Context, op string, in, out any) (w *wire, end func() bool, err error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	w = newWire(conn)
	end = context.AfterFunc(ctx, func() { _ = conn.Close() })
	if err := exchange(w, op, in, out); err != nil {
		end()
		_ = conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, nil, err
	}
	return w, end, nil
}

func exchange(w *wire, op string, in, out any) error {
	var body json.RawMessage
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = b
	}
	_ = w.conn.SetReadDeadline(time.Now().Add(greetTimeout))
	_, sendErr := w.conn.Write(greeting())
	theirs, err := readGreeting(w.br)
	if cutOff(err) {
		return &EndedError{}
	}
	if err != nil {
		return fmt.Errorf("the control socket's other end is no daemon of peerchat: %w", errors.Join(err, sendErr))
	}
	if theirs != Version {
		_, pid, _ := peerOf(w.conn)
		return &VersionError{Theirs: theirs, PID: pid}
	}
	_ = w.conn.SetReadDeadline(time.Time{})
	if err := w.writeMessage(request{op, body}); err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	return readAnswer(w, out)
}

// readAnswer reads the daemon's next message into out.
func readAnswer(w *wire, out any) error {
	var a answer
	if err := w.readMessage(maxAnswer, &a); err != nil {
		if cutOff(err) {
			return &EndedError{}
		}
		return fmt.Errorf("the daemon's answer: %w", err)
	}
	switch {
	case a.Error != nil && a.Error.Code == codeEnded:
		return &EndedError{Told: true}
	case a.Error != nil:
		return a.Error
	}
	if out == nil {
		return nil
	}
	if err := strict(a.Body, out); err != nil {
		return fmt.Errorf("the daemon's answer: %w", err)
	}
	return nil
}

// cutOff tells whether a read failed because the other end has gone.
func cutOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrClosedPipe)
}

// Connect opens a channel to a device and returns its end. After that ctx has
// no meaning. The error matches what ConnectDevice's does.
func (c *Client) Connect(ctx context.Context, what Connect) (*Conn, error) {
	return c.channel(ctx, OpConnect, what)
}

func (c *Client) channel(ctx context.Context, op string, in any) (*Conn, error) {
	var ch Channel
	w, end, err := c.ask(ctx, op, in, &ch)
	if err != nil {
		return nil, err
	}
	if !end() {
		return nil, context.Cause(ctx)
	}
	conn := newConn(w, ch.URI, ch.Self, ch.Peer)
	conn.gone = &EndedError{}
	return conn, nil
}

// Listen claims the channels that peers open under URIs of a pattern, as
// ConnectionManager.Listen does; ctx bounds the call only. The listener's conns
// are *Conn, so peerlink.PeerOf tells the device at the other end.
func (c *Client) Listen(ctx context.Context, pattern string) (net.Listener, error) {
	return c.ListenTo(ctx, Listen{Pattern: pattern}, nil)
}

// ListenTo is Listen for some devices; the daemon declines others. Accept calls
// refused, unless that is nil, for each device that was declined, but for some if
// there are many at once.
func (c *Client) ListenTo(ctx context.Context, what Listen, refused func(identity.Peer)) (net.Listener, error) {
	w, end, err := c.ask(ctx, OpListen, what, nil)
	if err != nil {
		return nil, err
	}
	if !end() {
		return nil, context.Cause(ctx)
	}
	return &listener{c: c, w: w, pattern: what.Pattern, refused: refused}, nil
}

// listener is the net.Listener of a pattern that the daemon claims for us.
type listener struct {
	c       *Client
	w       *wire
	pattern string
	refused func(identity.Peer)
	closed  atomic.Bool

	accepting sync.Mutex
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	l.accepting.Lock()
	defer l.accepting.Unlock()
	for {
		var o Offer
		if err := readAnswer(l.w, &o); err != nil {
			if l.closed.Load() {
				err = net.ErrClosed
			}
			return nil, &net.OpError{Op: "accept", Net: "peerlink", Addr: l.Addr(), Err: err}
		}
		if o.Refused != nil {
			if l.refused != nil {
				l.refused(*o.Refused)
			}
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), takeTimeout)
		conn, err := l.c.channel(ctx, OpTake, o.Word)
		cancel()
		switch {
		case err == nil:
			return conn, nil
		case l.closed.Load():
			return nil, &net.OpError{Op: "accept", Net: "peerlink", Addr: l.Addr(), Err: net.ErrClosed}
		}
		// That channel has gone; the next one may be there.
	}
}

// Close implements net.Listener: the daemon gives the pattern up.
func (l *listener) Close() error {
	l.closed.Store(true)
	return l.w.conn.Close()
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return patternAddr(l.pattern) }

type patternAddr string

// Network returns "peerlink".
func (patternAddr) Network() string { return "peerlink" }

// String returns the pattern.
func (a patternAddr) String() string { return string(a) }

// Daemon tells whether a daemon answers, and which process it is (0 where the
// system does not tell).
func (c *Client) Daemon(ctx context.Context) (pid int, err error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_, pid, _ = peerOf(conn)
	return pid, nil
}
