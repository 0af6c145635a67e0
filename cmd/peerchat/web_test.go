package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"peerlink/identity"
	"peerlink/web"
	"peerlink/webrtc/switchboard"
)

func pageHandler(t *testing.T, s site, servers ...string) http.Handler {
	t.Helper()
	h, err := s.handler(servers, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func get(h http.Handler, host, path string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, "http://"+host+path, nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestPageIsServedWithWhatItLoads(t *testing.T) {
	h := pageHandler(t, site{})
	res := get(h, "127.0.0.1:8470", "/")
	html, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v", res.StatusCode, err)
	}
	csp := res.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "connect-src 'self' ws://127.0.0.1:8470 "} {
		if !strings.Contains(csp, want) {
			t.Errorf("policy %q lacks %q", csp, want)
		}
	}
	if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
		t.Errorf("policy %q", csp)
	}
	parts := regexp.MustCompile(`(?:src|href)="\./([^"]+)"`).FindAllStringSubmatch(string(html), -1)
	if len(parts) < 3 {
		t.Fatalf("the page names only %q", parts)
	}
	for _, p := range parts {
		res := get(h, "127.0.0.1:8470", "/"+p[1])
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", p[1], res.StatusCode)
		}
		if strings.HasPrefix(p[1], "assets/") != strings.Contains(res.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: Cache-Control %q", p[1], res.Header.Get("Cache-Control"))
		}
	}
	if res := get(h, "127.0.0.1:8470", "/../web.go"); res.StatusCode == http.StatusOK {
		t.Error("a file outside the page is served")
	}
}

// The page works where there is no other network: nothing of it is loaded from
// elsewhere.
func TestPageLoadsNothingFromElsewhere(t *testing.T) {
	loads := regexp.MustCompile(`(?i)(?:src|href)\s*=\s*["'](?:https?:)?//|url\(\s*["']?(?:https?:)?//|@import|import\(\s*["']https?:|fetch\(\s*["']https?:`)
	n := 0
	err := fs.WalkDir(web.Page(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		b, err := fs.ReadFile(web.Page(), path)
		if found := loads.Find(b); found != nil {
			t.Errorf("%s has %q", path, found)
		}
		return err
	})
	if err != nil || n < 4 {
		t.Fatalf("%d files, %v", n, err)
	}
}

// A name of another site that is made to point here gets nothing.
func TestOnlyOwnNamesAreAnswered(t *testing.T) {
	h := pageHandler(t, site{hosts: []string{"chat.example"}})
	for host, want := range map[string]int{
		"127.0.0.1:8470":              http.StatusOK,
		"localhost:8470":              http.StatusOK,
		"LOCALHOST":                   http.StatusOK,
		"[::1]:8470":                  http.StatusOK,
		"chat.example":                http.StatusOK,
		"Chat.Example:443":            http.StatusOK,
		"evil.example:8470":           http.StatusMisdirectedRequest,
		"127.0.0.1.evil.example":      http.StatusMisdirectedRequest,
		"localhost.evil.example:8470": http.StatusMisdirectedRequest,
		"192.0.2.1":                   http.StatusMisdirectedRequest,
		"":                            http.StatusMisdirectedRequest,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("Host %q: status %d, want %d", host, w.Code, want)
		}
	}
	if (&site{}).ours("localhost:80;script-src *") {
		t.Error("a Host that is no port is taken")
	}
}

func TestConfigurationTellsNoSecrets(t *testing.T) {
	h := pageHandler(t, site{signal: "wss://board.example/x"}, "stun:stun.example:3478", "turn:turn.example:3478")
	res := get(h, "localhost", "/config.json")
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"signal":"wss://board.example/x","iceServers":[{"urls":"stun:stun.example:3478"}]}`; string(b) != want {
		t.Errorf("told %s, want %s", b, want)
	}
	if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "connect-src 'self' ws://localhost wss://localhost wss://board.example;") {
		t.Errorf("policy %q", csp)
	}
	if res := get(h, "localhost", boardPath); res.StatusCode == http.StatusSwitchingProtocols || res.StatusCode == http.StatusOK {
		t.Errorf("a second switchboard is served: status %d", res.StatusCode)
	}
	var usage usageError
	if _, err := (&site{signal: "http://board.example"}).handler(nil, nil); !errors.As(err, &usage) {
		t.Errorf("a switchboard over http: %v", err)
	}
}

// The switchboard is beside the page: programs may join, and pages of this
// origin, but no other site's.
func TestSwitchboardBesideThePage(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- serveSite(serving, l, pageHandler(t, site{}), slog.New(slog.DiscardHandler)) }()
	board := "ws://" + l.Addr().String() + boardPath
	me, err := identity.Generate("me")
	if err != nil {
		t.Fatal(err)
	}
	line, err := switchboard.Dial(ctx, board, switchboard.Config{Identity: me})
	if err != nil {
		t.Fatal(err)
	}
	for origin, want := range map[string]bool{"http://" + l.Addr().String(): true, "https://evil.example": false, "http://localhost:1": false, "null": false} {
		ws, _, err := websocket.Dial(ctx, board, &websocket.DialOptions{Subprotocols: []string{switchboard.Protocol}, HTTPHeader: http.Header{"Origin": {origin}}})
		if (err == nil) != want {
			t.Errorf("origin %s: %v", origin, err)
		}
		if err == nil {
			_ = ws.CloseNow()
		}
	}
	stop()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Errorf("serveSite returned %v", err)
	}
	if err := line.Close(); err != nil {
		t.Error(err)
	}
}

func TestPageOnANetworkNeedsAName(t *testing.T) {
	var out, errOut strings.Builder
	if code := run([]string{"web", "--addr", "0.0.0.0:0"}, strings.NewReader(""), &out, &errOut); code != exitUsage {
		t.Errorf("exit %d: %s", code, errOut.String())
	}
	if !strings.Contains(errOut.String(), "--host") {
		t.Errorf("the error does not say what to do: %s", errOut.String())
	}
}
