package localuser

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// accepted is one connection to a listener on loopback, made by dial.
func accepted(t *testing.T, network, at string, dial func(addr string)) net.Conn {
	t.Helper()
	l, err := net.Listen(network, at)
	if err != nil {
		t.Skip("NOT TESTED:", err)
	}
	defer l.Close()
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Second))
	dial(l.Addr().String())
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// case: S18
func TestAnotherUserIsTold(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can be another user")
	}
	for network, at := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"} {
		c := accepted(t, network, at, func(addr string) {
			host, port, _ := net.SplitHostPort(addr)
			cmd := exec.Command("bash", "-c", `exec 3<>"/dev/tcp/$0/$1"; read -r -u 3`, host, port)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		})
		if err := Check(c); !errors.Is(err, ErrOther) {
			t.Errorf("%s: %v", network, err)
		}
	}
}

// case: S18
func TestTheOwnerMayAsk(t *testing.T) {
	for network, at := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "tcp": "localhost:0"} {
		c := accepted(t, network, at, func(addr string) {
			d, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = d.Close() })
		})
		if err := Check(c); err != nil {
			t.Errorf("%s: %v", network, err)
		}
		if uid, err := userOf(addrOf(c.RemoteAddr()), addrOf(c.LocalAddr())); err != nil || uid != os.Geteuid() {
			t.Errorf("%s: user %d, %v", network, uid, err)
		}
	}
}

// The kernel shows root as the user of a socket that no program has any more.
//
// case: S18
func TestAClosedEndHasNoUser(t *testing.T) {
	c := accepted(t, "tcp4", "127.0.0.1:0", func(addr string) {
		d, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = d.Close()
	})
	if err := Check(c); !errors.Is(err, ErrOther) || !errors.Is(err, errGone) {
		t.Error(err)
	}
}

func TestOtherConnectionsAreNotAsked(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := Check(a); err != nil {
		t.Error(err)
	}
	for _, b := range [][]byte{nil, make([]byte, 15), make([]byte, 200)} {
		if _, err := read(b); err == nil {
			t.Errorf("an answer of %d bytes: %v", len(b), err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	d, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	c, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.ReportAllocs()
	for b.Loop() {
		if err := Check(c); err != nil {
			b.Fatal(err)
		}
	}
}
