package peerlink_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"peerlink"
	"peerlink/channel"
)

// Row 65.
func TestMessagesArriveWholeAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		accepted := bob.accepted(t, "*")
		a := connect(t, alice, bob, "msg://")
		out, in := peerlink.NewMessages(a), peerlink.NewMessages(<-accepted)
		sizes := []int{0, 1, 5, 16380, 64 << 10, 64<<10 + 1, 300_000, peerlink.MaxMessage}
		for range 2000 {
			sizes = append(sizes, 3)
		}
		go func() {
			for i, n := range sizes {
				if err := out.Send(bytes.Repeat([]byte{byte(i)}, n)); err != nil {
					t.Error(err)
				}
			}
			_ = a.CloseWrite()
		}()
		for i, n := range sizes {
			p, err := in.Receive()
			if err != nil || p == nil || !bytes.Equal(p, bytes.Repeat([]byte{byte(i)}, n)) {
				t.Fatalf("message %d: %d of %d bytes, %v", i, len(p), n, err)
			}
		}
		if _, err := in.Receive(); err != io.EOF {
			t.Errorf("after the last one: %v", err)
		}
		if err := out.Send(make([]byte, peerlink.MaxMessage+1)); !errors.Is(err, peerlink.ErrMessageTooLong) {
			t.Errorf("too long a message: %v", err)
		}
	})
}

// fault: A1
func TestAnnouncedMessageIsNotAllocatedBeforeItComes(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		_, _ = a.Write(binary.BigEndian.AppendUint32(nil, peerlink.MaxMessage))
		_, _ = a.Write(make([]byte, 1000))
		_ = a.Close()
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := peerlink.NewMessages(b).Receive()
	runtime.ReadMemStats(&after)
	if !errors.Is(err, io.ErrUnexpectedEOF) { // fault: A3
		t.Errorf("cut off: %v", err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes allocated for 1000 that came", n)
	}
	c, d := net.Pipe()
	defer c.Close()
	go func() { _, _ = c.Write([]byte{0xff, 0xff, 0xff, 0xff}) }()
	m := peerlink.NewMessages(d)
	for range 2 {
		if _, err := m.Receive(); !errors.Is(err, peerlink.ErrMessageTooLong) {
			t.Errorf("4 GiB announced: %v", err)
		}
	}
}

// fault: C7
func TestMessagesSurviveDeadlines(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	in, out := peerlink.NewMessages(b), peerlink.NewMessages(a)
	whole := append(binary.BigEndian.AppendUint32(nil, 5), "hello"...)
	for _, piece := range [][]byte{whole[:2], whole[2:4], whole[4:7]} {
		go func() { _, _ = a.Write(piece) }()
		_ = b.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if p, err := in.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %q, %v", p, err)
		}
	}
	go func() { _, _ = a.Write(whole[7:]) }()
	_ = b.SetReadDeadline(time.Time{})
	if p, err := in.Receive(); err != nil || string(p) != "hello" {
		t.Errorf("got %q, %v", p, err)
	}
	_ = a.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if err := out.Send([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nobody reads: %v", err)
	}
	_ = a.SetWriteDeadline(time.Time{})
	go func() { _ = out.Send([]byte("y")) }() // nothing of x was sent, so this direction is whole
	if p, err := in.Receive(); err != nil || string(p) != "y" {
		t.Errorf("got %q, %v", p, err)
	}
	go func() { _, _ = b.Read(make([]byte, 4)) }()
	_ = a.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	first := out.Send([]byte("cut"))
	_ = a.SetWriteDeadline(time.Time{})
	if err := out.Send([]byte("more")); first == nil || err != first {
		t.Errorf("after a message that was cut off (%v): %v", first, err)
	}
}

// stream is a connection that is only read.
type stream struct {
	net.Conn
	io.Reader
}

func (s stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func FuzzReceive(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 'h', 'i', 0, 0, 0, 0}, 3)
	f.Add([]byte{1, 0, 0, 1}, 1)
	f.Add([]byte{0, 0}, 2)
	f.Fuzz(func(t *testing.T, data []byte, step int) {
		if step < 1 || step > 1<<16 {
			return
		}
		whole, pieces := peerlink.NewMessages(stream{nil, bytes.NewReader(data)}), peerlink.NewMessages(stream{nil, &stepper{data, step}})
		used := 0
		for {
			p, err := whole.Receive()
			q, err2 := pieces.Receive()
			if !bytes.Equal(p, q) || (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() {
				t.Fatalf("%q, %v; in pieces %q, %v", p, err, q, err2)
			}
			if err != nil {
				if err == io.EOF && used != len(data) {
					t.Fatalf("a clean end after %d of %d bytes", used, len(data))
				}
				return
			}
			used += 4 + len(p)
		}
	})
}

// stepper reads a few bytes at a time.
type stepper struct {
	data []byte
	step int
}

func (s *stepper) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.step)], s.data)
	s.data = s.data[n:]
	return n, nil
}

