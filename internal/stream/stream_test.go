package stream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// queue is a Link that keeps what it is given: room bytes of data, and all notices.
type queue struct {
	mu      sync.Mutex
	room    int
	data    []byte
	waiting bool // the port wants to be pulled
	notices []Notice
	held    atomic.Int64 // unread bytes
}

func (q *queue) Push(p []byte) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(q.room, len(p))
	q.data = append(q.data, p[:n]...)
	q.room -= n
	q.waiting = n < len(p)
	return n
}

func (q *queue) TryPush(p []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(p) > q.room {
		return false
	}
	q.data = append(q.data, p...)
	q.room -= len(p)
	return true
}

func (q *queue) Flush() {}

func (q *queue) Took(int) (frames int) { return 1 }

func (q *queue) Note(Event) {}

func (q *queue) MaxDatagram() int { return 0 }

func (q *queue) SendDatagram([]byte) error { return nil }

func (q *queue) Lead() bool { return false }

func (q *queue) Interrupt() {}

func (q *queue) Expect(int) {}

func (q *queue) Hold(n int) { q.held.Add(int64(n)) }

func (q *queue) Widen(Pace) (more, repaid int) { return 0, 0 }

func (q *queue) Loose(n int) bool {
	q.Hold(n)
	return true
}

func (q *queue) Shrink(int) {}

func (q *queue) MaxPush() int { return 1 << 20 }

func (q *queue) Room(n int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return n <= q.room
}

func (q *queue) Overdraw(int, uint64) bool { return false }

func (q *queue) Advance(int) int { return 0 }

func (q *queue) Addrs() (local, remote net.Addr) { return nil, nil }

func (q *queue) Tell(n Notice) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.notices = append(q.notices, n)
}

func (q *queue) told() []Notice {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.notices)
}

func open(p Params) *Stream {
	s := new(Stream)
	s.Open(p)
	return s
}

// pair makes a channel on a queue.
func pair(p Params, room int) (*Stream, *queue) {
	q := &queue{room: room}
	p.ID, p.URI, p.Link = 7, "test://", q
	s := open(p)
	return s, q
}

var ample = Params{Credit: 1 << 20, Window: 1 << 20}

// fault: C2

// fault: C11

func TestCreditIsGrantedByHalfWindows(t *testing.T) {
	s, q := pair(Params{Credit: 1, Window: 100}, 0)
	_, _ = s.Deliver(make([]byte, 100))
	for range 49 {
		_, _ = s.Read(make([]byte, 1))
	}
	if n := q.told(); len(n) != 0 {
		t.Errorf("told %v after 49 bytes of 100", n)
	}
	_, _ = s.Read(make([]byte, 1))
	if n := q.told(); len(n) != 1 || n[0] != (Notice{Kind: Granted, N: 50}) {
		t.Errorf("told %v", n)
	}
	if _, err := s.Deliver(make([]byte, 50)); err != nil {
		t.Errorf("what was granted: %v", err)
	}
	if _, err := s.Deliver(make([]byte, 1)); !errors.Is(err, ErrFlowControl) {
		t.Errorf("and a byte more: %v", err)
	}
	s.End() // no credit for who sends no more
	_, _ = io.ReadFull(s, make([]byte, 100))
	if n := q.told(); len(n) != 1 {
		t.Errorf("told %v", n)
	}
}

// fault: A6

func TestWriteWaitsForCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, q := pair(Params{Credit: 10, Window: 1}, 1<<20)
		done := make(chan int)
		go func() {
			n, err := s.Write(make([]byte, 30))
			if err != nil {
				t.Error(err)
			}
			done <- n
		}()
		for want := 10; want < 30; want += 10 {
			synctest.Wait()
			if len(q.data) != want {
				t.Errorf("%d bytes were sent", len(q.data))
			}
			_ = s.Grant(10)
		}
		if n := <-done; n != 30 || s.Counts().Stalls != 2 {
			t.Errorf("%d bytes, %+v", n, s.Counts())
		}
	})
}

// fault: A10

