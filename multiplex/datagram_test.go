package multiplex

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/channel"
)

// packetConn is a memConn that carries datagrams, too. Its Close does not wake
// ReceiveDatagram.
type packetConn struct {
	*memConn
	in, out chan []byte
	most    int
}

var errFull = errors.New("full")

func (c *packetConn) SendDatagram(p []byte) error {
	select {
	case c.out <- append([]byte(nil), p...):
		return nil
	default:
		return errFull
	}
}

func (c *packetConn) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	select {
	case p := <-c.in:
		return p, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *packetConn) MaxDatagram() int { return c.most }

// unsaid is a conn that does not say how long datagrams may be.
type unsaid struct{ datagramConn }

// packetPipe connects two sides by conns with datagrams.
func packetPipe(t *testing.T, most int, wrap func(net.Conn) net.Conn, cfgs ...Config) (client, server *Socket, ends [2]*packetConn) {
	t.Helper()
	a, b := memPipe(1<<20, 0, 0)
	x, y := make(chan []byte, 256), make(chan []byte, 256)
	ends = [2]*packetConn{{a, x, y, most}, {b, y, x, most}}
	cfgs = append(cfgs, Config{}, Config{})
	client, server = Client(wrap(ends[0]), cfgs[0]), Server(wrap(ends[1]), cfgs[1])
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	for _, s := range []*Socket{client, server} {
		if err := s.Ready(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	return client, server, ends
}

func asItIs(c net.Conn) net.Conn { return c }

func TestDatagramsGoBesideTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _ := packetPipe(t, 100, asItIs)
		a, b := between(t, client, server, "game")
		other, far := between(t, client, server, "other")
		for _, w := range [][2]*channel.Socket{{a, b}, {b, a}, {other, far}} {
			if n := w[0].MaxDatagram(); n != 98 {
				t.Errorf("at most %d bytes", n)
			}
			want := strings.Repeat("x", 98)
			if err := w[0].SendUnreliable([]byte(want)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 200)
			if n, err := w[1].Read(buf); err != nil || string(buf[:n]) != want {
				t.Errorf("%q, %v", buf[:n], err)
			}
			if err := w[0].SendUnreliable(make([]byte, 99)); !errors.Is(err, channel.ErrTooLong) {
				t.Errorf("99 bytes: %v", err)
			}
		}
		for i := range 1000 { // nobody reads: never blocks, never grows
			if err := a.SendUnreliable([]byte{byte(i)}); err != nil && !errors.Is(err, channel.ErrWouldBlock) {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := server.Stats().Unread; n > 64 {
			t.Errorf("%d bytes are unread", n)
		}
		if _, err := io.WriteString(other, "stream"); err != nil {
			t.Fatal(err)
		}
		if n, err := far.Read(make([]byte, 100)); n != 6 || err != nil {
			t.Errorf("the stream beside: %d bytes, %v", n, err)
		}
		st, theirs := client.Stats(), server.Stats()
		if st.DatagramsSent+st.WouldBlocks != 1002 || theirs.DatagramsReceived != st.DatagramsSent || theirs.DatagramsDropped != st.DatagramsSent-2-64 {
			t.Errorf("sent: %+v\nreceived: %+v", st, theirs)
		}
	})
}

func TestCarrierThatDoesNotSayGetsShortDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _ := packetPipe(t, 9000, func(c net.Conn) net.Conn { return unsaid{c.(datagramConn)} })
		a, _ := between(t, client, server, "x")
		if n := a.MaxDatagram(); n != safeDatagram-datagramHeader {
			t.Errorf("at most %d", n)
		}
	})
}

// Datagrams are used if both sides know them, and else the stream is.
func TestUnreliableFallsBackToTheStream(t *testing.T) {
	plain := func(c net.Conn) net.Conn { return struct{ net.Conn }{c} }
	for name, far := range map[string]func(net.Conn) net.Conn{"the peer does not know them": plain, "the carrier has none now": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				most := 100
				if far == nil {
					far, most = asItIs, 0
				}
				n := 0
				client, server, _ := packetPipe(t, most, func(c net.Conn) net.Conn {
					if n++; n == 2 {
						return far(c)
					}
					return c
				})
				a, b := between(t, client, server, "x")
				for _, w := range [][2]*channel.Socket{{a, b}, {b, a}} {
					if n := w[0].MaxDatagram(); n != 0 {
						t.Errorf("at most %d", n)
					}
					synctest.Wait() // the stream takes no message that would wait behind another
					if err := w[0].SendUnreliable(make([]byte, 1000)); err != nil {
						t.Fatal(err)
					}
					if n, err := io.ReadFull(w[1], make([]byte, 1000)); err != nil {
						t.Errorf("%d bytes, %v", n, err)
					}
				}
				if st := client.Stats(); st.DatagramsSent+st.DatagramsReceived != 0 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// fault: A8
// fault: C2
func TestHostileDatagramsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, ends := packetPipe(t, 1<<20, asItIs, Config{}, Config{Window: 64 << 10, MaxBuffered: 64 << 10})
		a, b := between(t, client, server, "x")
		to := func(id channel.ID, n int) []byte {
			return append(binary.BigEndian.AppendUint16(nil, uint16(id)), make([]byte, n)...)
		}
		hostile := [][]byte{nil, {}, {0}, {0, 1}, to(0, 5), to(0xffff, 5), to(0x7fff, 5), to(0x8000, 5), to(a.ID(), 65<<10)}
		for _, p := range hostile {
			ends[0].out <- p
		}
		synctest.Wait()
		if st := server.Stats(); st.DatagramsDropped != uint64(len(hostile)) || st.DatagramsReceived != 0 || st.Unread != 0 {
			t.Errorf("%+v", st)
		}
		for range 100 { // more than may be unread: the rest is dropped, no channel is reset for it
			ends[0].out <- to(a.ID(), 1<<10)
		}
		synctest.Wait()
		if st := server.Stats(); st.Unread > 64<<10 {
			t.Errorf("%+v", st)
		}
		if err := server.Err(); err != nil {
			t.Fatal(err)
		}
		_ = b.Close()
		synctest.Wait()
		ends[0].out <- to(a.ID(), 10) // its channel has ended
		synctest.Wait()
		if st := server.Stats(); st.Unread != 0 {
			t.Errorf("%d bytes held for a channel that has ended", st.Unread)
		}
		between(t, client, server, "alive")
	})
}

// The receiver ends with the link, even where the carrier's Close does not wake it.
//
// fault: C10
func TestDatagramReceiverEndsWithTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _ := packetPipe(t, 100, asItIs)
		began := time.Now()
		_ = client.Close()
		_ = server.Close()
		if d := time.Since(began); d > time.Second {
			t.Errorf("it took %v", d)
		}
	})
}
