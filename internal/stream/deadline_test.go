package stream

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestDeadlineMayBeMovedAndClearedDuringACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := pair(ample, 0)
		start := time.Now()
		_ = s.SetReadDeadline(start.Add(time.Second))
		done := make(chan error)
		read := func() {
			_, err := s.Read(make([]byte, 1))
			done <- err
		}
		go read()
		synctest.Wait()
		_ = s.SetReadDeadline(start.Add(3 * time.Second))
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("moved: %v after %v", err, time.Since(start))
		}
		_ = s.SetReadDeadline(time.Now().Add(time.Second))
		go read()
		synctest.Wait()
		_ = s.SetReadDeadline(time.Time{})
		time.Sleep(time.Hour)
		_, _ = s.Deliver([]byte("x"))
		if err := <-done; err != nil {
			t.Errorf("cleared: %v", err)
		}
		for range 1000 { // a loop of short deadlines, and usable afterwards
			end := time.Now().Add(time.Millisecond)
			_ = s.SetReadDeadline(end)
			_ = s.SetWriteDeadline(end)
			_, rerr := s.Read(make([]byte, 1))
			_, werr := s.Write([]byte("x"))
			if !errors.Is(rerr, os.ErrDeadlineExceeded) || !errors.Is(werr, os.ErrDeadlineExceeded) {
				t.Fatal(rerr, werr)
			}
		}
		_ = s.SetReadDeadline(time.Time{})
		_ = s.SetWriteDeadline(time.Time{})
		_, _ = s.Deliver([]byte("y"))
		if n, err := s.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("usable: %d, %v", n, err)
		}
	})
}

func TestTimeoutAndEndAreNeverMixedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := pair(ample, 0)
		_ = s.SetReadDeadline(time.Now().Add(time.Second))
		_, err := s.Read(make([]byte, 1))
		var ne net.Error
		if !errors.As(err, &ne) || !ne.Timeout() || errors.Is(err, io.EOF) {
			t.Errorf("idle: %v", err)
		}
		s.End()
		_ = s.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("ended: %d, %v", n, err)
		}
	})
}
