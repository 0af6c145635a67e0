package switchboard

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

// A server that sends garbage, too much, the wrong kind, or what nobody asked
// for loses the line, or wastes its breath: the client keeps nothing of it, and
// is of use again as soon as a server behaves. faults: A1, A2, E2
func TestClientOutlivesAHostileServer(t *testing.T) {
	challenge := frame{op: opChallenge, body: make([]byte, nonceLen)}
	bytes := func(kind websocket.MessageType, b []byte) func(context.Context, *websocket.Conn) {
		return func(ctx context.Context, ws *websocket.Conn) { _ = ws.Write(ctx, kind, b) }
	}
	after := func(f frame, then func(context.Context, *websocket.Conn)) func(context.Context, *websocket.Conn) {
		return func(ctx context.Context, ws *websocket.Conn) {
			if write(ctx, ws, f) != nil {
				return
			}
			if _, err := read(ctx, ws); err == nil { // the join
				then(ctx, ws)
			}
		}
	}
	joined := func(then func(context.Context, *websocket.Conn)) func(context.Context, *websocket.Conn) {
		return after(challenge, func(ctx context.Context, ws *websocket.Conn) {
			if write(ctx, ws, frame{op: opJoined}) == nil {
				then(ctx, ws)
			}
		})
	}
	attacks := map[string]func(context.Context, *websocket.Conn){
		"garbage":        bytes(websocket.MessageBinary, []byte{0x95, 0xff, 0xc6, 0xff, 0xff, 0xff, 0xff}),
		"a giant":        bytes(websocket.MessageBinary, make([]byte, 4<<20)),
		"text":           bytes(websocket.MessageText, []byte("hello")),
		"joined at once": func(ctx context.Context, ws *websocket.Conn) { _ = write(ctx, ws, frame{op: opJoined}) },
		"a long challenge": func(ctx context.Context, ws *websocket.Conn) {
			_ = write(ctx, ws, frame{op: opChallenge, body: make([]byte, nonceLen+1)})
		},
		"garbage after the join": after(challenge, bytes(websocket.MessageBinary, make([]byte, 1))),
		"a giant once joined":    joined(bytes(websocket.MessageBinary, make([]byte, 4<<20))),
		"a flood once joined": joined(func(ctx context.Context, ws *websocket.Conn) {
			for i := range 2000 {
				junk := make([]byte, 300)
				rand.Read(junk)
				if write(ctx, ws, frame{op: opLetter, body: junk}) != nil || write(ctx, ws, frame{op: opTaken, number: uint64(i)}) != nil {
					return
				}
			}
			_ = write(ctx, ws, frame{op: opCard, number: 1, body: []byte("no card")})
		}),
	}
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) { outlive(t, attack) })
	}
}

// outlive has the first line to a server be an attack, and the others served.
func outlive(t *testing.T, attack func(context.Context, *websocket.Conn)) {
	honest := NewServer(ServerConfig{})
	var first sync.Once
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		attacked := false
		first.Do(func() {
			attacked = true
			ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{Protocol}})
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = ws.CloseNow() }()
			attack(r.Context(), ws)
		})
		if !attacked {
			honest.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	url := "ws" + strings.TrimPrefix(s.URL, "http") + "/"
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	a, err := New(url, Config{Identity: alice})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	if err := a.Ready(limit(t)); err != nil { // by now at the latest the attack has begun
		t.Fatal(err)
	}
	b := dial(t, url, bob)
	ctx := limit(t)
	for { // each is a question to the server, which alice comes to in a moment
		if err = b.Send(ctx, alice.DeviceID(), []byte("still there?")); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	if from, msg, err := a.Receive(ctx); err != nil || from.Device != bob.DeviceID() || string(msg) != "still there?" {
		t.Errorf("received %q of %v, %v", msg, from, err)
	}
}

// A server that answers with another device's card gets no letter. fault: D1
func TestAnotherDevicesCardIsRefused(t *testing.T) {
	alice, bob, mallory := newIdentity(t, "alice"), newIdentity(t, "bob"), newIdentity(t, "mallory")
	honest := NewServer(ServerConfig{})
	s := httptest.NewServer(honest)
	t.Cleanup(s.Close)
	url := "ws" + strings.TrimPrefix(s.URL, "http") + "/"
	a, m := dial(t, url, alice), dial(t, url, mallory)
	honest.mu.Lock()
	honest.members[bob.DeviceID()] = honest.members[mallory.DeviceID()]
	honest.mu.Unlock()
	if err := a.Send(limit(t), bob.DeviceID(), []byte("for bob")); err == nil || !strings.Contains(err.Error(), "gave the card of "+mallory.DeviceID().Short()) {
		t.Errorf("%v", err)
	}
	m.Close()
	if n := len(m.inc); n != 0 {
		t.Errorf("mallory got %d letters", n)
	}
}
