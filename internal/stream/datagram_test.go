package stream

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// scattering is a queue that has datagrams, too.
type scattering struct {
	*queue
	most int
	err  error
	sent [][]byte
}

func (l *scattering) MaxDatagram() int { return l.most }

func (l *scattering) SendDatagram(p []byte) error {
	if l.err != nil {
		return l.err
	}
	l.sent = append(l.sent, append([]byte(nil), p...))
	return nil
}

func scatter(most int) (*Stream, *scattering) {
	l := &scattering{queue: &queue{room: 1 << 20}, most: most}
	p := ample
	p.ID, p.URI, p.Link = 7, "test://", l
	s := open(p)
	return s, l
}

func TestUnreliableGoesByDatagramWhereThereAreAny(t *testing.T) {
	s, l := scatter(10)
	for _, p := range []string{"a", "0123456789"} {
		if err := s.SendUnreliable([]byte(p)); err != nil {
			t.Error(err)
		}
	}
	err := s.SendUnreliable([]byte("01234567890"))
	if !errors.Is(err, ErrTooLong) || !strings.Contains(err.Error(), "11 bytes") || !strings.Contains(err.Error(), "takes 10") {
		t.Errorf("too long: %v", err)
	}
	if err := s.SendUnreliable(nil); err != nil {
		t.Errorf("nothing: %v", err)
	}
	if len(l.sent) != 2 || len(l.data) != 0 || s.MaxDatagram() != 10 {
		t.Errorf("datagrams %q, stream %q, at most %d", l.sent, l.data, s.MaxDatagram())
	}
	if st := s.Counts(); st.DatagramsSent != 2 || st.BytesSent != 11 || st.FramesSent != 0 {
		t.Errorf("%+v", st)
	}
	_ = s.SetWriteDeadline(time.Unix(1, 0))
	if err := s.SendUnreliable([]byte("x")); err != nil {
		t.Errorf("past a deadline, which is for what waits: %v", err)
	}
	l.err = errors.New("the path is full")
	if err := s.SendUnreliable([]byte("x")); !errors.Is(err, ErrWouldBlock) || !strings.Contains(err.Error(), "the path is full") {
		t.Errorf("dropped by the carrier: %v", err)
	}
	s.CloseWrite()
	if err := s.SendUnreliable([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after CloseWrite: %v", err)
	}
}

func TestUnreliableGoesByTheStreamWhereThereAreNone(t *testing.T) {
	s, l := scatter(0)
	if err := s.SendUnreliable([]byte("move")); err != nil || string(l.data) != "move" {
		t.Errorf("%q, %v", l.data, err)
	}
	if st := s.Counts(); st.DatagramsSent != 0 || st.BytesSent != 4 || st.FramesSent != 1 {
		t.Errorf("%+v", st)
	}
}

func TestReadReturnsDatagramsApart(t *testing.T) {
	s, l := scatter(100)
	_, _ = s.Deliver([]byte("stream"))
	for _, p := range []string{"one", "two", ""} {
		if n := s.DeliverDatagram([]byte(p)); n != 0 {
			t.Errorf("%d dropped", n)
		}
	}
	if n := l.held.Load(); n != 12 || s.Counts().Unread != 12 {
		t.Errorf("%d bytes are held, %+v", n, s.Counts())
	}
	s.End()
	buf := make([]byte, 100)
	for _, want := range []string{"stream", "one"} {
		if n, err := s.Read(buf); err != nil || string(buf[:n]) != want {
			t.Errorf("%q, %v, want %q", buf[:n], err, want)
		}
	}
	for _, want := range []string{"tw", "o"} { // the room decides
		if n, err := s.Read(buf[:2]); err != nil || string(buf[:n]) != want {
			t.Errorf("%q, %v, want %q", buf[:n], err, want)
		}
	}
	if _, err := s.Read(buf); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if n := s.DeliverDatagram([]byte("late")); n != 1 {
		t.Error("a datagram after the end was taken")
	}
	if st := s.Counts(); st.DatagramsReceived != 2 || st.BytesReceived != 12 || l.held.Load() != 0 {
		t.Errorf("%+v, %d held", st, l.held.Load())
	}
}

// fault: J1
func TestUnreadDatagramsAreBoundedAndTheOldestGo(t *testing.T) {
	s, l := scatter(100)
	dropped := 0
	for i := range 3 * maxDatagrams {
		dropped += s.DeliverDatagram([]byte{byte(i)})
	}
	if n := l.held.Load(); n != maxDatagrams || dropped != 2*maxDatagrams {
		t.Errorf("%d bytes held, %d dropped", n, dropped)
	}
	buf := make([]byte, 1)
	for i := range maxDatagrams {
		if _, err := s.Read(buf); err != nil || buf[0] != byte(i+2*maxDatagrams) {
			t.Fatalf("%d, %v", buf[0], err)
		}
	}
	if st := s.Counts(); st.Dropped != 2*maxDatagrams || st.DatagramsReceived != 3*maxDatagrams {
		t.Errorf("%+v", st)
	}
	for range 3 {
		s.DeliverDatagram(make([]byte, maxDatagramBytes/2))
	}
	if n := l.held.Load(); n != maxDatagramBytes {
		t.Errorf("%d bytes of large ones held", n)
	}
	if n := s.DeliverDatagram(make([]byte, maxDatagramBytes+1)); n != 1 || l.held.Load() != maxDatagramBytes {
		t.Errorf("one that can never fit in: %d dropped", n)
	}
	if unread, _ := s.Stale(); unread != maxDatagramBytes {
		t.Errorf("%d bytes count as stale", unread)
	}
	s.Close()
	if n := l.held.Load(); n != 0 {
		t.Errorf("%d bytes held after Close", n)
	}
}

func TestDatagramWakesAWaitingRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := scatter(100)
		got := make(chan string)
		for range 2 {
			go func() {
				buf := make([]byte, 100)
				n, err := s.Read(buf)
				if err != nil {
					t.Error(err)
				}
				got <- string(buf[:n])
			}()
		}
		synctest.Wait()
		s.DeliverDatagram([]byte("x"))
		if p := <-got; p != "x" {
			t.Errorf("read %q", p)
		}
		s.DeliverDatagram([]byte("y"))
		if p := <-got; p != "y" {
			t.Errorf("read %q", p)
		}
		_ = s.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("nothing more: %v", err)
		}
	})
}

