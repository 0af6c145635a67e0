package website

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// browse is a gateway to bob's site, for a client whose connections come to it
// whatever they are for.
func browse(t *testing.T, dial func(context.Context) (net.Conn, error)) (*http.Client, *Gateway) {
	t.Helper()
	g, err := NewGateway(GatewayConfig{Device: bob, Name: "bob", Dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	n := newNetwork()
	served := make(chan error, 1)
	go func() { served <- g.Serve(n) }()
	t.Cleanup(func() {
		if err := errors.Join(g.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
	return as(t, n, alice), g
}

// whole is a web server of bob's, and alice's gateway to it.
func whole(t *testing.T, h http.HandlerFunc) (c *http.Client, home string) {
	t.Helper()
	back := httptest.NewServer(h)
	t.Cleanup(back.Close)
	n := open(t, Config{Upstream: back.URL})
	c, g := browse(t, func(ctx context.Context) (net.Conn, error) { return n.dial(ctx, alice) })
	return c, strings.TrimSuffix(g.URL(&net.TCPAddr{Port: 8080}), "/")
}

func TestABrowserSeesTheSite(t *testing.T) {
	c, home := whole(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "a=b")
		_, _ = fmt.Fprintf(w, "%s %s %s cookie=%s", r.Method, r.URL, r.Header.Get(DeviceHeader), r.Header.Get("Cookie"))
	})
	resp, body := ask(t, c, http.MethodGet, home+"/x?y=1", "", "Cookie", "c=d")
	if want := "GET /x?y=1 " + alice.String() + " cookie=c=d"; body != want || resp.Header.Get("Set-Cookie") == "" {
		t.Errorf("%q, want %q; %v", body, want, resp.Header)
	}
	resp, body = ask(t, c, http.MethodGet, "http://127.0.0.1:8080/x", "", "Cookie", "of=another site")
	if resp.StatusCode != http.StatusOK || !strings.HasSuffix(body, "cookie=") || resp.Header.Get("Set-Cookie") != "" {
		t.Errorf("cookies of 127.0.0.1 are those of others, too: %q %v", body, resp.Header)
	}
	resp, _ = ask(t, c, http.MethodGet, "http://127.0.0.1:8080//x?y", "", "Sec-Fetch-Site", "none")
	if to := resp.Header.Get("Location"); resp.StatusCode != http.StatusTemporaryRedirect || to != home+"/x?y" {
		t.Errorf("a browser is sent to %d %q", resp.StatusCode, to)
	}
}

func TestOtherNamesAndOtherSitesAreRefused(t *testing.T) {
	c, home := whole(t, func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s came through: %v", r.Method, r.Host, r.Header)
	})
	for _, q := range []struct {
		method, url string
		code        int
		header      []string
	}{
		{"GET", "http://evil.example:8080/", 421, nil},
		{"GET", "http://127.0.0.1.evil.example/", 421, nil},
		{"GET", "http://x." + bob.String()[:labelDigits] + ".localhost/", 421, nil},
		{"GET", "http://192.0.2.1:8080/", 421, nil},
		{"POST", home + "/", 403, []string{"Sec-Fetch-Site", "cross-site"}},
		{"POST", home + "/", 403, []string{"Origin", "http://evil.example"}},
		{"DELETE", home + "/", 403, []string{"Origin", "null"}},
		{"GET", home + "/", 403, []string{"Origin", "http://evil.example", "Connection", "Upgrade", "Upgrade", "websocket"}},
	} {
		if resp, body := ask(t, c, q.method, q.url, "", q.header...); resp.StatusCode != q.code {
			t.Errorf("%+v: %d %s", q, resp.StatusCode, body)
		}
	}
}

func TestAWebSocketGoesAllTheWay(t *testing.T) {
	c, home := whole(t, echo)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client := &http.Client{Transport: c.Transport}
	ws, _, err := websocket.Dial(ctx, home+"/ws", &websocket.DialOptions{HTTPClient: client, HTTPHeader: http.Header{"Origin": {home}}})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	for i := range 10 {
		if err := ws.Write(ctx, websocket.MessageText, fmt.Append(nil, "word ", i)); err != nil {
			t.Fatal(err)
		}
		if _, b, err := ws.Read(ctx); err != nil || string(b) != fmt.Sprint("word ", i) {
			t.Fatalf("%q, %v", b, err)
		}
	}
	// It is open still: what Close does to it is checked by the end of the test.
}

func TestBodiesStreamBothWays(t *testing.T) {
	c, home := whole(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		for in := bufio.NewScanner(r.Body); in.Scan(); {
			_, _ = fmt.Fprintf(w, "heard %s\n", in.Text())
			_ = rc.Flush()
		}
	})
	pr, pw := io.Pipe()
	defer pw.Close()
	go func() { _, _ = fmt.Fprintln(pw, "word 0") }()
	resp, err := c.Post(home+"/", "text/plain", pr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := bufio.NewScanner(resp.Body)
	for i := range 5 {
		if !out.Scan() || out.Text() != fmt.Sprint("heard word ", i) {
			t.Fatalf("%q, %v", out.Text(), out.Err())
		}
		go func() { _, _ = fmt.Fprintln(pw, "word", i+1) }()
	}
}

// fault: C3: a response that is cut does not look whole.
func TestACutResponseIsAnError(t *testing.T) {
	c, home := whole(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	resp, err := c.Get(home + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%q looks whole", b)
	}
}

func TestAPageSaysWhyTheSiteIsNotToBeHad(t *testing.T) {
	fails := errors.New("could not reach device b0000000: tcp: <b>connection refused</b>\x1b[2J\ndht: no nodes")
	c, g := browse(t, func(context.Context) (net.Conn, error) { return nil, fails })
	resp, body := ask(t, c, http.MethodGet, g.URL(&net.TCPAddr{Port: 80}), "")
	if resp.StatusCode != http.StatusBadGateway || !strings.Contains(body, "site of bob") || !strings.Contains(body, "could not reach") || !strings.Contains(body, "\ndht: no nodes.\nIt must run") || !strings.Contains(body, "pre-line") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if strings.Contains(body, "<b>") || strings.Contains(body, "\x1b") {
		t.Errorf("not escaped: %s", body)
	}
}

func TestADeviceThatDoesNotAnswerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := browse(t, func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		})
		c.Timeout = 0
		began := time.Now()
		resp, body := ask(t, c, http.MethodGet, g.URL(&net.TCPAddr{Port: 80}), "")
		if resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(body, "no answer within 30s") || time.Since(began) != openTimeout {
			t.Errorf("%d after %v: %s", resp.StatusCode, time.Since(began), body)
		}
	})
}

