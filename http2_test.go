package peerlink_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"peerlink"
	"peerlink/identity"
)

// peerKey is where the server of web2 keeps a connection's peer.
type peerKey struct{}

// web2 serves a handler on bob by HTTP/1.1 and HTTP/2, and returns alice and bob's URL.
func web2(t *testing.T, h http.HandlerFunc) (alice *device, url string) {
	t.Helper()
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		peer, _ := peerlink.PeerOf(c)
		return context.WithValue(ctx, peerKey{}, peer)
	}
	alice, _, url = webOf(t, srv)
	return alice, url
}

// chat answers each line at once, and says in a trailer how many there were.
func chat(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "Lines")
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex() // for HTTP/1.1
	_ = rc.Flush()
	lines := 0
	for in := bufio.NewScanner(r.Body); in.Scan(); lines++ {
		_, _ = fmt.Fprintf(w, "heard %s\n", in.Text())
		_ = rc.Flush()
	}
	w.Header().Set("Lines", fmt.Sprint(lines))
}

// Many conversations run at once, all over one channel, and each answer comes
// before the next word.
//
// case: E20
func TestHTTP2TalksBothWaysOverOneChannel(t *testing.T) {
	alice, url := web2(t, chat)
	client := &http.Client{Transport: alice.HTTP2Transport()}
	if code, _ := get(t, client, url); code != 200 { // the others find its channel
		t.Fatal(code)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			pr, pw := io.Pipe()
			defer pw.Close()
			resp, err := client.Post(url+"/talk", "text/plain", pr)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if resp.ProtoMajor != 2 {
				t.Errorf("%s", resp.Proto)
			}
			out := bufio.NewReader(resp.Body)
			for i := range 50 {
				if _, err := fmt.Fprintln(pw, "word", i); err != nil {
					t.Error(err)
					return
				}
				if line, err := out.ReadString('\n'); err != nil || line != fmt.Sprintf("heard word %d\n", i) {
					t.Errorf("%q, %v", line, err)
					return
				}
			}
			_ = pw.Close()
			if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 || resp.Trailer.Get("Lines") != "50" {
				t.Errorf("%q, %v, trailer %v", rest, err, resp.Trailer)
			}
		})
	}
	all.Wait()
	if cs := alice.Connections(); len(cs) != 1 || cs[0].Opened != 1 {
		t.Errorf("20 conversations made %+v", cs)
	}
	client.CloseIdleConnections()
	eventually(t, "no channel is left", func() bool { return len(alice.Connections()[0].Channels) == 0 })
}

// case: E20
func TestBothVersionsOfHTTPShareAListener(t *testing.T) {
	alice, url := web2(t, func(w http.ResponseWriter, r *http.Request) {
		peer, _ := r.Context().Value(peerKey{}).(identity.Peer)
		_, _ = fmt.Fprintf(w, "%s from %s, %s", r.Proto, r.RemoteAddr, peer.Name)
	})
	for version, rt := range map[string]http.RoundTripper{"HTTP/1.1": alice.Transport(), "HTTP/2.0": alice.HTTP2Transport()} {
		code, body := get(t, &http.Client{Transport: rt}, url)
		if want := fmt.Sprintf("%s from %s, alice", version, alice.id.DeviceID()); code != 200 || body != want {
			t.Errorf("%d %q, want %q", code, body, want)
		}
	}
	// What Close leaves behind is found by the test's end (goleak).
	if err := alice.Close(); err != nil {
		t.Error(err)
	}
	if _, err := (&http.Client{Transport: alice.HTTP2Transport()}).Get(url); err == nil {
		t.Error("a closed manager fetched")
	}
}

// case: E20
func TestHTTP2MovesManyBytes(t *testing.T) {
	alice, url := web2(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	sent := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB, far more than any window
	resp, err := (&http.Client{Transport: alice.HTTP2Transport()}).Post(url, "text/plain", strings.NewReader(sent))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != sent {
		t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
	}
}
