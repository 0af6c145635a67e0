package dht

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// forgetful is a NAT before a node: it can forget the connections that it has,
// so that what is sent over them is lost without a word.
type forgetful struct {
	ln net.Listener
	to string

	mu    sync.Mutex
	conns []net.Conn
	epoch int
	wg    sync.WaitGroup
}

// before puts one before a node, and returns the node's address through it.
func before(t *testing.T, n *Node) (f *forgetful, addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	own := n.Addrs()[0]
	parts := strings.Split(own, "/") // "", ip4, 127.0.0.1, tcp, PORT, p2p, ID
	f = &forgetful{ln: ln, to: net.JoinHostPort(parts[2], parts[4])}
	f.wg.Go(f.run)
	t.Cleanup(f.close)
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	parts[4] = port
	return f, strings.Join(parts, "/")
}

func (f *forgetful) run() {
	for {
		in, err := f.ln.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", f.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		f.mu.Lock()
		epoch := f.epoch
		f.conns = append(f.conns, in, out)
		f.mu.Unlock()
		f.wg.Go(func() { f.carry(epoch, in, out) })
		f.wg.Go(func() { f.carry(epoch, out, in) })
	}
}

// carry hands bytes on; those of a connection that is forgotten are lost.
func (f *forgetful) carry(epoch int, from, to net.Conn) {
	b := make([]byte, 1<<14)
	for {
		n, err := from.Read(b)
		f.mu.Lock()
		forgotten := f.epoch != epoch
		f.mu.Unlock()
		if err != nil {
			if !forgotten {
				_ = to.Close()
			}
			return
		}
		if !forgotten {
			if _, err := to.Write(b[:n]); err != nil {
				_, _ = io.Copy(io.Discard, from)
				return
			}
		}
	}
}

func (f *forgetful) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch++
}

func (f *forgetful) close() {
	_ = f.ln.Close()
	f.mu.Lock()
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

// A device whose NAT has forgotten the connection to its node, so that neither
// end hears of anything, can be called again soon, and gets what was sent
// meanwhile.
//
// fault: F2, E4
func TestADeviceNoticesThatItsNodesDoNotHearIt(t *testing.T) {
	node := startNodes(t, 1)[0]
	nat, addr := before(t, node)
	alice := device(t, "alice", node)
	bob := start(t, Config{Identity: newIdentity(t, "bob"), Bootstrap: []string{addr}, beat: 500 * time.Millisecond})
	ready(t, bob)
	exchange(t, alice, bob, "before")
	nat.forget()
	if err := alice.Send(testContext(t), bob.id(), []byte("into the void")); err != nil {
		t.Fatal(err)
	}
	from, msg, err := bob.Receive(testContext(t))
	if err != nil || string(msg) != "into the void" || from.Device != alice.id() {
		t.Fatalf("%q of %v: %v", msg, from, err)
	}
	exchange(t, alice, bob, "after")
}
