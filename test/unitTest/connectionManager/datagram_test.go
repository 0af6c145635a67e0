package connectionmanager_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"peerlink/channel"
)

func TestS69_UnreliableSendNeverBlocks(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		alice, bob := w.device(t, "alice", nil), w.device(t, "bob", nil)
		incoming := bob.accepting(t, "*")
		a := connect(t, alice, bob, "game://")
		b := await(t, incoming, never)
		if a.MaxDatagram() == 0 {
			unreliableByStream(t, a, b)
		} else {
			unreliableByDatagram(t, alice, bob, a, b)
		}
	})
}

func unreliableByStream(t *testing.T, a, b *channel.Socket) {
	if err := a.SendUnreliable([]byte("move")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if _, err := io.ReadFull(b, buf); err != nil || string(buf) != "move" {
		t.Errorf("%q, %v", buf, err)
	}
	began := time.Now()
	for {
		err := a.SendUnreliable(make([]byte, 1000))
		if errors.Is(err, channel.ErrWouldBlock) && a.Stats().BytesSent > 200_000 {
			return // the reader does not read, and this does not wait for it
		}
		if err != nil && !errors.Is(err, channel.ErrWouldBlock) {
			t.Fatal(err)
		}
		if time.Since(began) > patience {
			t.Fatal("the peer's credit is never used up")
		}
	}
}

func unreliableByDatagram(t *testing.T, alice, bob *device, a, b *channel.Socket) {
	for _, w := range [][2]*channel.Socket{{a, b}, {b, a}} {
		want := pattern(7, w[0].MaxDatagram())
		got := make(chan []byte, 1)
		go func() {
			buf := make([]byte, 2*len(want))
			n, err := w[1].Read(buf)
			if err != nil {
				t.Error(err)
			}
			got <- buf[:n]
		}()
		again := time.NewTicker(5 * time.Millisecond) // one may be lost
		defer again.Stop()
		for received := false; !received; {
			if err := w[0].SendUnreliable(want); err != nil && !errors.Is(err, channel.ErrWouldBlock) {
				t.Fatal(err)
			}
			select {
			case p := <-got:
				if received = true; string(p) != string(want) {
					t.Errorf("a datagram of %d bytes instead of %d", len(p), len(want))
				}
			case <-again.C:
			}
		}
		if err := w[0].SendUnreliable(make([]byte, len(want)+1)); !errors.Is(err, channel.ErrTooLong) {
			t.Errorf("one byte more: %v", err)
		}
	}
	flood := func(n int) { // nobody reads, and this does not wait for it
		for range n {
			if err := a.SendUnreliable(make([]byte, 1000)); err != nil && !errors.Is(err, channel.ErrWouldBlock) {
				t.Fatal(err)
			}
		}
	}
	flood(10_000)
	came := func() uint64 { return bob.Metrics().DatagramsReceived }
	eventually(t, "some have come, and those that were too many are dropped", func() bool {
		flood(100) // the carrier may have dropped most of the others itself
		return came() > 100 && bob.Metrics().DatagramsDropped > 0
	})
	if l := bob.Connections()[0]; came() > alice.Metrics().DatagramsSent || l.Unread > 128<<10 || l.DatagramsReceived == 0 || l.Channels[0].DatagramsDropped == 0 {
		t.Errorf("%d sent; received: %+v", alice.Metrics().DatagramsSent, l)
	}
	if _, err := io.WriteString(a, "the stream goes on"); err != nil {
		t.Error(err)
	}
}
