package website

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// switching is a web server that changes to whatever protocol is asked for, or to
// one of its own, and tells each request that it was sent.
func switching(t *testing.T, to string) (url string, heard func() []string) {
	var mu sync.Mutex
	var all []string
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		all = append(all, fmt.Sprintf("%s %s upgrade=%q connection=%q settings=%q device=%q", r.Method, r.RequestURI, r.Header.Get("Upgrade"), r.Header.Get("Connection"), r.Header.Get("Http2-Settings"), r.Header.Get(DeviceHeader)))
		mu.Unlock()
		up := r.Header.Get("Upgrade")
		if to != "" {
			up = to
		}
		if up == "" {
			_, _ = io.WriteString(w, "plain")
			return
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", up)
		_, _ = io.Copy(c, c)
	}))
	t.Cleanup(back.Close)
	return back.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

// say sends bytes on a connection of alice's, and reads one response and what
// follows a change of protocol.
func say(t *testing.T, conn net.Conn, request string) (*http.Response, *bufio.Reader) {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	go func() { _, _ = io.WriteString(conn, request) }()
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp, r
}

const smuggled = "GET /admin HTTP/1.1\r\nHost: x\r\nPeerlink-Device: 1111\r\n\r\n"

// case: S3
func TestOnlyWebSocketsChangeTheProtocol(t *testing.T) {
	const key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for name, c := range map[string]struct {
		request, to string
		code        int
	}{
		"h2c":              {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", "", 200},
		"an unknown one":   {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n", "", 200},
		"two":              {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n" + key + "\r\n", "h2c", 502},
		"a list":           {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n" + key + "\r\n", "", 200},
		"a POST":           {"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + key + "Content-Length: 0\r\n\r\n", "", 200},
		"with a body":      {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + key + "Content-Length: 2\r\n\r\nhi", "", 200},
		"without a key":    {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "", 200},
		"not asked at all": {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "foo", 502},
		"another answer":   {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + key + "\r\n", "h2c", 502},
		"a tunnel":         {"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", "", 501},
		"a WebSocket":      {"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n" + key + "\r\n", "", 101},
	} {
		t.Run(name, func(t *testing.T) {
			back, heard := switching(t, c.to)
			n := open(t, Config{Upstream: back})
			straight, err := n.dial(t.Context(), alice)
			if err != nil {
				t.Fatal(err)
			}
			resp, rest := say(t, straight, c.request)
			if resp.StatusCode != c.code {
				t.Errorf("serve: %s, want %d", resp.Status, c.code)
			}
			for _, h := range heard() {
				if c.code == 200 && !strings.Contains(h, `upgrade="" connection="" settings="" device="`+alice.String()) {
					t.Errorf("the web server heard %s", h)
				}
			}
			if c.code == 101 {
				go func() { _, _ = io.WriteString(straight, "echo") }()
				b := make([]byte, 4)
				if _, err := io.ReadFull(rest, b); err != nil || string(b) != "echo" {
					t.Errorf("%q, %v", b, err)
				}
			}
			// The same by browse, whose other end is a server that changes to anything.
			g, err := NewGateway(GatewayConfig{Device: bob, Dial: func(ctx context.Context) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "tcp", strings.TrimPrefix(back, "http://"))
			}})
			if err != nil {
				t.Fatal(err)
			}
			l := newNetwork()
			served := make(chan error, 1)
			go func() { served <- g.Serve(l) }()
			defer func() { _ = g.Close(); <-served }()
			conn, err := l.dial(t.Context(), alice)
			if err != nil {
				t.Fatal(err)
			}
			if resp, _ := say(t, conn, strings.Replace(c.request, "Host: x\r\n", "Host: localhost\r\n", 1)); resp.StatusCode != c.code {
				t.Errorf("browse: %s, want %d", resp.Status, c.code)
			}
		})
	}
}

// case: S3
func TestWhatFollowsARefusedChangeIsARequestAsOthers(t *testing.T) {
	back, heard := switching(t, "")
	n := open(t, Config{Upstream: back})
	conn, err := n.dial(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	resp, r := say(t, conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"+smuggled)
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	if all := heard(); len(all) != 2 || !strings.Contains(all[1], "device=\""+alice.String()) {
		t.Errorf("heard %q", all)
	}
}

// case: S9
func TestNoPathLeavesTheServedOne(t *testing.T) {
	back, heard := switching(t, "")
	n := open(t, Config{Upstream: back + "/public"})
	ask := func(path string) int {
		t.Helper()
		conn, err := n.dial(t.Context(), alice)
		if err != nil {
			t.Fatal(err)
		}
		resp, _ := say(t, conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		return resp.StatusCode
	}
	for _, path := range []string{
		"/../secret", "/a/../../secret", "/..", "/a/..", "/%2e%2e/secret", "/.%2e/secret", "/%2e./secret", "/..%2fsecret", "/%2E%2E%2Fsecret", "/..%5csecret", "/..\\secret",
		"/..;/secret", "/..;a=b/secret", "/%2e%2e;/secret", "/%252e%252e/secret", "/%25252e%25252e/secret", "/..%252fsecret", "/..%00/secret", "/%c0%ae%c0%ae/secret", "/..%c0%afsecret", "/..%c1%9csecret", "/.. /secret",
		"//../secret", "http://x/../secret", "/%252e%252e/%25zz",
	} {
		if code := ask(path); code != http.StatusBadRequest {
			t.Errorf("%s: %d", path, code)
		}
	}
	if all := heard(); len(all) != 0 {
		t.Errorf("the web server heard %q", all)
	}
	for _, path := range []string{"/", "/a..b", "/..a", "/...", "/a;b/c", "/%E4%20x", "/100%25", "/%2525", "/?q=../x", "/.well-known/x", "//a"} {
		if code := ask(path); code != 200 {
			t.Errorf("%s: %d", path, code)
		}
	}
	for _, h := range heard() {
		if !strings.HasPrefix(h, "GET /public") {
			t.Errorf("the web server heard %q", h)
		}
	}
}
