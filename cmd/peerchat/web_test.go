package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"peerlink/ice"
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

// configOf is config.json as the page reads it.
func configOf(t *testing.T, h http.Handler) (c pageConfig) {
	t.Helper()
	res := get(h, "localhost", "/config.json")
	if got := res.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q", got)
	}
	if err := json.NewDecoder(res.Body).Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// The page is told TURN servers with credentials that end, and never a secret.
// fault: H7
func TestPageIsToldOfTURNServers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ice.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`[{"urls":"turn:a.example:3478?transport=udp","username":"u","credential":"p"},{"urls":"turns:b.example","secret":"tell nobody","username":"page"},{"urls":"stun:c.example"}]`)
	h := pageHandler(t, site{ice: file, relayOnly: true}, "stun:stun.example:3478")
	c := configOf(t, h)
	if len(c.ICEServers) != 4 || !c.RelayOnly || c.ICEServers[0] != (iceServer{URLs: "stun:stun.example:3478"}) || c.ICEServers[1] != (iceServer{"turn:a.example:3478?transport=udp", "u", "p"}) {
		t.Fatalf("told %+v", c)
	}
	made := c.ICEServers[2]
	until, label, _ := strings.Cut(made.Username, ":")
	at, err := strconv.ParseInt(until, 10, 64)
	if left := time.Until(time.Unix(at, 0)); err != nil || label != "page" || left > pageTURNLife || left < pageTURNLife-time.Hour {
		t.Errorf("username %q", made.Username)
	}
	if made.Credential != ice.SharedPassword("tell nobody", made.Username) {
		t.Errorf("credential %q", made.Credential)
	}
	if b, err := io.ReadAll(get(h, "localhost", "/config.json").Body); err != nil || strings.Contains(string(b), "nobody") {
		t.Errorf("told %s, %v", b, err)
	}
	write(`[{"urls":"stun:d.example"}]`)
	if c := configOf(t, h); len(c.ICEServers) != 2 || c.ICEServers[1].URLs != "stun:d.example" {
		t.Errorf("after a change: %+v", c)
	}
	write(`[{"urls":`) // half written
	if c := configOf(t, h); len(c.ICEServers) != 2 {
		t.Errorf("from a broken file: %+v", c)
	}
	for from, want := range map[string]int{"cross-site": http.StatusForbidden, "same-site": http.StatusForbidden, "same-origin": http.StatusOK, "none": http.StatusOK} {
		r := httptest.NewRequest(http.MethodGet, "http://localhost/config.json", nil)
		r.Header.Set("Sec-Fetch-Site", from)
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != want {
			t.Errorf("%s: status %d", from, w.Code)
		}
	}
}

// What the page could not use is refused at the start, with what is wrong.
// fault: H6
func TestBadICEFilesAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ice.json")
	for text, want := range map[string]string{
		`{}`: `line 1: an object cannot be at "/"`, `[{"urls":"turn:x"}]`: "needs username and credential", `[{"urls":"turn:x","username":"u","credential":"p","secret":"s"}]`: "needs username and credential",
		`[{"urls":"stun:x","secret":"s"}]`: "a STUN server has no", `[{"urls":"http://x"}]`: "no server", `[{"urls":"udp:x"}]`: "want stun:",
		`[{"urls":"stun:x","colour":"red"}]`: "colour", "[\n{": "line", `[{"urls":"stun:x\u0000"}]`: "control character",
		"[" + strings.Repeat(`{"urls":"stun:x"},`, 8) + `{"urls":"stun:x"}]`: "9 servers", `"` + strings.Repeat("x", maxICEFile) + `"`: "bytes",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var usage usageError
		if _, err := (&site{ice: file}).handler(nil, slog.New(slog.DiscardHandler)); !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", text, err, want)
		}
	}
	for _, s := range []site{{ice: filepath.Join(t.TempDir(), "none")}, {relayOnly: true}} {
		if _, err := s.handler(nil, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%+v is taken", s)
		}
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
