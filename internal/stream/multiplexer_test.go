package stream

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestDeliverTakesNoMoreThanTheWindow(t *testing.T) {
	s, _ := pair(Params{Credit: 1, Window: 10}, 0)
	if _, err := s.Deliver(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Deliver([]byte{1}); !errors.Is(err, ErrFlowControl) {
		t.Errorf("a byte too many: %v", err)
	}
	if n := s.Counts().Unread; n != 10 {
		t.Errorf("%d bytes are buffered", n)
	}
}

// leading is a queue whose Reads receive: lead is what they do.
type leading struct {
	*queue
	s    *Stream
	lead func(*Stream)
}

func (l *leading) Lead() bool {
	l.lead(l.s)
	return true
}

func lead(p Params, f func(*Stream)) *Stream {
	l := &leading{queue: &queue{}, lead: f}
	p.ID, p.URI, p.Link = 7, "test://", l
	l.s = open(p)
	return l.s
}

func TestReadTakesWhatWasPutWhereItWantsIt(t *testing.T) {
	buf := make([]byte, 20)
	s := lead(Params{Credit: 1, Window: 100}, func(s *Stream) {
		for _, text := range []string{"hello", " ", "you"} {
			room := s.Room(len(text))
			if len(room) != len(text) {
				t.Errorf("room for %d bytes of %q", len(room), text)
			}
			copy(room, text)
			if woke, err := s.Deliver(room); err != nil || woke != (text == "hello") {
				t.Errorf("%q: woke %v, %v", text, woke, err)
			}
		}
		if n := len(s.Room(100)); n != 11 {
			t.Errorf("room for %d bytes more, want 11", n)
		}
		_, _ = s.Deliver([]byte(" too, and something more"))
		if n := len(s.Room(100)); n != 0 {
			t.Errorf("room for %d bytes where all is full", n)
		}
	})
	if n := len(s.Room(100)); n != 0 {
		t.Errorf("room for %d bytes where nobody reads", n)
	}
	if n, err := s.Read(buf); n != 20 || err != nil || string(buf) != "hello you too, and s" {
		t.Errorf("read %d, %v, %q", n, err, buf)
	}
	if n := len(s.Room(100)); n != 0 {
		t.Errorf("room for %d bytes after the Read", n)
	}
	if st := s.Counts(); st.BytesReceived != 33 || st.Unread != 13 {
		t.Errorf("%+v", st)
	}
}

// fault: C2, C4
func TestWhatWasPutIntoAReadCountsLikeTheRest(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*Stream) // after Room, before Deliver
		size   int
		want   error // of Deliver
		read   int
		err    error
	}{
		"within the credit":    {func(*Stream) {}, 10, nil, 10, nil},
		"more than the credit": {func(p *Stream) { p.Fail(ErrFlowControl) }, 11, ErrFlowControl, 0, ErrFlowControl},
		"closed meanwhile":     {func(p *Stream) { p.Close() }, 10, nil, 0, net.ErrClosed},
		"reset meanwhile":      {func(p *Stream) { p.Fail(io.ErrNoProgress) }, 10, nil, 0, io.ErrNoProgress},
	} {
		s := lead(Params{Credit: 1, Window: 10}, func(s *Stream) {
			room := s.Room(c.size)
			if len(room) != c.size {
				t.Errorf("%s: room for %d bytes", name, len(room))
			}
			c.before(s)
			if _, err := s.Deliver(room); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
		})
		if n, err := s.Read(make([]byte, 20)); n != c.read || !errors.Is(err, c.err) {
			t.Errorf("%s: read %d, %v", name, n, err)
		}
		if n := s.Counts().Unread; n != 0 {
			t.Errorf("%s: %d bytes are unread", name, n)
		}
	}
}

func TestPeerWithoutCreditIsBoundedByTheLimit(t *testing.T) {
	s, q := pair(Params{Limit: 10}, 1<<30)
	if n, err := s.Write(make([]byte, 1<<20)); n != 1<<20 || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	_, _ = s.Deliver(make([]byte, 10))
	if _, err := s.Deliver([]byte{1}); !errors.Is(err, ErrFlowControl) {
		t.Errorf("past the limit: %v", err)
	}
	_, _ = s.Read(make([]byte, 4))
	if _, err := s.Deliver(make([]byte, 4)); err != nil || len(q.told()) != 0 {
		t.Errorf("what was read makes room: %v, told %v", err, q.told())
	}
	s2, _ := pair(Params{Credit: 5, Window: 100}, 1<<30)
	s2.WithoutCredit(3)
	if n, err := s2.Write(make([]byte, 1000)); n != 1000 || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	if _, err := s2.Deliver(make([]byte, 4)); !errors.Is(err, ErrFlowControl) {
		t.Errorf("past the limit: %v", err)
	}
}

