package peerlink_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

// cgiEnv makes the test's own program the CGI program.
const cgiEnv = "PEERLINK_TEST_CGI"

func TestMain(m *testing.M) {
	if os.Getenv(cgiEnv) != "" {
		runCGI()
		return
	}
	goleak.VerifyTestMain(m,
		// net/http's own: half a second before it closes a connection that it gave up.
		goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"),
	)
}

func runCGI() {
	err := cgi.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cgi/teapot" {
			w.WriteHeader(http.StatusTeapot)
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s %s?%s %q", r.RemoteAddr, r.Method, r.URL.Path, r.URL.RawQuery, body)
	}))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// web serves a handler on bob and returns alice's client and bob's URL.
func web(t *testing.T, h http.Handler) (alice, bob *device, client *http.Client, url string) {
	t.Helper()
	alice, bob, url = webOf(t, &http.Server{Handler: h, ReadHeaderTimeout: time.Minute})
	return alice, bob, &http.Client{Transport: alice.Transport()}, url
}

// webOf has a server on bob, and returns bob's URL.
func webOf(t *testing.T, srv *http.Server) (alice, bob *device, url string) {
	t.Helper()
	n := newNetwork("memory")
	alice, bob = n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
	l, err := bob.Listen("http://*")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		_ = srv.Close()
		serving.Wait()
	})
	return alice, bob, "http+peer://" + bob.id.DeviceID().String()
}

func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestHTTPKeepsItsChannelBetweenRequests(t *testing.T) {
	alice, bob, client, url := web(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s from %s to %s", r.URL.Path, r.RemoteAddr, r.Host)
	}))
	for i := range 10 {
		path := fmt.Sprint("/", i)
		code, body := get(t, client, url+path)
		if want := fmt.Sprintf("%s from %s to %s", path, alice.id.DeviceID(), bob.id.DeviceID()); code != 200 || body != want {
			t.Fatalf("%d %q, want %q", code, body, want)
		}
	}
	cs := alice.Connections()
	if len(cs) != 1 || cs[0].Opened != 1 || len(cs[0].Channels) != 1 {
		t.Errorf("ten requests made %+v", cs)
	}
	client.CloseIdleConnections()
	eventually(t, "no channel is left", func() bool { return len(alice.Connections()[0].Channels) == 0 })
}

// eventually waits for a state that no event announces.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			t.Fatalf("after 20 s still not: %s", what)
		}
	}
}

