package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// relay runs a Relay until the test ends, or the function is called.
func relay(t *testing.T, l net.Listener, cfg RelayConfig) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Relay(ctx, l, cfg) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Relay: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func dialTo(addr string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
}

// fault: H8
func TestManyConnectionsAreJoinedAFewAtATime(t *testing.T) {
	const many, atOnce = 400, 16
	var now, most atomic.Int32
	far := target(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		echo(c)
		now.Add(-1)
	})
	l, err := Listen(t.Context(), mustAddr(t, "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	relay(t, l, RelayConfig{Open: dialTo(far.Addr().String()), Max: atOnce})
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(within))
			_, _ = io.WriteString(c, "hello")
			_ = c.(*net.TCPConn).CloseWrite()
			if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	wg.Wait()
	// The far end may still count one whose end it has not seen.
	if m := most.Load(); m < 1 || m > 2*atOnce {
		t.Errorf("%d connections at once, %d were allowed", m, atOnce)
	}
}

func TestAConnectionThatCannotBeOpenedIsCutAndNoted(t *testing.T) {
	l, err := Listen(t.Context(), mustAddr(t, "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	noted := make(chan error, 1)
	why := errors.New("nobody there")
	dialled := make(chan struct{}) // or the dial itself could fail
	open := func(context.Context) (net.Conn, error) { <-dialled; return nil, why }
	relay(t, l, RelayConfig{Open: open, Note: func(err error) { noted <- err }})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	close(dialled)
	_ = c.SetDeadline(time.Now().Add(within))
	if _, err := c.Read(make([]byte, 1)); !isCut(err) {
		t.Errorf("it reads as %v", err)
	}
	select {
	case err := <-noted:
		if err != why {
			t.Errorf("noted %v", err)
		}
	default:
		t.Error("it was cut before the reason was noted")
	}
}

func TestConnectionsOfOthersAreNotTaken(t *testing.T) {
	far := newLine()
	relay(t, far, RelayConfig{
		Open: func(context.Context) (net.Conn, error) { t.Error("it was taken"); return nil, io.EOF },
		Take: func(context.Context, net.Conn) (func(), bool) { return nil, false },
	})
	a, b := tcpPair(t)
	_ = a.SetDeadline(time.Now().Add(within))
	far.conns <- b
	if _, err := a.Read(make([]byte, 1)); !isCut(err) {
		t.Errorf("it reads as %v", err)
	}
}

// scarce is a listener that has no descriptors for a while.
type scarce struct {
	net.Listener
	left atomic.Int32
}

func (s *scarce) Accept() (net.Conn, error) {
	if s.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return s.Listener.Accept()
}

// fault: J2
func TestAListenerOutlastsAShortage(t *testing.T) {
	far := target(t, "tcp", "127.0.0.1:0", echo)
	l, err := Listen(t.Context(), mustAddr(t, "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	s := &scarce{Listener: l}
	s.left.Store(4)
	var notes atomic.Int32
	relay(t, s, RelayConfig{Open: dialTo(far.Addr().String()), Note: func(error) { notes.Add(1) }})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(within))
	_, _ = io.WriteString(c, "hello")
	_ = c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" || notes.Load() != 4 {
		t.Errorf("%q, %v, %d notes", b, err, notes.Load())
	}
}

// fault: H8
func TestAPlaceThatIsTakenIsLeftAlone(t *testing.T) {
	l, err := Listen(t.Context(), mustAddr(t, "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Listen(t.Context(), mustAddr(t, l.Addr().String()))
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "another program uses this port") {
		t.Errorf("a busy port: %v", err)
	}
	dir, err := os.MkdirTemp("", "fw")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Listen(t.Context(), mustAddr(t, path))
	if b, _ := os.ReadFile(path); err == nil || !strings.Contains(err.Error(), path) || string(b) != "precious" {
		t.Errorf("a file in the place of a socket: %v, and it has %q", err, b)
	}
	mine, err := Listen(t.Context(), mustAddr(t, path+"2"))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path + "2"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode: %v, %v", st.Mode(), err)
	}
	_ = mine.Close()
	if _, err := os.Lstat(path + "2"); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
}
