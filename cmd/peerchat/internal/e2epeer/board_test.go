package e2epeer

import (
	"context"
	"crypto/rand"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/coder/websocket"
	"github.com/vmihailenco/msgpack/v5"

	"peerlink/identity"
	"peerlink/webrtc/switchboard"
)

// Messages of a switchboard (docs/protocol.md, "The switchboard").
const (
	opChallenge = 1
	opJoined    = 3
	opAsk       = 4
	opCard      = 5
	opTaken     = 7
	opLetter    = 11
)

const (
	giant     = 16 << 20
	floodLen  = 5000
	letterLen = 300
)

// hostileBoard is a switchboard that means no good. The lines of a device that
// comes to it break in three ways; on the fourth it floods the device, and then
// gives whoever asks for a device its own card.
type hostileBoard struct {
	own   atomic.Pointer[[]byte] // card of its own device, which joins first
	lines atomic.Int64
}

// serveBoard runs one until the input ends, and prints its address.
func serveBoard(ctx context.Context, me *identity.Identity) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	url := "ws://" + l.Addr().String() + "/"
	b := &hostileBoard{}
	go func() { _ = http.Serve(l, b) }() //nolint:gosec // for a test
	line, err := switchboard.Dial(ctx, url, switchboard.Config{Identity: me})
	if err != nil {
		return err
	}
	defer line.Close()
	report(map[string]any{"step": "ready", "ok": true, "board": url, "device": me.DeviceID()})
	<-ctx.Done()
	return nil
}

// ServeHTTP takes one line.
func (b *hostileBoard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{switchboard.Protocol}, InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer func() { _ = ws.CloseNow() }()
	n := int64(0) // its own device's
	if b.own.Load() != nil {
		n = b.lines.Add(1)
	}
	end := b.line(r.Context(), ws, n)
	report(map[string]any{"step": "line", "n": n, "end": end.Error()})
}

func (b *hostileBoard) line(ctx context.Context, ws *websocket.Conn, n int64) error {
	if n == 1 {
		_ = ws.Write(ctx, websocket.MessageBinary, []byte{0x95, 0xff, 0xc6, 0xff, 0xff, 0xff, 0xff})
		_, _, err := ws.Read(ctx)
		return err
	}
	if err := say(ctx, ws, opChallenge, 0, noise(32)); err != nil {
		return err
	}
	_, card, err := hear(ctx, ws)
	if err != nil {
		return err
	}
	if err := say(ctx, ws, opJoined, 0, nil); err != nil {
		return err
	}
	switch n {
	case 0:
		b.own.Store(&card)
		_, _, err := ws.Read(ctx)
		return err
	case 2:
		_ = ws.Write(ctx, websocket.MessageBinary, make([]byte, giant))
		_, _, err := ws.Read(ctx)
		return err
	case 3:
		_ = ws.Write(ctx, websocket.MessageText, []byte("hello"))
		_, _, err := ws.Read(ctx)
		return err
	}
	return b.flood(ctx, ws)
}

// flood sends letters that nobody wrote and answers that nobody asked for, then
// lies to whoever asks.
func (b *hostileBoard) flood(ctx context.Context, ws *websocket.Conn) error {
	for i := range floodLen {
		if err := say(ctx, ws, opLetter, 0, noise(letterLen)); err != nil {
			return err
		}
		if err := say(ctx, ws, opTaken, uint64(1_000_000+i), nil); err != nil {
			return err
		}
	}
	report(map[string]any{"step": "flooded"})
	for {
		f, _, err := hear(ctx, ws)
		if err != nil {
			return err
		}
		if f.Op == opAsk {
			if err := say(ctx, ws, opCard, f.Number, *b.own.Load()); err != nil {
				return err
			}
		}
	}
}

// boardFrame is a message of a line.
type boardFrame struct {
	_msgpack struct{} `msgpack:",as_array"` //nolint:unused // msgpack reads its tag
	Op       uint8
	Number   uint64
	Device   []byte
	Body     []byte
	Extra    []byte
}

func say(ctx context.Context, ws *websocket.Conn, op uint8, number uint64, body []byte) error {
	b, err := msgpack.Marshal(&boardFrame{Op: op, Number: number, Device: []byte{}, Body: append([]byte{}, body...), Extra: []byte{}})
	if err != nil {
		return err
	}
	return ws.Write(ctx, websocket.MessageBinary, b)
}

func hear(ctx context.Context, ws *websocket.Conn) (f boardFrame, body []byte, err error) {
	_, b, err := ws.Read(ctx)
	if err == nil {
		err = msgpack.Unmarshal(b, &f)
	}
	return f, f.Body, err
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