// case: E14
func TestDatagramsCanBeKeptApartFromTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := scatter(100)
		if p := s.TakeDatagram(); p != nil {
			t.Errorf("nothing came, and was %q", p)
		}
		s.DeliverDatagram([]byte("one"))
		_, _ = s.Deliver([]byte("stream"))
		buf := make([]byte, 100)
		if n, err := s.Read(buf); err != nil || string(buf[:n]) != "stream" {
			t.Errorf("%q, %v", buf[:n], err)
		}
		if n, err := s.Read(buf); n != 0 || err != nil {
			t.Errorf("a datagram waits, and Read returns %q, %v", buf[:n], err)
		}
		if p := s.TakeDatagram(); string(p) != "one" || l.held.Load() != 0 || s.TakeDatagram() != nil {
			t.Errorf("%q, %d bytes held", p, l.held.Load())
		}
		waited := make(chan error, 1)
		go func() {
			n, err := s.Read(buf)
			if n != 0 {
				t.Errorf("read %q", buf[:n])
			}
			waited <- err
		}()
		synctest.Wait()
		s.DeliverDatagram([]byte("two"))
		if err := <-waited; err != nil || string(s.TakeDatagram()) != "two" {
			t.Errorf("a Read that waits: %v", err)
		}
		s.End()
		if _, err := s.Read(buf); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	})
}

// case: E14
func TestADatagramIsNeverPartOfTheStream(t *testing.T) {
	s, l := scatter(0)
	if err := s.SendDatagram([]byte("x")); !errors.Is(err, ErrTooLong) || len(l.data) != 0 {
		t.Errorf("without datagrams: %v, %q", err, l.data)
	}
	l.most = 2
	if err := s.SendDatagram([]byte("xy")); err != nil || len(l.sent) != 1 || len(l.data) != 0 {
		t.Errorf("%v, %q, %q", err, l.sent, l.data)
	}
}
