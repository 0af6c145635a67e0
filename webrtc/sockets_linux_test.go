package webrtc

import (
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Sockets of both kinds get what the system allows, up to what was asked for:
// with less a burst of SCTP overflows them, at a quarter of the speed.
func TestSocketsHaveRoom(t *testing.T) {
	s, err := newSockets()
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := s.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for option, most := range map[int]string{syscall.SO_RCVBUF: "rmem_max", syscall.SO_SNDBUF: "wmem_max"} {
		text, err := os.ReadFile("/proc/sys/net/core/" + most)
		if err != nil {
			t.Skipf("NOT TESTED: %v", err)
		}
		allowed, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []any{a, b} {
			raw, err := c.(syscall.Conn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var got int
			if err := raw.Control(func(fd uintptr) { got, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, option) }); err != nil {
				t.Fatal(err)
			}
			if want := 2 * min(socketBuffer, allowed); err != nil || got < want { // Linux doubles it
				t.Errorf("%T: %s gives %d bytes, %v; want %d", c, most, got, err, want)
			}
		}
	}
}

// Interfaces that come later are seen, as they are looked up each time.
func TestSocketsSeeTheInterfacesOfNow(t *testing.T) {
	s, err := newSockets()
	if err != nil {
		t.Fatal(err)
	}
	is, err := s.Interfaces()
	want, werr := net.Interfaces()
	if err != nil || werr != nil || len(is) != len(want) {
		t.Fatalf("%d of %d interfaces, %v, %v", len(is), len(want), err, werr)
	}
	again, err := s.Interfaces()
	if err != nil || len(is) > 0 && again[0] == is[0] {
		t.Errorf("the same objects again, %v", err)
	}
}
