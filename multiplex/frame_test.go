package multiplex

import (
	"bytes"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"peerlink/channel"
)

func TestWritesAreCutIntoFramesOfOneRecord(t *testing.T) {
	for _, c := range []struct {
		n    int
		want []int
	}{{0, nil}, {1, []int{1}}, {cutBody, []int{cutBody}}, {cutBody + 1, []int{cutBody, 1}}, {65536, []int{cutBody, cutBody, cutBody, cutBody, 16}}} {
		var got []int
		for b := frameSize(cutBody).appendFrames(nil, 7, fill(c.n)); len(b) > 0; {
			id, n := parseHeader(b)
			if id != 7 {
				t.Fatalf("channel %d", id)
			}
			got = append(got, n)
			b = b[headerLen+n:]
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%d bytes are cut into %v", c.n, got)
		}
	}
}

// cut is a conn that yields given bytes in given pieces, takes all that is
// written, and says when it is closed.
type cut struct {
	net.Conn
	in     []byte
	pieces []byte // sizes, in turns
	i      int
	closed chan struct{}
	once   sync.Once
}

func (c *cut) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	k := len(c.in)
	if len(c.pieces) > 0 {
		k = min(k, int(c.pieces[c.i%len(c.pieces)])+1)
		c.i++
	}
	k = copy(p, c.in[:min(k, len(p))])
	c.in = c.in[k:]
	return k, nil
}

func (c *cut) Write(p []byte) (int, error)     { return len(p), nil }
func (c *cut) Close() error                    { c.once.Do(func() { close(c.closed) }); return nil }
func (c *cut) SetReadDeadline(time.Time) error { return nil }
func (c *cut) LocalAddr() net.Addr             { return addr{} }
func (c *cut) RemoteAddr() net.Addr            { return addr{} }

type addr struct{}

func (addr) Network() string { return "cut" }
func (addr) String() string  { return "cut" }

// outcome is what can be seen of a link that was fed with bytes.
type outcome struct {
	err      string
	channels map[channel.ID]string // what was readable, and how it ended
	frames   uint64
}

// feed runs a Socket on bytes that came in pieces.
func feed(t *testing.T, in, pieces []byte) outcome {
	t.Helper()
	s := Server(&cut{in: in, pieces: pieces, closed: make(chan struct{})}, Config{BeaconInterval: -1, CloseTimeout: time.Nanosecond})
	<-s.readerDone
	out := outcome{err: s.Err().Error(), channels: map[channel.ID]string{}, frames: s.stats.framesIn.Load()}
	for len(s.requests) > 0 {
		sock := (<-s.requests).e.socket()
		b, err := io.ReadAll(sock)
		end := "end"
		if err != nil {
			end = err.Error()
		}
		out.channels[sock.ID()] += string(b) + "|" + end
	}
	_ = s.Close()
	return out
}

// Whatever a peer sends, and in whatever pieces, the outcome is the same.
// fault: A3, A4, A5
func FuzzFrames(f *testing.F) {
	b, _ := honestStream()
	f.Add(b, []byte{0})
	f.Add(b, []byte{3, 200, 1})
	f.Add(b[:len(b)-2], []byte{7})
	for _, v := range vectors(f) {
		f.Add(append(bytes.Clone(b[:11]), v.wire(f)...), []byte{1})
	}
	f.Fuzz(func(t *testing.T, in, pieces []byte) {
		whole, split := feed(t, in, nil), feed(t, in, pieces)
		if whole.err != split.err || whole.frames != split.frames || len(whole.channels) != len(split.channels) {
			t.Fatalf("in one piece %+v, in pieces %+v", whole, split)
		}
		for id, want := range whole.channels {
			if got := split.channels[id]; got != want {
				t.Fatalf("channel %d: in one piece %q, in pieces %q", id, want, got)
			}
		}
	})
}
