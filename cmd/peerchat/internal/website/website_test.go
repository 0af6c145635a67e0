package website

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"peerlink/identity"
)

var (
	alice   = identity.DeviceID{0: 0xa1, 31: 1}
	mallory = identity.DeviceID{0: 0x3a, 31: 2}
	bob     = identity.DeviceID{0: 0xb0, 31: 3}
)

// network is a listener whose connections are pipes from devices.
type network struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newNetwork() *network { return &network{conns: make(chan net.Conn), done: make(chan struct{})} }

// peer is an end of a pipe with a device at the other one.
type peer struct {
	net.Conn
	device identity.DeviceID
}

func (n *network) dial(ctx context.Context, from identity.DeviceID) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case n.conns <- &peer{there, from}:
		return here, nil
	case <-n.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.done:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error {
	n.once.Do(func() { close(n.done) })
	return nil
}

func (n *network) Addr() net.Addr { return &net.UnixAddr{Net: "memory", Name: "memory"} }

// open serves a site to alice.
func open(t *testing.T, cfg Config) *network {
	t.Helper()
	cfg.Allow = func(d identity.DeviceID) bool { return d == alice }
	cfg.PeerOf = func(c net.Conn) (identity.DeviceID, bool) { return c.(*peer).device, true }
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := newNetwork()
	served := make(chan error, 1)
	go func() { served <- s.Serve(n) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
	return n
}

// as is a client of a device.
func as(t *testing.T, n *network, who identity.DeviceID) *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return n.dial(ctx, who) }}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// ask sends a request with headers, name and value in turn.
func ask(t *testing.T, c *http.Client, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header[header[i]] = append(req.Header[header[i]], header[i+1]) // in this spelling
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func get(t *testing.T, c *http.Client, path string, header ...string) (*http.Response, string) {
	t.Helper()
	return ask(t, c, http.MethodGet, "http://"+bob.String()+path, "", header...)
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestOnlyThoseWhoMaySeeTheSite(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.txt"), "hello", 0o644)
	n := open(t, Config{Folder: dir})
	resp, body := get(t, as(t, n, alice), "/a.txt")
	if resp.StatusCode != http.StatusOK || body != "hello" {
		t.Errorf("alice: %d %q", resp.StatusCode, body)
	}
	resp, body = get(t, as(t, n, mallory), "/a.txt", DeviceHeader, alice.String())
	if resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "not open to your device, "+mallory.String()) {
		t.Errorf("mallory: %d %q", resp.StatusCode, body)
	}
}

// fault: H1
func TestNothingOutsideTheFolderIsServed(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	write(t, filepath.Join(dir, "secret"), "secret", 0o644)
	write(t, filepath.Join(in, ".hidden"), "secret", 0o644)
	write(t, filepath.Join(in, ".git", "config"), "secret", 0o644)
	write(t, filepath.Join(in, "sub", "x"), "fine", 0o644)
	if runtime.GOOS != "windows" {
		for link, to := range map[string]string{"out": "../secret", "up": "..", "abs": filepath.Join(dir, "secret"), "ok": "sub/x"} {
			if err := os.Symlink(to, filepath.Join(in, link)); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := as(t, open(t, Config{Folder: in}), alice)
	for _, path := range []string{
		"/../secret", "/%2e%2e/secret", "/sub/..%2f..%2fsecret", "/..%5csecret", "/out", "/up/secret", "/abs", "//secret",
		"/.hidden", "/.git/config", "/.git/", "/sub/../.hidden", "/%00", "/sub/%00", "/" + strings.Repeat("x", 300),
		"/" + url.PathEscape(filepath.Join(dir, "secret")), "/CON:", "/sub/x:stream",
	} {
		resp, body := get(t, c, path)
		if resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusBadRequest || strings.HasSuffix(body, "secret") {
			t.Errorf("%s: %d %.200q", path, resp.StatusCode, body)
		}
	}
	if runtime.GOOS != "windows" {
		if resp, body := get(t, c, "/ok"); resp.StatusCode != http.StatusOK || body != "fine" {
			t.Errorf("a link that stays inside: %d %q", resp.StatusCode, body)
		}
	}
	resp, body := get(t, c, "/")
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, "./sub/") || strings.Contains(body, "hidden") || strings.Contains(body, ".git") || strings.Contains(body, "abs") || strings.Contains(body, ">up") {
		t.Errorf("list: %d %s", resp.StatusCode, body)
	}
	c = as(t, open(t, Config{Folder: in, Hidden: true}), alice)
	if resp, body := get(t, c, "/.hidden"); resp.StatusCode != http.StatusOK || body != "secret" {
		t.Errorf("asked for: %d %q", resp.StatusCode, body)
	}
	if resp, _ := ask(t, c, http.MethodPut, "http://x/sub/x", "overwritten"); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %d", resp.StatusCode)
	}
}

// fault: H1
func TestListsAreEscaped(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such names there")
	}
	dir := t.TempDir()
	for _, name := range []string{"<script>alert(1)</script>"[:8] + ".txt", "\"onmouseover=x", "javascript:alert(1)", "\x1b[2J\u202egpj.exe", "a b?c#d%2e", "//evil.example", "\xff\xfe"} {
		write(t, filepath.Join(dir, strings.ReplaceAll(name, "/", "_")), "text of it", 0o644)
	}
	c := as(t, open(t, Config{Folder: dir}), alice)
	_, body := get(t, c, "/")
	for _, bad := range []string{"<script", `"onmouse`, `href="javascript`, "\x1b", "\u202e"} {
		if strings.Contains(body, bad) {
			t.Errorf("%q is in the list:\n%s", bad, body)
		}
	}
	links := 0
	for _, part := range strings.Split(body, `href="`)[1:] { // each leads to its file
		link, _, _ := strings.Cut(part, `"`)
		links++
		if resp, body := get(t, c, "/"+strings.TrimPrefix(link, "./")); resp.StatusCode != http.StatusOK || body != "text of it" {
			t.Errorf("%s: %d %q", link, resp.StatusCode, body)
		}
	}
	if links != 7 {
		t.Errorf("%d links:\n%s", links, body)
	}
	if _, body := get(t, c, "/%3Cscript%3E%E2%80%AE"); strings.Contains(body, "<script") || strings.Contains(body, "\u202e") {
		t.Errorf("the path is not escaped: %s", body)
	}
}

