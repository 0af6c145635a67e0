//go:build linux || darwin

package main

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// gate is a way to a TCP address on which what is called can be held up.
type gate struct {
	at   string
	held chan chan struct{} // takes what ends the hold
}

// newGate makes a way to an address. It ends with the test.
func newGate(t *testing.T, to string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	g := &gate{l.Addr().String(), make(chan chan struct{}, 1)}
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", to)
			if err != nil {
				_ = from.Close()
				continue
			}
			go g.pass(there, from)
			go func() {
				_, _ = io.Copy(from, there)
				_ = from.Close()
			}()
		}
	}()
	return g
}

// pass copies, but for the time of a hold.
func (g *gate) pass(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		select {
		case end := <-g.held:
			<-end
		default:
		}
		if _, failed := to.Write(buf[:n]); err != nil || failed != nil {
			return
		}
	}
}

// What a pipe wrote arrives, also if its daemon is stopped as soon as the pipe has
// ended and most of it waits in the daemon.
func TestADaemonThatIsStoppedPassesOnWhatAPipeWrote(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	h := newHouse(t)
	bob := h.begin("bob", "run", "--json", "--tcp", "127.0.0.1:0", "--local", "off")
	device, rest, _ := strings.Cut(after(t, bob.first, `"device":"`), `"`)
	addr, _, _ := strings.Cut(after(t, rest, `"tcp":["`), `"`)
	way := newGate(t, addr)
	there, _ := h.pipe("bob", "--listen", "--anyone")
	_ = there.in.Close()

	signs, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(h.dir, "n"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer signs.Close()
	alice := h.command("alice", "run", "--local", "off")
	alice.Env = append(alice.Env, "NOTIFY_SOCKET="+filepath.Join(h.dir, "n"))
	if err := alice.Start(); err != nil {
		t.Fatal(err)
	}
	sign := func(want string) {
		buf := make([]byte, 1<<10)
		for n := 0; err == nil && !strings.Contains(string(buf[:n]), want); {
			n, err = signs.Read(buf)
		}
	}
	sign("READY=1")
	here, said := h.pipe("alice", device+"@"+way.at)
	if !strings.Contains(said, "joined to ") {
		t.Fatalf("it says %q", said)
	}
	end := make(chan struct{})
	way.held <- end
	const size = 288 << 10 // more than may be sent unread: the rest waits in the daemon
	if _, err := here.in.(io.Writer).Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	_ = here.in.Close()
	if err := here.cmd.Wait(); err != nil {
		t.Fatalf("the pipe ends with %v", err)
	}
	_ = alice.Process.Signal(syscall.SIGTERM)
	sign("STOPPING=1")
	close(end)
	if err := there.cmd.Wait(); err != nil || there.out.Len() != size {
		t.Errorf("%d of %d bytes came, and then %v", there.out.Len(), size, err)
	}
	_ = alice.Wait() // the signal's status
}

// after returns what follows a mark.
func after(t *testing.T, text, mark string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, mark)
	if !found {
		t.Fatalf("no %s in %q", mark, text)
	}
	return rest
}