// fault: C10
func TestClosingEndsACallUnderWay(t *testing.T) {
	dialling := make(chan struct{})
	g, err := NewGateway(GatewayConfig{Device: bob, Dial: func(ctx context.Context) (net.Conn, error) {
		close(dialling)
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}})
	if err != nil {
		t.Fatal(err)
	}
	n := newNetwork()
	served := make(chan error, 1)
	go func() { served <- g.Serve(n) }()
	c := as(t, n, alice)
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		if resp, err := c.Get(g.URL(n.Addr())); err == nil {
			resp.Body.Close()
		}
	}()
	select {
	case <-dialling:
	case <-asked:
		t.Fatal("the request ended before the device was dialled")
	}
	began := time.Now()
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("Close took %v", took)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	<-asked
	if err := g.Serve(newNetwork()); err != nil {
		t.Error(err)
	}
}

// case: S18
func TestAProgramThatMayNotAskIsTold(t *testing.T) {
	why := errors.New("another user")
	g, err := NewGateway(GatewayConfig{
		Device: bob, Check: func(net.Conn) error { return why },
		Dial: func(context.Context) (net.Conn, error) { t.Error("the device was asked"); return nil, why },
	})
	if err != nil {
		t.Fatal(err)
	}
	n := newNetwork()
	served := make(chan error, 1)
	go func() { served <- g.Serve(n) }()
	defer func() { _ = g.Close(); <-served }()
	resp, body := ask(t, as(t, n, alice), http.MethodGet, "http://localhost/", "")
	if resp.StatusCode != http.StatusForbidden || !strings.Contains(body, why.Error()) || !strings.Contains(body, "--all-users") {
		t.Errorf("%s: %s", resp.Status, body)
	}
}
