package ice

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// datagrammer is what a link's carrier offers for unreliable messages.
type datagrammer interface {
	net.Conn
	SendDatagram(p []byte) error
	ReceiveDatagram(ctx context.Context) ([]byte, error)
	MaxDatagram() int
}

func datagramPair(t testing.TB) (a, b datagrammer) {
	t.Helper()
	x := newExchange()
	ca, cb := connect(t, x.newDevice(t, "a", engines(engineUDP)), x.newDevice(t, "b", engines(engineUDP)))
	return ca.(datagrammer), cb.(datagrammer)
}

// Datagrams go both ways beside the stream, up to the length that is told.
// row 69
func TestDatagramsGoBothWaysBesideTheStream(t *testing.T) {
	a, b := datagramPair(t)
	ctx := limit(t, 10*time.Second)
	for _, w := range []struct{ from, to datagrammer }{{a, b}, {b, a}} {
		p := make([]byte, w.from.MaxDatagram())
		if len(p) != 1100 {
			t.Fatalf("datagrams of at most %d bytes", len(p))
		}
		for i := range p {
			p[i] = byte(i)
		}
		if err := w.from.SendDatagram(p); err != nil {
			t.Fatal(err)
		}
		clear(p) // it is not kept
		got, err := w.to.ReceiveDatagram(ctx)
		if err != nil || len(got) != len(p) || got[1] != 1 || got[1099] != byte(1099%256) {
			t.Errorf("received %d bytes, %v", len(got), err)
		}
		if err := w.from.SendDatagram(make([]byte, len(p)+1)); err == nil {
			t.Error("a datagram past the bound is taken")
		}
		if err := w.from.SendDatagram(nil); err == nil {
			t.Error("an empty datagram is taken")
		}
	}
	if _, err := a.Write([]byte("beside")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 6)
	if _, err := io.ReadFull(b, got); err != nil || string(got) != "beside" {
		t.Errorf("the stream: %q, %v", got, err)
	}
}

// Nobody receives: sending never waits, what is too much is dropped and said to
// be, the stream goes on, and what is received later is whole.
// row 69
func TestDatagramsThatNobodyReceivesAreDropped(t *testing.T) {
	a, b := datagramPair(t)
	const n = 20000
	p := make([]byte, a.MaxDatagram())
	dropped := 0
	for i := range n {
		binary.BigEndian.PutUint32(p, uint32(i))
		switch err := a.SendDatagram(p); {
		case errors.Is(err, ErrDatagramDropped):
			dropped++
		case err != nil:
			t.Fatal(err)
		}
	}
	if _, err := a.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(b, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if dropped == 0 {
		t.Error("20000 datagrams found room")
	}
	last := -1
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		got, err := b.ReceiveDatagram(ctx)
		cancel()
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			break
		}
		if i := int(binary.BigEndian.Uint32(got)); len(got) != len(p) || i <= last && i+1 != last {
			t.Logf("%d after %d", i, last) // order is not promised
		} else {
			last = i
		}
	}
	if last < 0 {
		t.Error("none arrived")
	}
}

// A receiver that waits is woken by the end of either side, and sending fails.
// fault: C3, C4
func TestTheEndOfAStreamEndsItsDatagrams(t *testing.T) {
	for _, own := range []bool{true, false} {
		a, b := datagramPair(t)
		errc := make(chan error, 1)
		go func() {
			_, err := a.ReceiveDatagram(context.Background())
			errc <- err
		}()
		if own {
			a.Close()
		} else {
			b.Close()
			if _, err := io.Copy(io.Discard, a); err != nil {
				t.Error(err)
			}
			a.Close()
		}
		if err := <-errc; err == nil {
			t.Errorf("own %v: a datagram was received", own)
		}
		if err := a.SendDatagram([]byte{1}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("own %v: send after the end: %v", own, err)
		}
		if _, err := a.ReceiveDatagram(context.Background()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("own %v: receive after the end: %v", own, err)
		}
	}
}

// A peer without datagrams, as an earlier version, is told apart by a maximum of
// 0, and nothing is sent to it.
func TestAPeerWithoutDatagrams(t *testing.T) {
	a, _ := datagramPair(t)
	c := &quicConn{t: a.(*quicConn).t, conn: a.(*quicConn).conn}
	c.datagrams.life, c.datagrams.end = context.WithCancel(context.Background())
	defer c.datagrams.end()
	if c.MaxDatagram() != 0 {
		t.Error("datagrams are promised")
	}
	if err := c.SendDatagram([]byte{1}); !errors.Is(err, ErrDatagramDropped) {
		t.Errorf("sent: %v", err)
	}
}

// The socket keeps what quic-go sends and reads many packets at once with.
func TestQUICHasTheBareSocket(t *testing.T) {
	x := newExchange()
	d := x.newDevice(t, "a", engines(engineUDP))
	if _, ok := d.engines[0].(*udpEngine).base.quic.Conn.(quic.OOBCapablePacketConn); !ok {
		t.Error("the socket is wrapped: quic-go would send packets one by one")
	}
}
