package switchboard

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/internal/proving"
)

// memory is a listener without a network: its connections are pipes, which a
// bubble can wait for.
type memory struct {
	incoming chan any // net.Conn or error
	donec    chan struct{}
	close    func()
}

func newMemory() *memory {
	m := &memory{incoming: make(chan any), donec: make(chan struct{})}
	m.close = sync.OnceFunc(func() { close(m.donec) })
	return m
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case v := <-m.incoming:
		if err, ok := v.(error); ok {
			return nil, err
		}
		return v.(net.Conn), nil
	case <-m.donec:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error   { m.close(); return nil }
func (m *memory) Addr() net.Addr { return &net.TCPAddr{} }

type from struct {
	net.Conn
	addr *net.TCPAddr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// dial connects from an address.
func (m *memory) dial(ip string) net.Conn {
	here, there := net.Pipe()
	m.incoming <- from{there, &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}}
	return here
}

// site is a site in a bubble, with few places.
func site(t *testing.T, all, each int, h http.Handler) (*memory, *conns) {
	t.Helper()
	m, open := newMemory(), newConns(all, each)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serveSite(ctx, m, h, slog.New(slog.DiscardHandler), open) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := open.size(); n != 0 {
			t.Errorf("left: %d connections", n)
		}
	})
	return m, open
}

func get(t *testing.T, c net.Conn) error {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	return r.Body.Close()
}

// size is how many connections have a place, which are those that are known.
func (c *conns) size() (n int) {
	c.places.Range(func(_, p any) bool {
		select {
		case <-p.(*proving.Place).Lost():
		default:
			n++
		}
		return true
	})
	return max(n, c.gate.Held())
}

var ok = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })

// case: S10
func TestIdleConnectionsLeaveRoomAndEnd(t *testing.T) {
	for name, addrs := range map[string]int{"of one address": 1, "of many": 1000} {
		synctest.Test(t, func(t *testing.T) {
			m, open := site(t, 256, 128, ok)
			var flood []net.Conn
			for i := range 1500 {
				flood = append(flood, m.dial(fmt.Sprintf("192.0.%d.%d", i%addrs/250, 1+i%addrs%250)))
			}
			synctest.Wait()
			if n := open.size(); n > 256 || addrs == 1 && n > 128 {
				t.Errorf("%s: %d are open", name, n)
			}
			for range 3 {
				if err := get(t, m.dial("198.51.100.1")); err != nil {
					t.Errorf("%s: another address: %v", name, err)
				}
				synctest.Wait() // it is idle now: the next one takes its place
			}
			if err := get(t, m.dial("192.0.0.1")); err != nil {
				t.Errorf("%s: a newcomer of the flood's address: %v", name, err)
			}
			time.Sleep(idleTimeout + requestTimeout)
			synctest.Wait()
			if n := open.size(); n != 0 {
				t.Errorf("%s: %d are open after their time", name, n)
			}
			for _, c := range flood {
				_ = c.Close()
			}
		})
	}
}

// Each of these was kept for ever, or would be, without a time.
// case: S10
func TestAConnectionThatStopsHalfWayEnds(t *testing.T) {
	for name, said := range map[string]string{
		"nothing":          "",
		"half a request":   "GET / HT",
		"half a header":    "GET / HTTP/1.1\r\nHost: x",
		"no body":          "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
		"no end of chunks": "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"a line, no join":  "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: " + Protocol + "\r\n\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(ServerConfig{})
			m, open := site(t, 4, 2, s)
			c := m.dial("192.0.2.1")
			defer c.Close()
			go func() { _, _ = bufio.NewReader(c).WriteTo(discardWriter{}) }() // what the server says
			if _, err := c.Write([]byte(said)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			time.Sleep(answerTimeout)
			synctest.Wait()
			if n := open.size(); n != 0 {
				t.Errorf("%s: the connection is there still", name)
			}
			if n, _ := s.joining.Used(); n != 0 {
				t.Errorf("%s: it has a place", name)
			}
		})
	}
}

type discardWriter struct{}

func (discardWriter) Write(b []byte) (int, error) { return len(b), nil }

// An answer that nobody reads ends too.
func TestAnAnswerThatIsNotReadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, open := site(t, 4, 2, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		}))
		c := m.dial("192.0.2.1")
		defer c.Close()
		if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(answerTimeout + time.Second)
		synctest.Wait()
		if open.size() != 0 {
			t.Error("it is there still")
		}
	})
}

// A line has no place among the connections that ask, so that none of them takes it.
func TestLinesAreNotDisplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		m, open := site(t, 3, 2, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = c.Write([]byte("a line"))
			<-end
			_ = c.Close()
		}))
		line := m.dial("192.0.2.1")
		if _, err := line.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 6)
		if _, err := line.Read(b); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			defer m.dial("192.0.2.1").Close()
		}
		time.Sleep(requestTimeout)
		synctest.Wait()
		if n := open.size(); n != 0 {
			t.Errorf("%d are open", n)
		}
		_ = line.SetReadDeadline(time.Now().Add(time.Hour))
		close(end)
		if _, err := line.Read(b); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("the line: %v", err)
		}
	})
}

// A system without descriptors says no for a while. case: S10
func TestASiteOutlivesALackOfDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := site(t, 4, 2, ok)
		for range 50 {
			m.incoming <- &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
		}
		if err := get(t, m.dial("192.0.2.1")); err != nil {
			t.Error(err)
		}
		time.Sleep(idleTimeout)
	})
}

// A connection that is shed in the middle of TLS is closed below it: the goodbye of
// TLS would wait for the peer.
func TestATLSConnectionIsShedAtOnce(t *testing.T) {
	made := httptest.NewUnstartedServer(nil)
	made.StartTLS()
	conf := made.TLS
	made.Close()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		open := newConns(2, 1)
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() {
			served <- serveSite(ctx, tls.NewListener(m, conf), ok, slog.New(slog.DiscardHandler), open)
		}()
		began := time.Now()
		for range 10 {
			defer m.dial("192.0.2.1").Close()
		}
		synctest.Wait()
		if n := open.size(); n != 1 || time.Since(began) != 0 {
			t.Errorf("%d are open, after %v", n, time.Since(began))
		}
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}