func TestGrantsAreChecked(t *testing.T) {
	s, _ := pair(Params{Credit: 100, Window: 1}, 0)
	for _, n := range []int{0, -1, 1<<31 - 100, 1<<31 - 1} {
		if err := s.Grant(n); !errors.Is(err, ErrFlowControl) {
			t.Errorf("grant of %d: %v", n, err)
		}
	}
	if err := s.Grant(1<<31 - 101); err != nil {
		t.Errorf("up to 2³¹-1: %v", err)
	}
}

func TestPullTakesWhatAWriteCouldNotPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, q := pair(ample, 3)
		done := make(chan error)
		go func() {
			n, err := s.Write([]byte("0123456789"))
			if n != 10 {
				t.Errorf("wrote %d", n)
			}
			done <- err
		}()
		synctest.Wait()
		dst := make([]byte, 4)
		if n, more := s.Pull(dst); !q.waiting || string(dst[:n]) != "3456" || !more {
			t.Errorf("pulled %q, more %v", dst[:n], more)
		}
		if n, more := s.Pull(dst); string(dst[:n]) != "789" || more {
			t.Errorf("pulled %q, more %v", dst[:n], more)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n, more := s.Pull(dst); n != 0 || more {
			t.Errorf("pulled %d of nothing", n)
		}
	})
}

func TestBytesBeforeAnEndAreReadable(t *testing.T) {
	cause := errors.New("the wire is cut")
	for name, c := range map[string]struct {
		end  func(*Stream)
		want error
	}{
		"clean":          {(*Stream).End, io.EOF},
		"fail":           {func(p *Stream) { p.Fail(cause) }, cause},
		"fail after end": {func(p *Stream) { p.End(); p.Fail(cause) }, io.EOF},
		"end after fail": {func(p *Stream) { p.Fail(cause); p.End() }, cause},
	} {
		s, _ := pair(ample, 0)
		_, _ = s.Deliver([]byte("rest"))
		c.end(s)
		_, _ = s.Deliver([]byte("late"))
		buf := make([]byte, 9)
		if n, err := s.Read(buf); string(buf[:n]) != "rest" || err != nil {
			t.Errorf("%s: %q, %v", name, buf[:n], err)
		}
		for range 2 {
			if n, err := s.Read(buf); n != 0 || !errors.Is(err, c.want) || (c.want == io.EOF) != (err == io.EOF) {
				t.Errorf("%s: %d, %v", name, n, err)
			}
		}
	}
}

func TestSharedCountOfUnreadBytesReturnsToZero(t *testing.T) {
	for name, end := range map[string]func(*Stream){
		"read":  func(s *Stream) { _, _ = io.ReadFull(s, make([]byte, 50_000)) },
		"close": func(s *Stream) { _, _ = s.Read(make([]byte, 7)); s.Close() },
		"reset": func(s *Stream) { s.Reset(1) },
	} {
		s, q := pair(ample, 0)
		count := &q.held
		for range 50 {
			_, _ = s.Deliver(make([]byte, 1000))
		}
		if count.Load() != 50_000 {
			t.Errorf("%s: %d bytes are counted", name, count.Load())
		}
		end(s)
		s.Close()
		_, _ = s.Deliver(make([]byte, 10))
		if count.Load() != 0 {
			t.Errorf("%s: %d bytes are still counted", name, count.Load())
		}
	}
}

// case: E1
func TestCleanEndBehindDroppedBytesIsNone(t *testing.T) {
	cause := errors.New("reset")
	for name, c := range map[string]struct {
		held []byte
		want error
	}{"bytes are dropped": {[]byte("hello"), cause}, "nothing is dropped": {nil, io.EOF}} {
		t.Run(name, func(t *testing.T) {
			s, _ := pair(Params{Credit: 1, Window: 10}, 0)
			if _, err := s.Deliver(c.held); err != nil {
				t.Fatal(err)
			}
			s.End()
			s.Drop(cause)
			if n, err := s.Read(make([]byte, 1)); n != 0 || !errors.Is(err, c.want) {
				t.Errorf("read %d, %v, want %v", n, err, c.want)
			}
		})
	}
}

// What is written after credit was given up must not get ahead of the news.
func TestCreditIsGivenUpUnderTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := pair(Params{Credit: 10, Window: 10}, 0)
		time.Sleep(time.Second)
		told := 0
		tell := func(n int) {
			told += n
			if s.mu.TryLock() {
				t.Error("a Write could go between")
				s.mu.Unlock()
			}
		}
		s.Unused(10, time.Second, tell)
		s.Unused(4, 2*time.Second, tell)
		if told != 0 {
			t.Errorf("%d bytes were given up of what is to be kept, or too early", told)
		}
		s.Unused(4, time.Second, tell)
		if told != 6 {
			t.Errorf("%d bytes were given up, want 6", told)
		}
	})
}