func FuzzParseLinkID(f *testing.F) {
	for _, s := range []string{"1", "18446744073709551615", "18446744073709551616", "0", "01", "+1", "", "0.1", "-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := peerlink.ParseLinkID(s)
		if err == nil && (id.String() != s || id.IsZero()) {
			t.Errorf("%q became %v", s, id)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	})
}

// Over links without datagrams, as TCP's, borders stay, and nothing waits.
//
// case: E14
func TestMessagesKeepTheirBordersWithoutWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("memory")
		alice, bob := n.newDevice(t, "alice", nil), n.newDevice(t, "bob", nil)
		accepted := bob.accepted(t, "*")
		a := connect(t, alice, bob, "msg://")
		out, in := peerlink.NewMessages(a), peerlink.NewMessages(<-accepted)
		for _, send := range []func([]byte) error{out.SendUnreliable, out.TrySend} {
			for _, p := range []string{"one", "", "three"} {
				if err := send([]byte(p)); err != nil {
					t.Error(err)
				}
			}
			for _, want := range []string{"one", "", "three"} {
				if p, err := in.Receive(); err != nil || string(p) != want {
					t.Errorf("%q, %v, want %q", p, err, want)
				}
			}
		}
		sent := 0
		for ; ; sent++ { // nobody reads
			if err := out.SendUnreliable(make([]byte, 1000)); errors.Is(err, channel.ErrWouldBlock) {
				break
			} else if err != nil || sent > 1e6 {
				t.Fatal(sent, err)
			}
		}
		blocked := make(chan error, 1)
		go func() { blocked <- out.Send(make([]byte, peerlink.MaxMessage)) }()
		synctest.Wait()
		if err := out.TrySend(nil); !errors.Is(err, channel.ErrWouldBlock) {
			t.Errorf("beside a Send that waits: %v", err)
		}
		for i := range sent + 1 {
			p, err := in.Receive()
			if err != nil || len(p) != 1000 && i < sent {
				t.Fatalf("message %d: %d bytes, %v", i, len(p), err)
			}
		}
		if err := <-blocked; err != nil {
			t.Error(err)
		}
		a1, _ := net.Pipe()
		if err := peerlink.NewMessages(a1).TrySend([]byte("x")); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("over a pipe: %v", err)
		}
	})
}

// sink takes all and keeps the last write.
type sink struct {
	net.Conn
	last []byte
}

func (s *sink) Write(p []byte) (int, error) {
	s.last = append(s.last[:0], p...)
	return len(p), nil
}

func TestASmallMessageIsSentWithoutAllocation(t *testing.T) {
	s := new(sink)
	m := peerlink.NewMessages(s)
	p := []byte("a small message")
	if n := testing.AllocsPerRun(100, func() { _ = m.Send(p) }); n > 0 {
		t.Errorf("%v allocations a message", n)
	}
	_ = m.Send(make([]byte, 1<<20))
	if _ = m.Send([]byte("b")); string(s.last) != "\x00\x00\x00\x01b" {
		t.Errorf("%q", s.last)
	}
}

// case: E14
func TestALimitHoldsForWhatIsSentAndReceived(t *testing.T) {
	for limit, longest := range map[int]int{0: peerlink.MaxMessage, 5: 5, 20 << 20: 20 << 20, -1: peerlink.MaxMessage + 1} {
		a, b := net.Pipe()
		out, in := peerlink.NewMessages(a), peerlink.NewMessages(b)
		out.Limit, in.Limit = limit, limit
		go func() { _ = out.Send(make([]byte, longest)) }()
		if p, err := in.Receive(); err != nil || len(p) != longest {
			t.Errorf("limit %d: %d bytes, %v", limit, len(p), err)
		}
		if limit >= 0 {
			for _, send := range []func([]byte) error{out.Send, out.TrySend, out.SendUnreliable} {
				if err := send(make([]byte, longest+1)); !errors.Is(err, peerlink.ErrMessageTooLong) {
					t.Errorf("limit %d: one byte more: %v", limit, err)
				}
			}
			go func() { _, _ = a.Write(binary.BigEndian.AppendUint32(nil, uint32(longest+1))) }()
			if _, err := in.Receive(); !errors.Is(err, peerlink.ErrMessageTooLong) {
				t.Errorf("limit %d: the peer announces one byte more: %v", limit, err)
			}
		}
		_ = a.Close()
	}
}
