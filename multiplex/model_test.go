package multiplex

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"peerlink/channel"
)

// half is the model of one direction of a channel: a queue of bytes and how it
// ends. The window is the only bound on what a blocked write has sent.
type half struct {
	queue  []byte // written, not yet read
	ended  bool   // the writer has ended it cleanly
	cut    bool   // reset by the writer's side: reads fail after the queue
	stoped bool   // the reader's side has closed or reset: writes fail
}

// end is the model of one application's end of a channel.
type end struct {
	sock   *channel.Socket
	closed bool
	out    *half // what this end writes
	in     *half // what it reads
}

type model struct {
	t      *rapid.T
	sides  [2]*Socket
	ends   [][2]*end
	number int
	little bool // the windows are less than modelWindow
}

const (
	modelWindow = 64 << 10
	modelIDs    = 5 // of each side: so few that they are used again
)

func (m *model) pick() (*end, *end) {
	if len(m.ends) == 0 {
		m.t.Skip("no channel is open")
	}
	pair := rapid.SampledFrom(m.ends).Draw(m.t, "channel")
	i := rapid.IntRange(0, 1).Draw(m.t, "side")
	return pair[i], pair[1-i]
}

func (m *model) open(t *rapid.T) {
	m.ends = slices.DeleteFunc(m.ends, func(p [2]*end) bool { return p[0].closed && p[1].closed })
	i := rapid.IntRange(0, 1).Draw(t, "opener")
	m.number++
	name := fmt.Sprint("n", m.number)
	early := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "early")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	a, err := m.sides[i].OpenEarly(ctx, name)
	if errors.Is(err, ErrTooMany) && len(m.ends) >= modelIDs {
		t.Skip("no id is free")
	}
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	if n, err := a.Write(early); n != len(early) || err != nil {
		t.Fatalf("early write: %d, %v", n, err)
	}
	r, err := m.sides[1-i].Accept(ctx)
	if err != nil || r.Name() != name {
		t.Fatalf("accept: %v", err)
	}
	if rapid.IntRange(0, 4).Draw(t, "decline") == 0 {
		if err := r.Decline("no"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, ErrDeclined) {
			t.Fatalf("read of a declined channel: %v", err)
		}
		_ = a.Close()
		return
	}
	b, err := r.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ab, ba := &half{queue: early}, &half{}
	m.ends = append(m.ends, [2]*end{{sock: a, out: ab, in: ba}, {sock: b, out: ba, in: ab}})
}

// write sends with a deadline, so that a full window ends it.
func (m *model) write(t *rapid.T) {
	e, _ := m.pick()
	size := rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(0, 3*modelWindow)).Draw(t, "size")
	p := bytes.Repeat([]byte{byte(m.number), byte(size)}, size/2+1)[:size]
	_ = e.sock.SetWriteDeadline(time.Now().Add(time.Second))
	n, err := e.sock.Write(p)
	switch {
	case e.closed, e.out.ended:
		if n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Fatalf("write after the end: %d, %v", n, err)
		}
	case e.out.stoped:
		if _, ok := errors.AsType[*channel.ResetError](err); n != 0 || !ok {
			t.Fatalf("write to who reads no more: %d, %v", n, err)
		}
	case err == nil:
		if n != size {
			t.Fatalf("write of %d: %d without an error", size, n)
		}
	case !errors.Is(err, os.ErrDeadlineExceeded) || n >= size:
		t.Fatalf("write of %d: %d, %v", size, n, err)
	case len(e.out.queue)+n < modelWindow/2 && !m.little:
		t.Fatalf("write of %d stopped at %d, with %d unread", size, n, len(e.out.queue))
	}
	e.out.queue = append(e.out.queue, p[:n]...)
	if len(e.out.queue) > modelWindow {
		t.Fatalf("%d bytes are under way with a window of %d", len(e.out.queue), modelWindow)
	}
}

func (m *model) read(t *rapid.T) {
	e, _ := m.pick()
	buf := make([]byte, rapid.OneOf(rapid.IntRange(1, 40), rapid.IntRange(1, 2*modelWindow)).Draw(t, "size"))
	_ = e.sock.SetReadDeadline(time.Now().Add(time.Second))
	n, err := e.sock.Read(buf)
	if e.closed {
		if n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Fatalf("read after close: %d, %v", n, err)
		}
		return
	}
	if q := e.in.queue; len(q) > 0 {
		if err != nil || n == 0 || n > len(q) || !bytes.Equal(buf[:n], q[:n]) {
			t.Fatalf("read %d of %d: %v", n, len(q), err)
		}
		e.in.queue = q[n:]
		return
	}
	_, reset := errors.AsType[*channel.ResetError](err)
	switch {
	case n != 0:
		t.Fatalf("read %d bytes that nobody wrote", n)
	case e.in.ended && err == io.EOF, !e.in.ended && e.in.cut && reset:
	case !e.in.ended && !e.in.cut && errors.Is(err, os.ErrDeadlineExceeded):
	default:
		t.Fatalf("read of %+v: %v", e.in, err)
	}
}

