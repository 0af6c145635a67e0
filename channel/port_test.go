package channel

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
)

func TestDeliverTakesNoMoreThanTheWindow(t *testing.T) {
	s, port, _ := pair(Params{Credit: 1, Window: 10}, 0)
	if _, err := port.Deliver(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := port.Deliver([]byte{1}); !errors.Is(err, ErrFlowControl) {
		t.Errorf("a byte too many: %v", err)
	}
	if n := s.Stats().Unread; n != 10 {
		t.Errorf("%d bytes are buffered", n)
	}
}

func TestPeerWithoutCreditIsBoundedByTheLimit(t *testing.T) {
	s, port, q := pair(Params{Limit: 10}, 1<<30)
	if n, err := s.Write(make([]byte, 1<<20)); n != 1<<20 || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	_, _ = port.Deliver(make([]byte, 10))
	if _, err := port.Deliver([]byte{1}); !errors.Is(err, ErrFlowControl) {
		t.Errorf("past the limit: %v", err)
	}
	_, _ = s.Read(make([]byte, 4))
	if _, err := port.Deliver(make([]byte, 4)); err != nil || len(q.told()) != 0 {
		t.Errorf("what was read makes room: %v, told %v", err, q.told())
	}
	s2, port2, _ := pair(Params{Credit: 5, Window: 100}, 1<<30)
	port2.WithoutCredit(3)
	if n, err := s2.Write(make([]byte, 1000)); n != 1000 || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	if _, err := port2.Deliver(make([]byte, 4)); !errors.Is(err, ErrFlowControl) {
		t.Errorf("past the limit: %v", err)
	}
}

func TestGrantsAreChecked(t *testing.T) {
	_, port, _ := pair(Params{Credit: 100, Window: 1}, 0)
	for _, n := range []int{0, -1, 1<<31 - 100, 1<<31 - 1} {
		if err := port.Grant(n); !errors.Is(err, ErrFlowControl) {
			t.Errorf("grant of %d: %v", n, err)
		}
	}
	if err := port.Grant(1<<31 - 101); err != nil {
		t.Errorf("up to 2³¹-1: %v", err)
	}
}

func TestPullTakesWhatAWriteCouldNotPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, port, q := pair(ample, 3)
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
		if n, more := port.Pull(dst); !q.waiting || string(dst[:n]) != "3456" || !more {
			t.Errorf("pulled %q, more %v", dst[:n], more)
		}
		if n, more := port.Pull(dst); string(dst[:n]) != "789" || more {
			t.Errorf("pulled %q, more %v", dst[:n], more)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n, more := port.Pull(dst); n != 0 || more {
			t.Errorf("pulled %d of nothing", n)
		}
	})
}

func TestBytesBeforeAnEndAreReadable(t *testing.T) {
	cause := errors.New("the wire is cut")
	for name, c := range map[string]struct {
		end  func(*Port)
		want error
	}{
		"clean":          {(*Port).End, io.EOF},
		"fail":           {func(p *Port) { p.Fail(cause) }, cause},
		"fail after end": {func(p *Port) { p.End(); p.Fail(cause) }, io.EOF},
		"end after fail": {func(p *Port) { p.Fail(cause); p.End() }, cause},
	} {
		s, port, _ := pair(ample, 0)
		_, _ = port.Deliver([]byte("rest"))
		c.end(port)
		_, _ = port.Deliver([]byte("late"))
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
	for name, end := range map[string]func(*Socket){
		"read":  func(s *Socket) { _, _ = io.ReadFull(s, make([]byte, 50_000)) },
		"close": func(s *Socket) { _, _ = s.Read(make([]byte, 7)); _ = s.Close() },
		"reset": func(s *Socket) { _ = s.Reset(1) },
	} {
		s, port, q := pair(ample, 0)
		count := &q.held
		for range 50 {
			_, _ = port.Deliver(make([]byte, 1000))
		}
		if count.Load() != 50_000 {
			t.Errorf("%s: %d bytes are counted", name, count.Load())
		}
		end(s)
		_ = s.Close()
		_, _ = port.Deliver(make([]byte, 10))
		if count.Load() != 0 {
			t.Errorf("%s: %d bytes are still counted", name, count.Load())
		}
	}
}
