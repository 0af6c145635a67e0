//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"peerlink/internal/pause"
)

// connecting are attacks of parties that have proven nothing, at the port for direct
// connections.
var connecting = []attack{
	{name: "half-open TCP connections", do: halfOpen},
	{name: "TLS handshakes that stop, or go wrong", do: halfShaken},
}

// rest is how long a party pauses that was refused.
func rest(ctx context.Context) error { return pause.For(ctx, 20*time.Millisecond) }

// held keeps connections open, and closes the oldest beyond so many.
type held struct {
	most  int
	conns []io.Closer
}

func (h *held) add(c io.Closer) {
	if h.conns = append(h.conns, c); len(h.conns) > h.most {
		_ = h.conns[0].Close()
		h.conns = h.conns[1:]
	}
}

func (h *held) Close() {
	for _, c := range h.conns {
		_ = c.Close()
	}
}

// hold keeps opening connections, of which so many are open at a time.
func hold(ctx context.Context, most int, network, addr string, t *tally, first func() []byte) {
	h := held{most: most}
	defer h.Close()
	for ctx.Err() == nil {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			_ = rest(ctx)
			continue
		}
		t.tried.Add(1)
		if first != nil {
			_, _ = conn.Write(first())
		}
		h.add(conn)
		_ = pause.For(ctx, time.Millisecond)
	}
}

func halfOpen(ctx context.Context, w *world, t *tally) {
	hold(ctx, 800, "tcp", w.tcp, t, nil)
}

// halfShaken sends a client's first words and nothing else, or with faults.
func halfShaken(ctx context.Context, w *world, t *tally) {
	words := clientHello()
	r := rand.New(rand.NewPCG(w.seed, 1)) //nolint:gosec // the seed is printed, so that a run can be repeated
	hold(ctx, 800, "tcp", w.tcp, t, func() []byte {
		b := append([]byte(nil), words...)
		switch r.IntN(4) {
		case 0:
			return b[:r.IntN(len(b))]
		case 1:
			b[r.IntN(len(b))] ^= byte(1 + r.IntN(255))
		case 2:
			return append(b, make([]byte, 32<<10)...)
		}
		return b
	})
}

// clientHello is what an honest client says first.
func clientHello() []byte {
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		defer a.Close()
		_ = tls.Client(a, &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"peerlink/1"}, InsecureSkipVerify: true}).Handshake() //nolint:gosec // it goes nowhere
	}()
	out := make([]byte, 16<<10)
	n, _ := b.Read(out) // the record is written at once
	return out[:n]
}
