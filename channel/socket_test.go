package channel

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"peerlink/internal/stream"
)

// full is a link that takes nothing.
type full struct{ stream.Link }

func (full) Push([]byte) int           { return 0 }
func (full) TryPush([]byte) bool       { return false }
func (full) Room(int) bool             { return false }
func (full) MaxPush() int              { return 64 << 10 }
func (full) Advance(int) int           { return 0 }
func (full) Note(stream.Event)         {}
func (full) Expect(int)                {}
func (full) Hold(int)                  {}
func (full) Shrink(int)                {}
func (full) Lead() bool                { return false }
func (full) Interrupt()                {}
func (full) Tell(stream.Notice)        {}
func (full) Flush()                    {}
func (full) MaxDatagram() int          { return 10 }
func (full) SendDatagram([]byte) error { return io.ErrShortWrite }
func (full) Addrs() (local, remote net.Addr) {
	return &net.UnixAddr{Name: "l"}, &net.UnixAddr{Name: "r"}
}
func (full) Widen(stream.Pace) (more, repaid int) { return 0, 0 }

func open() *Socket {
	s := new(Socket)
	s.stream().Open(stream.Params{ID: 7, URI: "test://", Link: full{}, Credit: 100, Window: 1 << 20})
	return s
}

func TestEveryErrorOfACallIsAnOpError(t *testing.T) {
	late := time.Unix(1, 0)
	calls := map[string]struct {
		op                 string
		do                 func(*Socket) error
		open, late, closed error // the cause on an open channel, past its deadlines, and closed
	}{
		"Read":             {"read", func(s *Socket) error { _, err := s.Read(make([]byte, 1)); return err }, nil, os.ErrDeadlineExceeded, net.ErrClosed},
		"Write":            {"write", func(s *Socket) error { _, err := s.Write([]byte("x")); return err }, nil, os.ErrDeadlineExceeded, net.ErrClosed},
		"TrySend":          {"send", func(s *Socket) error { return s.TrySend([]byte("x")) }, ErrWouldBlock, os.ErrDeadlineExceeded, net.ErrClosed},
		"TrySend, long":    {"send", func(s *Socket) error { return s.TrySend(make([]byte, 1<<20)) }, ErrTooLong, os.ErrDeadlineExceeded, net.ErrClosed},
		"WaitSend":         {"send", func(s *Socket) error { return s.WaitSend(1) }, nil, os.ErrDeadlineExceeded, net.ErrClosed},
		"SendUnreliable":   {"send", func(s *Socket) error { return s.SendUnreliable([]byte("x")) }, io.ErrShortWrite, io.ErrShortWrite, net.ErrClosed},
		"SendDatagram":     {"send", func(s *Socket) error { return s.SendDatagram(make([]byte, 11)) }, ErrTooLong, ErrTooLong, net.ErrClosed},
		"SetReadDeadline":  {"set deadline", func(s *Socket) error { return s.SetReadDeadline(late) }, nil, nil, net.ErrClosed},
		"SetWriteDeadline": {"set deadline", func(s *Socket) error { return s.SetWriteDeadline(late) }, nil, nil, net.ErrClosed},
		"SetDeadline":      {"set deadline", func(s *Socket) error { return s.SetDeadline(late) }, nil, nil, net.ErrClosed},
	}
	for name, c := range calls {
		check := func(when string, s *Socket, want error) {
			err := c.do(s)
			op, ok := errors.AsType[*OpError](err)
			switch {
			case want == nil && err == nil:
			case !ok || !errors.Is(err, want) || op.Op != c.op || op.URI != "test://" || op.Timeout() != (want == os.ErrDeadlineExceeded) || op.Temporary() != op.Timeout() || !strings.Contains(err.Error(), `"test://"`):
				t.Errorf("%s, %s: %v, want %v", name, when, err, want)
			}
		}
		if s := open(); c.open != nil {
			check("open", s, c.open)
		}
		s := open()
		_ = s.SetDeadline(late)
		check("late", s, c.late)
		_ = s.Close()
		check("closed", s, c.closed)
	}
}

func TestASocketTellsWhatItIs(t *testing.T) {
	s := open()
	if s.ID() != 7 || s.URI() != "test://" || s.LocalAddr().String() != "l" || s.RemoteAddr().String() != "r" || s.MaxSend() != 64<<10 || s.MaxDatagram() != 10 {
		t.Errorf("%d, %q, %v, %v", s.ID(), s.URI(), s.LocalAddr(), s.RemoteAddr())
	}
	in := (*stream.Stream)(s)
	in.Framed()
	_, _ = in.Deliver([]byte("abc"))
	_ = s.TrySend([]byte("x"))
	st := s.Stats()
	if st.BytesReceived != 3 || st.FramesReceived != 1 || st.WouldBlocks != 1 || st.Unread != 3 || st.Created.IsZero() || st.LastActivity.Before(st.Created) {
		t.Errorf("%+v", st)
	}
	in.End()
	if b, err := io.ReadAll(s); string(b) != "abc" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("the end: %d, %v", n, err)
	}
}