func TestAbortedWriteTellsExactlyWhatWasTaken(t *testing.T) {
	for name, abort := range map[string]func(*Stream) error{
		"deadline": func(s *Stream) error {
			_ = s.SetWriteDeadline(time.Now().Add(time.Second))
			return os.ErrDeadlineExceeded
		},
		"past":        func(s *Stream) error { _ = s.SetWriteDeadline(time.Unix(1, 0)); return os.ErrDeadlineExceeded },
		"close":       func(s *Stream) error { s.Close(); return net.ErrClosed },
		"close write": func(s *Stream) error { s.CloseWrite(); return net.ErrClosed },
		"reset":       func(s *Stream) error { s.Reset(256); return net.ErrClosed },
		"stop":        func(s *Stream) error { s.Stop(io.ErrNoProgress); return io.ErrNoProgress },
		"fail":        func(s *Stream) error { s.Fail(io.ErrNoProgress); return io.ErrNoProgress },
	} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := pair(ample, 3)
			done := make(chan int)
			var err error
			go func() {
				var n int
				n, err = s.Write([]byte("0123456789"))
				done <- n
			}()
			synctest.Wait()
			_, _ = s.Pull(make([]byte, 4))
			want := abort(s)
			if want != os.ErrDeadlineExceeded { // an end may be queued now, before the Write has noticed
				if n, more := s.Pull(make([]byte, 4)); n != 0 || more {
					t.Errorf("%s: %d bytes were pulled behind it", name, n)
				}
			}
			n := <-done
			if n != 7 || err != want {
				t.Errorf("%s: wrote %d, %v", name, n, err)
			}
			if n, more := s.Pull(make([]byte, 4)); n != 0 || more {
				t.Errorf("%s: %d bytes were pulled afterwards", name, n)
			}
		})
	}
}

// fault: C7

// Scenario 17.

// fault: C3, C5

func TestNoticesAreSaidOnce(t *testing.T) {
	ended, closed := Notice{Kind: Ended}, Notice{Kind: Stopped, Code: 0}
	user := Notice{Kind: Stopped, Code: 256}
	for name, c := range map[string]struct {
		do   func(*Stream)
		want []Notice
	}{
		"close":             {func(s *Stream) { s.Close(); s.Close() }, []Notice{ended, closed}},
		"end twice":         {func(s *Stream) { s.CloseWrite(); s.CloseWrite() }, []Notice{ended}},
		"end, close":        {func(s *Stream) { s.CloseWrite(); s.Close() }, []Notice{ended, closed}},
		"both ended, close": {func(s *Stream) { s.CloseWrite(); s.End(); s.Close() }, []Notice{ended}},
		"peer ended, close": {func(s *Stream) { s.End(); s.Close() }, []Notice{ended}},
		"reset":             {func(s *Stream) { s.Reset(256); s.Reset(1); s.Close() }, []Notice{user}},
		"close, reset":      {func(s *Stream) { s.Close(); s.Reset(256) }, []Notice{ended, closed}},
		"peer ended, reset": {func(s *Stream) { s.End(); s.Reset(256) }, []Notice{user}},
		"failed, all": {func(s *Stream) {
			s.Fail(io.ErrNoProgress)
			s.CloseWrite()
			s.Reset(1)
			s.Close()
		}, nil},
		"peer stopped, close": {func(s *Stream) { s.Stop(io.ErrNoProgress); s.Close() }, []Notice{closed}},
		"read after it closed": {func(s *Stream) {
			_, _ = s.Deliver(make([]byte, 1<<20))
			s.Close()
			_, _ = s.Read(make([]byte, 1<<20))
		}, []Notice{ended, closed}},
	} {
		s, q := pair(ample, 0)
		c.do(s)
		if got := q.told(); !slices.Equal(got, c.want) {
			t.Errorf("%s: told %v, want %v", name, got, c.want)
		}
	}
}

// fault: C4