func (m *model) closeWrite(*rapid.T) {
	e, _ := m.pick()
	_ = e.sock.CloseWrite()
	if !e.closed && !e.out.stoped {
		e.out.ended = true
	}
}

func (m *model) close(*rapid.T) {
	e, _ := m.pick()
	_ = e.sock.Close()
	if e.closed {
		return
	}
	e.closed = true
	if !e.out.stoped {
		e.out.ended = true
	}
	m.stop(e)
}

func (m *model) reset(*rapid.T) {
	e, _ := m.pick()
	_ = e.sock.Reset(300)
	if e.closed {
		return
	}
	e.closed = true
	if !e.out.ended {
		e.out.cut = true
	}
	m.stop(e)
}

// stop is what the peer of a closed end sees, once it has heard: unless it had
// ended, its own direction is over.
func (m *model) stop(e *end) {
	e.in.queue = nil
	if !e.in.ended {
		e.in.stoped = true
	}
}

// check holds after every step.
func (m *model) check(t *rapid.T) {
	time.Sleep(2 * lateness)
	synctest.Wait()
	open := 0
	for _, pair := range m.ends {
		if a, b := pair[0], pair[1]; !over(a.out) || !over(b.out) {
			open++
		}
	}
	for _, s := range m.sides {
		if err := s.Err(); err != nil {
			t.Fatalf("the link ended: %v", err)
		}
		if n := s.Stats().Channels; n != open {
			t.Fatalf("%d channels are in a table, %d in the model", n, open)
		}
	}
	var unread int64
	for _, pair := range m.ends {
		for _, e := range pair {
			if !e.closed {
				unread += int64(len(e.in.queue))
			}
		}
	}
	m.keepPromises(t)
	if got := m.sides[0].Stats().Unread + m.sides[1].Stats().Unread; got != unread {
		t.Fatalf("%d unread bytes are counted, %d in the model", got, unread)
	}
}

// keepPromises holds what a side promises and holds against its bound, and
// against what its channels may hold.
func (m *model) keepPromises(t *rapid.T) {
	for _, s := range m.sides {
		s.mu.Lock()
		promised, early, lent, sum := s.promised, s.early, s.lent, 0
		for _, e := range s.table {
			sum += int(e.promise)
		}
		plain, bound := s.plain.Load(), s.bound()
		s.mu.Unlock()
		unread := s.Stats().Unread
		switch {
		case plain:
		case promised < sum || promised > bound || early < 0 || early > earlyCredit || lent < 0 || lent > earlyCredit:
			t.Fatalf("%d bytes are promised of %d, %d to channels that live; %d came early, %d went", promised, bound, sum, early, lent)
		case unread > int64(promised+early):
			t.Fatalf("%d bytes are unread, %d are promised and %d came early", unread, promised, early)
		}
	}
}

func over(h *half) bool { return h.ended || h.cut || h.stoped }

// TestChannelsFollowTheModel runs random schedules of everything that both
// applications can do, and compares with queues of bytes: over a conn whose
// writes wait, over one that takes at once what it has room for, and over memory.
func TestChannelsFollowTheModel(t *testing.T) {
	for name, conns := range map[string]func() (a, b net.Conn){
		"pipe": net.Pipe,
		"eager": func() (net.Conn, net.Conn) {
			a, b := memPipe(20_000, 0, 0)
			return eagerMemConn{a}, eagerMemConn{b}
		},
		"memory": func() (net.Conn, net.Conn) {
			a, b := memPipe(80_000, 0, 0)
			return staging(a), staging(b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			followTheModel(t, conns, [2]Config{{Window: modelWindow}, {Window: modelWindow}})
		})
	}
	t.Run("with an older peer", func(t *testing.T) {
		followTheModel(t, net.Pipe, [2]Config{{Window: modelWindow}, {Window: modelWindow, plain: true}})
	})
	t.Run("of little memory", func(t *testing.T) {
		little := Config{Window: modelWindow, MaxBuffered: 2 * modelWindow, MaxChannels: 2 * modelIDs}
		followTheModel(t, net.Pipe, [2]Config{little, little})
	})
}

func followTheModel(t *testing.T, conns func() (a, b net.Conn), cfgs [2]Config) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) { // a *testing.T would be asked for its deadline, which a bubble lacks
			a, b := conns()
			m := &model{t: rt, sides: [2]*Socket{Client(a, cfgs[0]), Server(b, cfgs[1])}}
			m.little = cfgs[0].MaxBuffered > 0
			for _, s := range m.sides {
				s.ids.last = s.ids.next + modelIDs - 1
				defer s.Close()
			}
			rt.Repeat(map[string]func(*rapid.T){
				"open": m.open, "write": m.write, "read": m.read,
				"end": m.closeWrite, "close": m.close, "reset": m.reset, "": m.check,
			})
		})
	})
}
