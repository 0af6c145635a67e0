package forward

import (
	"context"
	"net"
	"testing"
	"time"
)

// What was reset before it could be joined costs the link nothing.
//
// case: E23
func TestNothingIsOpenedForAConnectionThatIsReset(t *testing.T) {
	l, err := Listen(t.Context(), mustAddr(t, "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	last, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	_, _ = last.Write([]byte("x"))
	opened := make(chan net.Conn, 21)
	relay(t, l, RelayConfig{Open: func(context.Context) (net.Conn, error) {
		here, there := tcpPair(t)
		opened <- there
		return here, nil
	}})
	select {
	case c := <-opened:
		_ = c.SetDeadline(time.Now().Add(within))
		if n, err := c.Read(make([]byte, 1)); n != 1 {
			t.Errorf("something was opened for a connection that was reset: %v", err)
		}
	case <-time.After(within):
		t.Fatal("the last connection was not joined")
	}
}