func TestHTTPBodiesStreamBothWays(t *testing.T) {
	_, _, client, url := web(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		in := bufio.NewScanner(r.Body)
		for in.Scan() {
			_, _ = fmt.Fprintf(w, "heard %s\n", in.Text())
			_ = rc.Flush()
		}
	}))
	pr, pw := io.Pipe()
	req, err := http.NewRequest(http.MethodPost, url+"/talk", pr)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = fmt.Fprintln(pw, "word 0") }()
	resp, err := client.Do(req) // the answer begins before the request has ended
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Request != req {
		t.Error("the response does not name its request")
	}
	out := bufio.NewScanner(resp.Body)
	for i := range 100 {
		if !out.Scan() || out.Text() != fmt.Sprint("heard word ", i) {
			t.Fatalf("line %d: %q, %v", i, out.Text(), out.Err())
		}
		if _, err := fmt.Fprintln(pw, "word", i+1); err != nil {
			t.Fatal(err)
		}
	}
	_ = pw.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestHTTPUpgradesToWebSocket(t *testing.T) {
	alice, bob, client, _ := web(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		for {
			kind, msg, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, append([]byte("echo "), msg...)); err != nil {
				t.Error(err)
			}
		}
	}))
	ctx, cancel := context.WithTimeout(background, 20*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://"+bob.id.DeviceID().String()+"/socket", &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		word := strings.Repeat("x", i*1000)
		if err := c.Write(ctx, websocket.MessageText, []byte(word)); err != nil {
			t.Fatal(err)
		}
		if _, msg, err := c.Read(ctx); err != nil || string(msg) != "echo "+word {
			t.Fatalf("%.20q, %v", msg, err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	if cs := alice.Connections(); len(cs) != 1 || cs[0].Opened != 1 {
		t.Errorf("links: %+v", cs)
	}
}

func TestHTTPRunsCGI(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	alice, _, client, url := web(t, &cgi.Handler{Path: program, Root: "/cgi", Env: []string{cgiEnv + "=1"}})
	resp, err := client.Post(url+"/cgi/teapot?q=1", "text/plain", strings.NewReader("a body"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	want := alice.id.DeviceID().String()
	if err != nil || resp.StatusCode != http.StatusTeapot || !strings.HasSuffix(string(body), ` POST /cgi/teapot?q=1 "a body"`) || !strings.Contains(string(body), want) {
		t.Errorf("%d %s, %v; want the caller %s in it", resp.StatusCode, body, err, want)
	}
}

func TestHTTPErrorPages(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ok", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") })
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	alice, bob, client, url := web(t, mux)
	for path, want := range map[string]int{"/ok": 200, "/nothing": 404} {
		if code, _ := get(t, client, url+path); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
	if resp, err := client.Post(url+"/ok", "text/plain", nil); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("wrong method: %v, %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
	if _, err := client.Get(url + "/panic"); err == nil {
		t.Error("a handler that gave up gave an answer")
	}
	if code, body := get(t, client, url+"/ok"); code != 200 || body != "fine" {
		t.Errorf("afterwards: %d %q", code, body)
	}
	for request, want := range map[string]string{
		"GET /ok HTTP/1.1\r\nHost: bob\r\nConnection: close\r\n\r\n": "HTTP/1.1 200 OK",
		"no request at all\r\n\r\n":                                  "HTTP/1.1 400 Bad Request",
		"GET /ok HTTP/1.1\r\n\r\n":                                   "HTTP/1.1 400 Bad Request", // no host
		"GET /ok HTTP/9.9\r\nHost: bob\r\n\r\n":                      "HTTP/1.1 505",
		"GET /ok HTTP/1.1\r\nHost: bob\r\n" + strings.Repeat("X: "+strings.Repeat("x", 4000)+"\r\n", 300) + "\r\n": "HTTP/1.1 431",
	} {
		c := connect(t, alice, bob, "http://raw")
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			step := max(len(request)/500, 1) // as bytes come
			for i := 0; i < len(request); i += step {
				if _, err := io.WriteString(c, request[i:min(i+step, len(request))]); err != nil {
					return
				}
			}
		}()
		answer, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.HasPrefix(answer, want) {
			t.Errorf("%.40q: %q, %v, want %s", request, answer, err, want)
		}
		_ = c.Close()
	}
}

func TestTransportNamesWhatIsWrong(t *testing.T) {
	alice, bob, client, url := web(t, http.NotFoundHandler())
	self, peer := alice.id.DeviceID().String(), bob.id.DeviceID().String()
	for _, c := range [][2]string{
		{"https://" + peer + "/", "want http+peer://DEVICEID/path"},
		{"http+peer://bob/", "want http+peer://DEVICEID/path"},
		{url + ":80/", "a device has no ports"},
		{"http+peer://" + self, "own id"},
		{"http+peer://" + strings.Repeat("0", 64) + "/", "malformed id"},
		{"http+peer://" + strings.Repeat("ab", 32) + "/x", "could not reach device abababab"},
	} {
		u, want := c[0], c[1]
		body := &closer{Reader: strings.NewReader("x")}
		req, err := http.NewRequest(http.MethodPost, u, body)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := client.Do(req); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v, want %q", u, resp, err, want)
		}
		if !body.closed.Load() {
			t.Errorf("%s: the body was left open", u)
		}
	}
	if err := bob.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get(url); err == nil {
		t.Error("a closed device answered")
	}
}

// closer is a body that notes its end.
type closer struct {
	io.Reader
	closed atomic.Bool
}

func (c *closer) Close() error {
	c.closed.Store(true)
	return nil
}