func TestClosedSocketSaysSo(t *testing.T) {
	s, _ := pair(ample, 100)
	_, _ = s.Deliver([]byte("unread"))
	s.Close()
	_, rerr := s.Read(make([]byte, 1))
	_, werr := s.Write([]byte("x"))
	for what, err := range map[string]error{"read": rerr, "write": werr, "send": s.TrySend([]byte("x")), "unreliable": s.SendUnreliable([]byte("x")), "deadline": s.SetReadDeadline(time.Time{}), "write deadline": s.SetWriteDeadline(time.Time{})} {
		if err != net.ErrClosed {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.Close()
	s.CloseWrite()
	s.Reset(1)
	if st := s.Counts(); st.Unread != 0 || st.BytesReceived != 6 || st.LastActivity.IsZero() {
		t.Errorf("%+v", st)
	}
}

// No wake-up is lost among several readers: one byte at a time, each delivered

// while all of them wait.

func TestEveryByteFindsOneOfManyReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := pair(ample, 0)
		got := make(chan byte, 1000)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				buf := make([]byte, 1+i%2)
				for {
					n, err := s.Read(buf)
					for _, b := range buf[:n] {
						got <- b
					}
					if err == io.EOF {
						return
					}
				}
			})
		}
		var want, all []byte
		for i := range 256 {
			p := bytes.Repeat([]byte{byte(i)}, 1+i%3)
			want = append(want, p...)
			_, _ = s.Deliver(p)
			synctest.Wait()
			if n := s.Counts().Unread; n != 0 {
				t.Fatalf("%d bytes wait although readers do", n)
			}
		}
		s.End()
		wg.Wait()
		close(got)
		for b := range got {
			all = append(all, b)
		}
		slices.Sort(all)
		if !bytes.Equal(all, want) {
			t.Errorf("%d bytes were read, %d sent", len(all), len(want))
		}
	})
}

func TestWritersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, q := pair(Params{Credit: 1, Window: 1}, 1<<20)
		var wg sync.WaitGroup
		for i := range byte(5) {
			wg.Go(func() {
				if n, err := s.Write(bytes.Repeat([]byte{i}, 10)); n != 10 || err != nil {
					t.Error(n, err)
				}
			})
		}
		for range 49 {
			synctest.Wait()
			if err := s.TrySend([]byte("x")); !errors.Is(err, ErrWouldBlock) {
				t.Errorf("TrySend amid a Write: %v", err)
			}
			_ = s.Grant(1)
		}
		wg.Wait()
		for i := 0; i < 50; i += 10 {
			if p := q.data[i : i+10]; !bytes.Equal(p, bytes.Repeat(p[:1], 10)) {
				t.Errorf("mixed: %v", p)
			}
		}
	})
}

// Scenario 64 at this layer.

func TestTrySendNeedsCreditAndRoom(t *testing.T) {
	s, q := pair(Params{Credit: 5, Window: 1}, 7)
	for _, c := range []struct {
		n  int
		ok bool
	}{{6, false}, {5, true}, {1, false}} {
		if err := s.TrySend(make([]byte, c.n)); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrWouldBlock) {
			t.Errorf("%d bytes: %v", c.n, err)
		}
	}
	_ = s.Grant(100)
	if err := s.TrySend(make([]byte, 3)); !errors.Is(err, ErrWouldBlock) || len(q.data) != 5 {
		t.Errorf("no room for 3: %v, %d bytes were sent", err, len(q.data))
	}
	if err := s.TrySend(make([]byte, 2)); err != nil {
		t.Error(err)
	}
	if err := s.TrySend(nil); err != nil {
		t.Errorf("nothing: %v", err)
	}
	_ = s.SetWriteDeadline(time.Unix(1, 0))
	if err := s.TrySend([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("past the deadline: %v", err)
	}
}

// Bytes that one reader leaves wake the next one.
func TestWhatOneReaderLeavesWakesAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := pair(ample, 0)
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if n, err := s.Read(make([]byte, 1)); n != 1 || err != nil {
					t.Error(n, err)
				}
			})
		}
		synctest.Wait()
		_, _ = s.Deliver(make([]byte, 5))
		wg.Wait()
	})
}
