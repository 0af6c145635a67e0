//go:build linux

package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"github.com/vmihailenco/msgpack/v5"

	"peerlink/identity"
	"peerlink/webrtc/switchboard"
)

// board are attacks on a switchboard.
var board = []attack{
	{name: "idle HTTP connections to a switchboard", do: idleHTTP, then: fewDescriptors},
	{name: "switchboard lines that do not read", do: deafLines, then: boarded, most: bounds{memory: 192 * mib}},
}

// idleHTTP asks one thing over each connection, or nothing, and keeps it; all from one
// address.
func idleHTTP(ctx context.Context, w *world, t *tally) {
	r := w.random(2)
	holdFrom(ctx, 1, 1500, "tcp", w.boardHost(), t, func() []byte {
		return []byte([]string{"", "GET / HTTP/1.1\r\nHost: x\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"}[r.IntN(3)])
	})
}

// fewDescriptors checks that the node keeps no more connections than it may: 512 of one
// address at a switchboard, and what it has besides.
func fewDescriptors(ctx context.Context, w *world, t *tally) {
	const most = 512 + 200
	if n := w.node.descriptors(); n > most {
		t.harmed("the node has %d descriptors open, at most %d", n, most)
	}
	boarded(ctx, w, t)
}

// boarded checks that a contact gets a line.
func boarded(ctx context.Context, w *world, t *tally) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	c, err := switchboard.New(w.board, switchboard.Config{Identity: w.visitor})
	if err == nil {
		defer c.Close()
		err = c.Ready(ctx)
	}
	if err != nil {
		t.harmed("a contact gets no line at the switchboard: %v", err)
	}
}

func (w *world) boardHost() string {
	u, err := url.Parse(w.board)
	if err != nil {
		return ""
	}
	return u.Host
}

// line is a line to a switchboard, by hand.
type line struct {
	ws   *websocket.Conn
	self identity.DeviceID
	card [sha256.Size]byte // the card's sum
}

// join makes a line from one of the hostile's addresses.
func (w *world) join(ctx context.Context, i int) (*line, error) {
	id, err := stranger()
	if err != nil {
		return nil, err
	}
	d := from(i)
	d.Control = narrow
	client := &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
	ws, _, err := websocket.Dial(ctx, w.board, &websocket.DialOptions{HTTPClient: client, Subprotocols: []string{switchboard.Protocol}}) //nolint:bodyclose // ws owns it, or there is none
	if err != nil {
		return nil, err
	}
	l := &line{ws: ws, self: id.DeviceID()}
	if err := l.prove(ctx, id, w.boardHost()); err != nil {
		_ = ws.CloseNow()
		return nil, err
	}
	return l, nil
}

// narrow leaves a socket as little room in the system, of both sides, as it can have.
func narrow(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1)
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1000)
	})
}

// prove answers the challenge.
func (l *line) prove(ctx context.Context, id *identity.Identity, host string) error {
	_, b, err := l.ws.Read(ctx)
	if err != nil {
		return err
	}
	var challenge []any
	if err := msgpack.Unmarshal(b, &challenge); err != nil || len(challenge) < 4 {
		return fmt.Errorf("no challenge: %w", errors.Join(err))
	}
	nonce, _ := challenge[3].([]byte)
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	statement := packed([]any{1, id.Peer().Chain(), key.PublicKey().Bytes(), uint64(time.Now().Add(time.Hour).UnixMilli())})
	sig, err := id.Sign("switchboard-card", statement)
	if err != nil {
		return err
	}
	card := packed([]any{statement, sig})
	l.card = sha256.Sum256(card)
	proof, err := id.Sign("switchboard-join", slices.Concat(nonce, l.card[:], []byte(host)))
	if err != nil {
		return err
	}
	return l.write(ctx, 2, nil, card, proof)
}

func (l *line) write(ctx context.Context, op int, device, body, extra []byte) error {
	none := func(b []byte) []byte { return append([]byte{}, b...) } // empty, not nil
	return l.ws.Write(ctx, websocket.MessageBinary, packed([]any{op, 0, none(device), none(body), none(extra)}))
}

// lines are lines that read nothing.
type lines struct {
	mu  sync.Mutex
	all []*line
}

func (d *lines) add(l *line) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, l)
	return len(d.all)
}

// any returns one of them.
func (d *lines) any(r *mathrand.Rand) *line {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all[r.IntN(len(d.all))]
}

// deafLines makes lines that read nothing, and then others that send them letters.
func deafLines(ctx context.Context, w *world, t *tally) {
	const deaf, senders = 256, 32
	var d lines
	defer func() {
		for _, l := range d.all {
			_ = l.ws.CloseNow()
		}
	}()
	joining, joined := context.WithTimeout(ctx, proveTimeout)
	w.crowd(joining, 4, func(ctx context.Context, r *mathrand.Rand) error {
		l, err := w.join(ctx, r.Int())
		if err == nil {
			if t.tried.Add(1); d.add(l) >= deaf {
				joined()
			}
		}
		return err
	})
	joined()
	if len(d.all) == 0 {
		return
	}
	letter := make([]byte, 24<<10)
	w.crowd(ctx, senders, func(ctx context.Context, r *mathrand.Rand) error {
		l, err := w.join(ctx, r.Int())
		if err == nil {
			l.send(ctx, func() *line { return d.any(r) }, letter)
		}
		return err
	})
}

// send sends letters to lines until its own one ends.
func (l *line) send(ctx context.Context, next func() *line, letter []byte) {
	defer func() { _ = l.ws.CloseNow() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // reads the answers
		defer cancel()
		for {
			if _, _, err := l.ws.Read(ctx); err != nil {
				return
			}
		}
	}()
	for ctx.Err() == nil {
		to := next()
		if l.write(ctx, 6, to.self[:], letter, to.card[:]) != nil {
			return
		}
	}
}
