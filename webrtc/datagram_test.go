package webrtc

import (
	"context"
	"errors"
	"testing"
	"time"
)

// getAcross sends p until one comes out at the other end: datagrams may be lost,
// and of the far end's channel there is no news.
func getAcross(t *testing.T, from, to *Conn, p []byte) []byte {
	t.Helper()
	for whole := limit(t, patience); ; {
		if err := from.SendDatagram(p); err != nil && !errors.Is(err, ErrDatagramDropped) {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(whole, 10*time.Millisecond)
		got, err := to.ReceiveDatagram(ctx)
		cancel()
		if err == nil {
			return got
		}
		if !errors.Is(err, context.DeadlineExceeded) || whole.Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestDatagramsBothWays(t *testing.T) {
	x := newExchange()
	c, s := connect(t, x.newDevice(t, "alice"), x.newDevice(t, "bob"))
	a, b := c.(*Conn), s.(*Conn)
	for _, w := range []struct{ from, to *Conn }{{a, b}, {b, a}} {
		if p := getAcross(t, w.from, w.to, make([]byte, MaxDatagram)); len(p) != MaxDatagram {
			t.Errorf("received %d bytes", len(p))
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
	getAcross(t, a, b, p)
	for range 4096 {
		if err := a.SendDatagram(p); err != nil && !errors.Is(err, ErrDatagramDropped) {
			t.Fatal(err)
		}
	}
	talk(t, a, b)
	getAcross(t, a, b, p)
	if n := len(b.datagrams.inc); n > datagramsKept {
		t.Errorf("%d are kept", n)
	}
	a.Close()
	for err := error(nil); err == nil; {
		var p []byte
		if p, err = b.ReceiveDatagram(limit(t, patience)); err == nil && len(p) != MaxDatagram {
			t.Fatalf("a datagram of %d bytes", len(p))
		}
		if err != nil && !errors.Is(err, errLost) {
			t.Errorf("after the end: %v", err)
		}
	}
	if err := a.SendDatagram(p); !errors.Is(err, errLost) {
		t.Errorf("after Close: %v", err)
	}
}
