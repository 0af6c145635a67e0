package multiplex

import (
	"bufio"
	"context"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
	"peerlink/internal/packed"
)

// frame is one frame as it stands on the wire.
type frame struct {
	id   channel.ID
	body []byte
}

// hostile is the far end of a link with nobody behind it but the test, which
// writes frames by hand and looks at what came. It must be used inside a
// synctest bubble.
type hostile struct {
	t    testing.TB
	conn net.Conn
	s    *Socket // under test

	mu   sync.Mutex
	got  []frame
	gone bool // the Socket has closed the conn
}

// facing runs f in a bubble against a Socket of the called side: what the test
// opens are the client's ids. The hostile end has said hello and reads.
func facing(t *testing.T, cfg Config, f func(t *testing.T, h *hostile)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHostile(t, cfg, Server)
		go h.listen()
		h.send(frame{protocolID, encodeHello(version2, 0)})
		f(t, h)
	})
}

// newHostile makes a Socket by side and a far end that says and reads nothing yet.
func newHostile(t *testing.T, cfg Config, side func(net.Conn, Config) *Socket) *hostile {
	t.Helper()
	a, b := net.Pipe()
	h := &hostile{t: t, conn: a, s: side(b, cfg)}
	t.Cleanup(func() {
		_ = a.Close()
		_ = h.s.Close()
	})
	return h
}

func (h *hostile) listen() {
	br := bufio.NewReaderSize(h.conn, bigBuf)
	for {
		head := make([]byte, headerLen)
		if _, err := io.ReadFull(br, head); err != nil {
			break
		}
		id, n := parseHeader(head)
		body := make([]byte, n)
		if _, err := io.ReadFull(br, body); err != nil {
			break
		}
		h.mu.Lock()
		h.got = append(h.got, frame{id, body})
		h.mu.Unlock()
	}
	h.mu.Lock()
	h.gone = true
	h.mu.Unlock()
}

// send writes frames in one piece and lets the Socket digest them. It reports
// whether the link took all of it.
func (h *hostile) send(fs ...frame) bool {
	var b []byte
	for _, f := range fs {
		b = append(appendHeader(b, f.id, len(f.body)), f.body...)
	}
	return h.write(b)
}

func (h *hostile) write(b []byte) bool {
	_ = h.conn.SetWriteDeadline(time.Now().Add(time.Minute))
	_, err := h.conn.Write(b)
	synctest.Wait()
	return err == nil
}

// open asks for a channel.
func (h *hostile) open(id channel.ID, name string) frame {
	return frame{controlID, request{name: name, id: id, window: 1 << 20}.encode()}
}

// accept is an answer that takes a channel.
func (h *hostile) accept(id channel.ID, window int) frame {
	return frame{controlID, request{name: "x", id: id, answer: true, accepted: true, window: window}.encode()}
}

// received returns what the Socket has sent so far on a channel.
func (h *hostile) received(id channel.ID) [][]byte {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	var bodies [][]byte
	for _, f := range h.got {
		if f.id == id {
			bodies = append(bodies, f.body)
		}
	}
	return bodies
}

// messages returns the protocol messages of a kind that the Socket has sent.
func (h *hostile) messages(kind byte) []message {
	h.t.Helper()
	var ms []message
	for _, body := range h.received(protocolID) {
		r := packed.NewReader(body)
		for r.Len() > 0 {
			m, err := decodeMessage(r)
			if err != nil {
				h.t.Fatalf("the Socket sent % x: %v", body, err)
			}
			if m.kind == kind {
				ms = append(ms, m)
			}
		}
	}
	return ms
}

// requests returns the channel requests and answers that the Socket has sent.
func (h *hostile) requests() []request {
	h.t.Helper()
	var qs []request
	for _, body := range h.received(controlID) {
		r := packed.NewReader(body)
		for r.Len() > 0 {
			q, err := decodeRequest(r)
			if err != nil {
				h.t.Fatalf("the Socket sent % x: %v", body, err)
			}
			qs = append(qs, q)
		}
	}
	return qs
}

// resets returns the codes with which the Socket has reset a channel.
func (h *hostile) resets(id channel.ID) []channel.Code {
	h.t.Helper()
	var codes []channel.Code
	for _, m := range h.messages('x') {
		if m.id == id {
			codes = append(codes, m.code)
		}
	}
	return codes
}

// answerBeacons answers what has been asked, as an honest peer would.
func (h *hostile) answerBeacons() {
	h.t.Helper()
	ms := h.messages('p')
	h.mu.Lock()
	h.got = slices.DeleteFunc(h.got, func(f frame) bool { return f.id == protocolID })
	h.mu.Unlock()
	for _, m := range ms {
		if !m.answer {
			h.send(frame{protocolID, encodeBeacon(m.nonce, true)})
		}
	}
}

// settle answers the beacons with which a link begins.
func (h *hostile) settle() {
	for range firstBeacons - 1 {
		h.answerBeacons()
	}
}

// accepted opens a channel and has the application take it.
func (h *hostile) accepted(id channel.ID) *channel.Socket {
	h.t.Helper()
	h.send(h.open(id, "x"))
	r, err := h.s.Accept(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	sock, err := r.Accept()
	if err != nil {
		h.t.Fatal(err)
	}
	synctest.Wait()
	return sock
}

// alive fails the test unless the link lives and opens channels.
func (h *hostile) alive() {
	h.t.Helper()
	synctest.Wait()
	if err := h.s.Err(); err != nil {
		h.t.Fatalf("the link ended: %v", err)
	}
}

// bodies is one frame cut from many bytes.
func fill(n int) []byte { return make([]byte, n) }
