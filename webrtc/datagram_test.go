package webrtc

import (
	"context"
	"errors"
	"testing"
	"time"
)

// sendFirst sends until the channel is open.
func sendFirst(t *testing.T, c *Conn, p []byte) {
	t.Helper()
	ctx := limit(t, 10*time.Second)
	for {
		err := c.SendDatagram(p)
		if err == nil {
			return
		}
		if !errors.Is(err, ErrDatagramDropped) || ctx.Err() != nil {
			t.Fatal(err)
		}
		wait(ctx, time.Millisecond) // for the peer's side, of which there is no news
	}
}

func TestDatagramsBothWays(t *testing.T) {
	x := newExchange()
	c, s := connect(t, x.newDevice(t, "alice"), x.newDevice(t, "bob"))
	a, b := c.(*Conn), s.(*Conn)
	for _, w := range []struct{ from, to *Conn }{{a, b}, {b, a}} {
		sendFirst(t, w.from, make([]byte, MaxDatagram))
		p, err := w.to.ReceiveDatagram(limit(t, 10*time.Second))
		if err != nil || len(p) != MaxDatagram {
			t.Errorf("received %d bytes, %v", len(p), err)
		}
	}
	if err := a.SendDatagram(make([]byte, MaxDatagram+1)); err == nil {
		t.Error("a datagram past the bound is taken")
	}
	talk(t, a, b) // the stream is beside it
}

// Nobody receives: datagrams are dropped, nothing grows or blocks, the stream
// goes on, and what is received afterwards are whole datagrams.
func TestDatagramsAreDropped(t *testing.T) {
	x := newExchange()
	c, s := connect(t, x.newDevice(t, "alice"), x.newDevice(t, "bob"))
	a, b := c.(*Conn), s.(*Conn)
	p := make([]byte, MaxDatagram)
	sendFirst(t, a, p)
	dropped := 0
	for i := range 4096 {
		p[0], p[1] = byte(i>>8), byte(i)
		if err := a.SendDatagram(p); errors.Is(err, ErrDatagramDropped) {
			dropped++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	talk(t, a, b)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	n := 0
	for {
		p, err := b.ReceiveDatagram(ctx)
		if err != nil {
			break
		}
		if n++; len(p) != MaxDatagram {
			t.Fatalf("a datagram of %d bytes", len(p))
		}
	}
	if n == 0 || n+dropped > 4097 {
		t.Errorf("received %d, %d were dropped before", n, dropped)
	}
	a.Close()
	if _, err := b.ReceiveDatagram(limit(t, 10*time.Second)); !errors.Is(err, errLost) {
		t.Errorf("after the end: %v", err)
	}
	if err := a.SendDatagram(p); !errors.Is(err, errLost) {
		t.Errorf("after Close: %v", err)
	}
}
