package forward

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"peerlink/channel"
	"peerlink/internal/pause"
)

const (
	// MaxConns is how many connections a Relay joins at once.
	MaxConns = 128
	// maxPause is the longest wait after a listener failed for the moment, or for a
	// place at the other device.
	maxPause = time.Second
)

// NewToken returns a token for Ask.
func NewToken() string {
	b := make([]byte, tokenLen)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}

// Listen takes connections at an address. A Unix socket is for this user only;
// a file that stands in its place is left alone. The error names the address,
// and says what to do about a port that is busy or privileged.
func Listen(ctx context.Context, a Address) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, a.Network, a.listen())
	switch {
	case err == nil && a.Network == "unix":
		if err = os.Chmod(a.Addr, 0o600); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	case err == nil:
	case errors.Is(err, syscall.EADDRINUSE) && a.Network == "unix":
		err = hintError{err, "remove the file, if nobody uses it"}
	case errors.Is(err, syscall.EADDRINUSE):
		err = hintError{err, "another program uses this port: choose another one, or 0 for any"}
	case errors.Is(err, os.ErrPermission) && a.Network == "tcp":
		err = hintError{err, "ports below 1024 are the system's: choose a higher one"}
	}
	return l, err
}

// hintError is an error and what to do about it.
type hintError struct {
	error
	hint string
}

// Error returns both.
func (e hintError) Error() string { return e.error.Error() + " (" + e.hint + ")" }

// Unwrap returns the error.
func (e hintError) Unwrap() error { return e.error }

// RelayConfig is what Relay needs. Open is required.
type RelayConfig struct {
	// Open makes the other end for a connection that was taken. It is called
	// concurrently, and ends with its ctx. It is called again, after a pause of 1 s
	// at most, as long as the other device has no place: Dial's error then has a
	// *channel.ResetError with the device's channel.CodeResource.
	Open func(ctx context.Context) (net.Conn, error)
	// Take says whether a connection is wanted; done is called when it has
	// ended, unless it is nil. It may wait, no longer than ctx lasts. A nil Take:
	// all are wanted.
	Take func(ctx context.Context, c net.Conn) (done func(), ok bool)
	// Note is told of each connection for which Open failed, before that is cut,
	// and of the listener's own troubles; it is called concurrently. nil: nobody
	// is.
	Note func(err error)
	// Max is how many connections are joined at once; the next ones wait to be
	// taken. 0: MaxConns.
	Max int
}

// Relay joins each connection of a listener, which it closes, to one that it
// opens, until ctx ends, whose cause it then returns, or the listener does. It
// returns when the last connection has ended; with ctx they are cut.
func Relay(ctx context.Context, l net.Listener, cfg RelayConfig) error {
	if cfg.Max <= 0 {
		cfg.Max = MaxConns
	}
	if cfg.Note == nil {
		cfg.Note = func(error) {}
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, cfg.Max)
	for {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		c, err := accept(ctx, l, cfg.Note)
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer func() { <-room }()
			cfg.one(ctx, c)
		})
	}
}

// one joins a connection that was taken.
func (cfg RelayConfig) one(ctx context.Context, c net.Conn) {
	if cfg.Take != nil {
		done, ok := cfg.Take(ctx, c)
		if !ok {
			cut(c)
			return
		}
		if done != nil {
			defer done()
		}
	}
	far, err := cfg.open(ctx, c)
	if err != nil {
		if ctx.Err() == nil && err != errReset {
			cfg.Note(err) // before the cut: who sees that can find the reason
		}
		cut(c)
		return
	}
	_ = join(ctx, c, far) // how it ended is told to both ends
}

// errReset is why nothing is opened for a connection: it was reset meanwhile, as by
// a port scan.
var errReset = errors.New("the connection was reset")

// open makes the other end for a connection as soon as there is a place for it.
func (cfg RelayConfig) open(ctx context.Context, c net.Conn) (net.Conn, error) {
	pauses := pause.Backoff(10*time.Millisecond, maxPause)
	pauses.RandomizationFactor = 0.5 // more than one may wait
	for {
		if tcp, ok := c.(*net.TCPConn); ok && dead(tcp) {
			return nil, errReset
		}
		far, err := cfg.Open(ctx)
		var full *channel.ResetError
		if !errors.As(err, &full) || !full.Remote || full.Code != codeBusy || pause.For(ctx, pauses.NextBackOff()) != nil {
			return far, err
		}
	}
}

// accept waits for a connection. Of a shortage, such as of descriptors, it
// waits for the end.
func accept(ctx context.Context, l net.Listener, note func(error)) (net.Conn, error) {
	for pauses := pause.Backoff(5*time.Millisecond, maxPause); ; {
		c, err := l.Accept()
		switch {
		case err == nil:
			return c, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case !short(err):
			return nil, err
		}
		wait := pauses.NextBackOff()
		if wait < maxPause {
			note(err)
		}
		if pause.For(ctx, wait) != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// short tells whether the system lacks something for the moment.
func short(err error) bool {
	all := []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED}
	return slices.ContainsFunc(all, func(e error) bool { return errors.Is(err, e) })
}

// cut ends a connection so that the other end does not take it for an end.
func cut(c net.Conn) { cutWith(c, channel.CodeUser) }

// codeBusy says that there is no place for a channel now.
const codeBusy = channel.CodeResource

// cutWith is cut that says why, where there are words for it.
func cutWith(c net.Conn, why channel.Code) {
	switch c := c.(type) {
	case interface{ Reset(code channel.Code) error }:
		_ = c.Reset(why)
	case *net.TCPConn:
		_ = c.SetLinger(0)
	}
	_ = c.Close()
}
