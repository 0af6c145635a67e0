package ice

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/quic-go/quic-go"
)

// Between two networks packets are lost, and connections are not: only errors of
// another kind are told.
// fault: F2
func TestPacketsWithoutAWayAreLost(t *testing.T) {
	for _, no := range []error{syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL} {
		if !noWay(&net.OpError{Op: "write", Err: os.NewSyscallError("sendmsg", no)}) {
			t.Errorf("%v ends connections", no)
		}
	}
	for _, bad := range []error{nil, syscall.EMSGSIZE, syscall.EIO, net.ErrClosed, errors.New("else")} {
		if noWay(bad) {
			t.Errorf("%v is swallowed", bad)
		}
	}
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	s := socket{u}
	if _, ok := any(s).(quic.OOBCapablePacketConn); !ok {
		t.Error("quic-go would send packets one by one")
	}
	for i, send := range []func([]byte, *net.UDPAddr) (int, error){
		func(b []byte, to *net.UDPAddr) (int, error) { return s.WriteTo(b, to) },
		func(b []byte, to *net.UDPAddr) (int, error) { n, _, err := s.WriteMsgUDP(b, nil, to); return n, err },
	} {
		if n, err := send([]byte("hello"), u.LocalAddr().(*net.UDPAddr)); n != 5 || err != nil {
			t.Errorf("way %d: %d, %v", i, n, err)
		}
		got := make([]byte, 10)
		if n, err := u.Read(got); n != 5 || err != nil {
			t.Errorf("way %d: read %q, %v", i, got[:n], err)
		}
	}
}