func TestFilesHaveRangesDatesAndAnIndex(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "sub", "index.html"), "<p>home", 0o644)
	write(t, filepath.Join(dir, "digits.txt"), "0123456789", 0o644)
	c := as(t, open(t, Config{Folder: dir}), alice)
	if resp, body := get(t, c, "/digits.txt", "Range", "bytes=2-4"); resp.StatusCode != http.StatusPartialContent || body != "234" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	resp, _ := get(t, c, "/digits.txt")
	if resp, body := get(t, c, "/digits.txt", "If-Modified-Since", resp.Header.Get("Last-Modified")); resp.StatusCode != http.StatusNotModified || body != "" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	if resp, _ := get(t, c, "/sub?x=1"); resp.StatusCode != http.StatusMovedPermanently || resp.Header.Get("Location") != "/sub/?x=1" {
		t.Errorf("%d to %q", resp.StatusCode, resp.Header.Get("Location"))
	}
	if resp, body := get(t, c, "/sub/"); resp.StatusCode != http.StatusOK || body != "<p>home" || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
	}
	if resp, _ := get(t, c, "/digits.txt/"); resp.StatusCode != http.StatusMovedPermanently || resp.Header.Get("Location") != "/digits.txt" {
		t.Errorf("%d to %q", resp.StatusCode, resp.Header.Get("Location"))
	}
}

// fault: D1: who asks is told by the connection, never by a message.
func TestAWebServerLearnsTheProvenDevice(t *testing.T) {
	var got http.Header
	var host string
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got, host = r.Header.Clone(), r.Host
		maps.Copy(got, r.Trailer)
		w.Header().Set("Location", "http://"+r.Host+"//next?x")
		w.WriteHeader(http.StatusFound)
	}))
	defer back.Close()
	c := as(t, open(t, Config{Upstream: back.URL}), alice)
	forged := mallory.String()
	resp, _ := get(t, c, "/a//b/../c", "Peerlink-Device", forged, "peerlink_device", forged, "Peerlink.device", forged, "X-Forwarded-For", forged, "X_Real_IP", forged,
		"Remote-User", forged, "Forwarded", "for="+forged, "Connection", "Peerlink-Device", "Origin", "http://"+bob.String(), "Cookie", "a=b")
	for k, v := range got {
		if strings.Contains(strings.Join(v, " "), forged) {
			t.Errorf("%s: %s came through", k, v)
		}
	}
	if got.Get(DeviceHeader) != alice.String() || got.Get("Origin") != back.URL || "http://"+host != back.URL || got.Get("Cookie") != "a=b" {
		t.Errorf("to %s: %v", host, got)
	}
	if to := resp.Header.Get("Location"); to != "/next?x" {
		t.Errorf("Location %q", to)
	}
	req, _ := http.NewRequest(http.MethodPost, "http://x/", io.MultiReader(strings.NewReader("body")))
	req.Trailer = http.Header{"Peerlink-Device": {forged}, "X-Other": {"1"}}
	if resp, err := c.Do(req); err != nil {
		t.Fatal(err)
	} else {
		resp.Body.Close()
	}
	if got.Get(DeviceHeader) != alice.String() || got.Get("X-Other") != "" {
		t.Errorf("with a trailer: %v", got)
	}
}

func TestAWebServerOnAUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "website") // its path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Skip("no Unix sockets:", err)
	}
	back := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, "from a socket ", r.URL.Path) })}}
	back.Start()
	c := as(t, open(t, Config{Upstream: "unix:" + filepath.Join(dir, "s")}), alice)
	if _, body := get(t, c, "/x"); body != "from a socket /x" {
		t.Error(body)
	}
	c.CloseIdleConnections()
	back.Close()
	resp, body := get(t, c, "/x")
	if resp.StatusCode != http.StatusBadGateway || !strings.Contains(body, "does not run") || strings.Contains(body, dir) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestStrangersTakeNobodysPlace(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "x", 0o644)
	n := open(t, Config{Folder: dir})
	var conns []net.Conn
	for i := range strangersInAll {
		for range strangersOfDevice {
			c, err := n.dial(t.Context(), identity.DeviceID{0: 0x5a, 1: byte(i)})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			conns = append(conns, c)
		}
	}
	if resp, _ := get(t, as(t, n, alice), "/a"); resp.StatusCode != http.StatusOK { // who comes after them all
		t.Errorf("%d", resp.StatusCode)
	}
	kept := 0
	for _, c := range conns {
		_ = c.SetReadDeadline(time.Unix(1, 0)) // an end comes before it
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			kept++
		}
	}
	if kept != strangersInAll {
		t.Errorf("%d strangers were let in, want %d", kept, strangersInAll)
	}
}

// fault: H8: only loopback unless told.
func TestWhatCannotBeServedIsSaid(t *testing.T) {
	for want, cfg := range map[string]Config{
		"nothing to serve":    {},
		"not both":            {Folder: ".", Upstream: "unix:/x"},
		"not on this machine": {Upstream: "http://192.0.2.1:80"},
		"want http":           {Upstream: "https://localhost/"},
		"unix:/path":          {Upstream: "unix:"},
		"no such file":        {Folder: filepath.Join(t.TempDir(), "none")},
		"CGI programs":        {CGI: filepath.Join(t.TempDir(), "none")},
		"are required":        {Folder: "."},
	} {
		if want != "are required" {
			cfg.PeerOf = func(net.Conn) (identity.DeviceID, bool) { return alice, true }
			cfg.Allow = func(identity.DeviceID) bool { return true }
		}
		if s, err := New(cfg); err == nil {
			_ = s.Close()
			t.Errorf("%+v is served", cfg)
		} else if !strings.Contains(err.Error(), want) && runtime.GOOS != "windows" {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := onlyLoopback("tcp", "192.0.2.1:80", nil); err == nil {
		t.Error("a name may lead elsewhere")
	}
}

func TestADeviceHasSoManyConnections(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "x", 0o644)
	n := open(t, Config{Folder: dir})
	var held []net.Conn
	for range maxOfDevice {
		c, err := n.dial(t.Context(), alice)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	c, err := n.dial(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("one more: %v", err)
	}
	if resp, _ := get(t, as(t, n, mallory), "/a"); resp.StatusCode != http.StatusForbidden { // others have their own
		t.Errorf("%d", resp.StatusCode)
	}
	_ = held[0].Close()
	deadline := time.Now().Add(10 * time.Second)
	for { // the server notices the end of the first one in its own time
		c, err := n.dial(t.Context(), alice)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET /a HTTP/1.0\r\n\r\n")
		b, _ := io.ReadAll(c)
		if strings.Contains(string(b), "200 OK") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no room after one has left: %q", b)
		}
	}
}

func TestHeadersAndBodiesAreBounded(t *testing.T) {
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	defer back.Close()
	c := as(t, open(t, Config{Upstream: back.URL, MaxBody: 10}), alice)
	if resp, body := ask(t, c, http.MethodPost, "http://x/", "0123456789"); resp.StatusCode != http.StatusOK || body != "0123456789" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	if resp, body := ask(t, c, http.MethodPost, "http://x/", "0123456789a"); resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(body, "10 at most") {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	if resp, _ := get(t, c, "/", "X-Large", strings.Repeat("x", 2*maxHeader)); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%d", resp.StatusCode)
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil) // checks the Origin
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, b, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, b) != nil {
			return
		}
	}
}

// A web server answers before it has read an upload, and leaves.
//
// case: E5
func TestAnEarlyAnswerArrives(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.ReadFull(c, make([]byte, 1000))
				_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 9\r\n\r\ntoo large")
			})
		}
	})
	upload := func(n *network, clients *sync.WaitGroup) {
		c, err := n.dial(t.Context(), alice)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		clients.Go(func() {
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 16777216\r\n\r\n")
			_, _ = c.Write(make([]byte, 16<<20))
		})
		br := bufio.NewReader(c)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Error(err)
			return
		}
		if b, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusRequestEntityTooLarge || string(b) != "too large" || err != nil {
			t.Errorf("%s, %.99q, %v", resp.Status, b, err)
		}
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if more, _ := io.ReadAll(br); len(more) > 0 {
			t.Errorf("what was left of the upload is answered: %.99q", more)
		}
	}
	for range 3 {
		n := open(t, Config{Upstream: "http://" + l.Addr().String()})
		var clients sync.WaitGroup
		for range 20 { // a server has places for 32
			clients.Go(func() { upload(n, &clients) })
		}
		clients.Wait()
	}
}
