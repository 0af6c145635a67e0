//go:build linux

package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
)

// sink is somebody who never asked for anything, and counts what comes.
type sink struct {
	ports             []int // of TCP and of UDP
	connects, packets atomic.Int64
	readers           sync.WaitGroup
}

// newSink opens so many ports until ctx ends.
func newSink(ctx context.Context, n int) (*sink, error) {
	s := &sink{}
	for len(s.ports) < n {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		c, err := new(net.ListenConfig).ListenPacket(ctx, "udp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			_ = l.Close() // taken by another process: the next port
			continue
		}
		s.ports = append(s.ports, port)
		context.AfterFunc(ctx, func() { _ = errors.Join(l.Close(), c.Close()) })
		s.readers.Go(func() { s.accept(l) })
		s.readers.Go(func() { s.read(c) })
	}
	return s, nil
}

func (s *sink) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.connects.Add(1)
		_ = c.Close()
	}
}

func (s *sink) read(c net.PacketConn) {
	b := make([]byte, 2<<10)
	for {
		if _, _, err := c.ReadFrom(b); err != nil {
			return
		}
		s.packets.Add(1)
	}
}

// wait returns when nothing is counted any more.
func (s *sink) wait() { s.readers.Wait() }

// offer is a call of a device that is said to be at all these ports.
func (s *sink) offer(r *rand.Rand) []byte {
	var candidates []any
	for _, i := range r.Perm(len(s.ports)) {
		candidates = append(candidates, []any{r.IntN(3), "127.0.0.1", s.ports[i]})
	}
	id, key := random16(), random32()
	return packedMap("k", 1, "i", id[:],
		"tcp", map[string]any{"s": key[:], "c": candidates},
		"udp", map[string]any{"u": "hostile", "p": base64.RawURLEncoding.EncodeToString(key[:]), "c": candidates})
}
