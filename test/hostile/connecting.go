//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"io"
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

// hold keeps opening connections, of which so many are open at a time, and says on
// each what first returns. They come from all of the hostile's networks.
func hold(ctx context.Context, most int, network, addr string, t *tally, first func() []byte) {
	holdFrom(ctx, networks, most, network, addr, t, first)
}

// holdFrom is hold from so many networks.
func holdFrom(ctx context.Context, networks, most int, network, addr string, t *tally, first func() []byte) {
	h := held{most: most}
	defer h.Close()
	for i := 0; ctx.Err() == nil; i++ {
		var d net.Dialer
		if network == "tcp" {
			d = from(i % networks)
		}
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			_ = rest(ctx)
			continue
		}
		t.tried.Add(1)
		if first != nil {
			_, _ = conn.Write(first())
		}
		h.add(conn)
		if i > most { // all are there: now the honest compete with newcomers, not with the crowd's start
			_ = pause.For(ctx, time.Millisecond)
		}
	}
}

// networks is from how many addresses the hostile come: for the other side each is in a
// network of its own, where it tells those of loopback apart. The honest have another one.
const networks = 16

// from dials from one of the hostile's addresses.
func from(i int) net.Dialer {
	return net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+i%networks), 1)}}
}

func halfOpen(ctx context.Context, w *world, t *tally) {
	hold(ctx, 800, "tcp", w.tcp, t, nil)
}

// halfShaken sends a client's first words and nothing else, or with faults.
func halfShaken(ctx context.Context, w *world, t *tally) {
	words := clientHello()
	r := w.random(1)
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
		_ = tls.Client(a, &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"peerlink/1"}, InsecureSkipVerify: true}).HandshakeContext(context.Background())
	}()
	out := make([]byte, 16<<10)
	n, _ := b.Read(out) // the record is written at once
	return out[:n]
}
