package tlssock

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/identity"
	"peerlink/internal/proving"
)

// inbox is a net.Listener that hands out what a test puts in: connections
// and errors.
type inbox struct {
	putc   chan any
	closec chan struct{}
	once   sync.Once
}

func newInbox() *inbox { return &inbox{putc: make(chan any), closec: make(chan struct{})} }

func (b *inbox) Accept() (net.Conn, error) {
	select {
	case v := <-b.putc:
		if err, ok := v.(error); ok {
			return nil, err
		}
		return v.(net.Conn), nil
	case <-b.closec:
		return nil, net.ErrClosed
	}
}
func (b *inbox) Close() error   { b.once.Do(func() { close(b.closec) }); return nil }
func (b *inbox) Addr() net.Addr { return &net.TCPAddr{} }

// call puts in a connection from ip and returns its other end.
func (b *inbox) call(ip string) net.Conn {
	ours, theirs := net.Pipe()
	s := from(ip)
	s.Conn = ours
	b.putc <- s
	return theirs
}

func TestListenerServesEveryAddressAtOnce(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	ctx := context.Background()
	l, err := Listen(ctx, Config{Identity: bob}, "127.0.0.1:0", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Name() != "tcp" || len(l.Addrs()) != 2 {
		t.Fatalf("%q at %v", l.Name(), l.Addrs())
	}
	const each = 20
	var wg sync.WaitGroup
	defer wg.Wait()
	d := &Dialer{Config: Config{Identity: alice}}
	for _, a := range l.Addrs() {
		for range each {
			wg.Go(func() {
				conn, _, err := d.DialAddr(ctx, a.String(), bob.DeviceID())
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				if _, err := conn.Read(make([]byte, 1)); err != nil {
					t.Errorf("read: %v", err)
				}
			})
		}
	}
	for range 2 * each {
		conn, peer, err := l.Accept(ctx)
		if err != nil || peer.Device != alice.DeviceID() {
			t.Fatalf("%v, %v", peer, err)
		}
		wg.Go(func() { defer conn.Close(); conn.Write([]byte("x")) })
	}
	if s := l.in.Stats(); s != (proving.Stats{Proven: 2 * each}) {
		t.Errorf("counters %+v", s)
	}
}

func TestListenSaysWhatIsWrong(t *testing.T) {
	bob := newIdentity(t, "bob")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := taken.Addr().String()
	for name, tt := range map[string]struct {
		cfg   Config
		addrs []string
		want  string
	}{
		"no identity": {Config{}, []string{"127.0.0.1:0"}, "Config.Identity"},
		"no address":  {Config{Identity: bob}, nil, "no address"},
		// fault: H8
		"busy":     {Config{Identity: bob}, []string{"127.0.0.1:0", busy}, busy},
		"nonsense": {Config{Identity: bob}, []string{"x"}, `"x"`},
	} {
		l, err := Listen(context.Background(), tt.cfg, tt.addrs...)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want %q in it", name, l, err, tt.want)
		}
	}
}

// fault: C10
func TestListenerCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
		in := newInbox()
		l := newListener(Config{Identity: bob}, []net.Listener{in})
		stalled := in.call("192.0.2.1")
		unaccepted := in.call("192.0.2.1")
		conn, err := Client(t.Context(), unaccepted, alice, bob.DeviceID())
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for {
					c, _, err := l.Accept(ctx)
					if err == nil {
						c.Close()
						continue
					}
					if !errors.Is(err, net.ErrClosed) {
						t.Errorf("Accept: %v", err)
					}
					return
				}
			})
		}
		go io.Copy(io.Discard, conn)
		synctest.Wait()
		for range 2 {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
		if _, err := stalled.Write([]byte{1}); err == nil {
			t.Error("the stalled handshake is still open")
		}
		if _, _, err := l.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
		conn.Close()
	})
}

func TestAcceptEndsWithItsContext(t *testing.T) {
	l := listen(t, newIdentity(t, "bob"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := l.Accept(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// A listener without descriptors waits, a little longer each time, and goes on
// by itself when there are some.
//
// fault: J2
func TestListenerWithoutDescriptorsBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
		in := newInbox()
		l := newListener(Config{Identity: bob}, []net.Listener{in})
		defer l.Close()
		emfile := &net.OpError{Op: "accept", Err: syscall.EMFILE}
		start, want := time.Now(), time.Duration(0)
		for i := range 12 {
			in.putc <- emfile
			if d := time.Since(start); d != want {
				t.Fatalf("try %d after %s, want %s", i, d, want)
			}
			want += min(proving.FirstPause<<i, proving.LongestPause)
		}
		conn, err := Client(t.Context(), in.call("192.0.2.1"), alice, bob.DeviceID())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		c, _, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		go c.Close()
		io.Copy(io.Discard, conn)
		if n := l.in.Stats().AcceptErrors; n != 12 {
			t.Errorf("%d accept errors were counted", n)
		}
		in.putc <- emfile
		start = time.Now()
		in.putc <- emfile
		if d := time.Since(start); d != proving.FirstPause {
			t.Errorf("after a success the first wait is %s, want %s", d, proving.FirstPause)
		}
	})
}

// Ten thousand callers from one /24 that say nothing take 32 places of 128 at
// most; a caller from elsewhere is served at once, and the memory of them is
// gone afterwards.
//
// fault: J3, J6, D7
func TestFloodFromOnePrefixLeavesOthersServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
		in := newInbox()
		l := newListener(Config{Identity: bob}, []net.Listener{in})
		defer l.Close()
		before := runtime.NumGoroutine()
		start := time.Now()
		for i := range 10_000 {
			in.call(fmt.Sprintf("192.0.2.%d", i%256))
			if i%100 == 0 { // a second of flood takes a second
				time.Sleep(10 * time.Millisecond)
			}
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("the flood held up accepting for %s", d)
		}
		if n := runtime.NumGoroutine() - before; n > 3*maxPendingPerSource {
			t.Errorf("%d goroutines serve the flood", n)
		}
		start = time.Now()
		conn, err := Client(t.Context(), in.call("198.51.100.9"), alice, bob.DeviceID())
		if err != nil {
			t.Fatalf("an honest caller: %v", err)
		}
		go io.Copy(io.Discard, conn)
		c, peer, err := l.Accept(t.Context())
		if err != nil || peer.Device != alice.DeviceID() {
			t.Fatalf("%v, %v", peer, err)
		}
		if d := time.Since(start); d > 0 {
			t.Errorf("the honest caller waited %s", d)
		}
		c.Close()
		conn.Close()
		time.Sleep(defaultHandshakeTimeout)
		synctest.Wait()
		if n := l.in.Held(); n != 0 {
			t.Errorf("%d handshakes are still pending", n)
		}
		if s := l.in.Stats(); s.Proven != 1 || s.Shed+s.Failed < 10_000 {
			t.Errorf("counters %+v", s)
		}
	})
}

// Stalled callers from everywhere hold all places; after its grace the oldest
// gives way, so a caller is served after 5 s instead of never.
//
// fault: D7
func TestStalledCallersGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
		in := newInbox()
		l := newListener(Config{Identity: bob}, []net.Listener{in})
		defer l.Close()
		for i := range maxPending {
			in.call(fmt.Sprintf("10.1.%d.1", i))
		}
		start := time.Now()
		conn, err := Client(t.Context(), in.call("198.51.100.9"), alice, bob.DeviceID())
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != grace {
			t.Errorf("served after %s, want %s", d, grace)
		}
		go io.Copy(io.Discard, conn)
		l.Close()
		conn.Close()
	})
}

// More callers at once than there are places, all honest: each is served. On a
// machine so slow that a handshake outlives its grace a caller may lose its
// place; it then comes again, as whoever has not heard a byte has no link.
//
// fault: C8, J6
func TestRushOfHonestCallersIsServedInTurn(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	l := listen(t, bob)
	const callers = maxPending + 100
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	d := &Dialer{Config: Config{Identity: alice, HandshakeTimeout: time.Minute}}
	call := func() error {
		conn, _, err := d.DialAddr(ctx, l.Addrs()[0].String(), bob.DeviceID())
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
		return err
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, _, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("x"))
			_ = conn.Close()
		}
	})
	var calling sync.WaitGroup
	for range callers {
		calling.Go(func() {
			err := call()
			for err != nil && ctx.Err() == nil {
				err = call()
			}
			if err != nil {
				t.Errorf("never served: %v", err)
			}
		})
	}
	calling.Wait()
	l.Close()
	accepting.Wait()
	if s := l.in.Stats(); s.Proven < callers {
		t.Errorf("counters %+v", s)
	}
}

func TestProvenCallersThatNobodyAcceptsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
		in := newInbox()
		l := newListener(Config{Identity: bob}, []net.Listener{in})
		defer l.Close()
		conn, err := Client(t.Context(), in.call("127.0.0.1"), alice, bob.DeviceID())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		start := time.Now()
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%v, want a clean end", err)
		}
		if d := time.Since(start); d != proving.AcceptTimeout {
			t.Errorf("ended after %s, want %s", d, proving.AcceptTimeout)
		}
		if s := l.in.Stats(); s != (proving.Stats{Proven: 1, Shed: 1}) {
			t.Errorf("counters %+v", s)
		}
	})
}

// Proven callers that nobody accepts give way too.
func TestUnacceptedCallersGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
		in := newInbox()
		l := newListener(Config{Identity: bob}, []net.Listener{in})
		var wg sync.WaitGroup
		for range maxPending {
			conn, err := Client(t.Context(), in.call("127.0.0.1"), alice, bob.DeviceID())
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { conn.Read(make([]byte, 1)); conn.Close() })
		}
		start := time.Now()
		conn, err := Client(t.Context(), in.call("192.0.2.1"), alice, bob.DeviceID())
		if d := time.Since(start); err != nil || d > grace {
			t.Errorf("served after %s, %v", d, err)
		}
		wg.Go(func() { conn.Read(make([]byte, 1)); conn.Close() })
		l.Close()
		wg.Wait()
	})
}

// Banned while others are let in, and let in again, without a restart.
//
// fault: D5, D8
func TestBanHoldsFromTheNextHandshakeOn(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	var trust identity.Trust
	ctx := context.Background()
	l, err := Listen(ctx, Config{Identity: bob, Trust: &trust}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	call := func() error {
		conn, err := tls.Dial("tcp", l.Addrs()[0].String(), Config{Identity: alice}.ClientTLS(bob.DeviceID()))
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
		return err
	}
	serve := func() {
		if conn, _, err := l.Accept(ctx); err == nil {
			conn.Write([]byte("x"))
			conn.Close()
		}
	}
	go serve()
	if err := call(); err != nil {
		t.Fatalf("before the ban: %v", err)
	}
	trust.Set(alice.AccountID(), identity.Banned)
	if err := call(); err == nil || !strings.Contains(err.Error(), "remote error") {
		t.Fatalf("banned: %v", err)
	}
	trust.Set(alice.AccountID(), identity.Undecided)
	donec := make(chan struct{})
	go func() { defer close(donec); serve() }()
	if err := call(); err != nil {
		t.Fatalf("after the ban: %v", err)
	}
	<-donec
}

// fault: J5
func TestStrangersCannotFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines countingHandler
		in := newInbox()
		l := newListener(Config{Identity: newIdentity(t, "bob"), Logger: slog.New(&lines)}, []net.Listener{in})
		defer l.Close()
		start := time.Now()
		for range 1000 {
			conn := in.call("127.0.0.1")
			conn.Close()
		}
		l.Close()
		most := proving.LogsPerSecond * (1 + int(time.Since(start)/time.Second+1))
		if n := lines.n; n == 0 || n > most {
			t.Errorf("%d lines for 1000 broken handshakes, want 1 to %d", n, most)
		}
		if s := l.in.Stats(); s.Failed != 1000 {
			t.Errorf("counters %+v", s)
		}
	})
}

type countingHandler struct {
	mu sync.Mutex
	n  int
}

func (h *countingHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h *countingHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *countingHandler) WithGroup(string) slog.Handler            { return h }
func (h *countingHandler) Handle(context.Context, slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n++
	return nil
}
