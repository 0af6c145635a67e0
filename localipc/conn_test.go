package localipc

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

func TestConnConforms(t *testing.T) {
	dir := folder(t)
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	l := listen(t, Config{Identity: bob, Dir: dir})
	d := &Dialer{Config: Config{Identity: alice, Dir: dir}}
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		c1, c2 = link(t, l, d)
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

func TestStreamEndsByHalves(t *testing.T) {
	dir := folder(t)
	l := listen(t, Config{Identity: newIdentity(t, "bob"), Dir: dir})
	c, s := link(t, l, &Dialer{Config: Config{Identity: newIdentity(t, "alice"), Dir: dir}})
	for _, end := range []net.Conn{c, s} {
		if conn := end.(*Conn); conn.FrameSize() != 65535 || !strings.Contains(conn.Path().String(), l.Path()) {
			t.Errorf("frames of %d bytes, path %q", conn.FrameSize(), conn.Path())
		}
	}
	go func() {
		io.WriteString(c, "hello")
		c.(*Conn).CloseWrite()
	}()
	if b, err := io.ReadAll(s); string(b) != "hello" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	if _, err := io.WriteString(s, "after"); err != nil {
		t.Errorf("write after the other half is closed: %v", err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); string(b) != "after" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestWriteNowNeverWaits(t *testing.T) {
	dir := folder(t)
	l := listen(t, Config{Identity: newIdentity(t, "bob"), Dir: dir})
	end, s := link(t, l, &Dialer{Config: Config{Identity: newIdentity(t, "alice"), Dir: dir}})
	c := end.(*Conn)
	c.SetWriteDeadline(time.Now().Add(20 * time.Second)) // a bound on the test, should it wait
	buf := make([]byte, 64<<10)
	total := 0
	for {
		n, err := c.WriteNow(buf)
		total += n
		if err != nil {
			t.Fatal(err)
		}
		if n < len(buf) {
			break
		}
	}
	if total == 0 || total > 8<<20 {
		t.Fatalf("%d bytes fit into a socket that nobody reads", total)
	}
	if n, err := io.CopyN(io.Discard, s, int64(total)); err != nil {
		t.Fatalf("%d of %d bytes came: %v", n, total, err)
	}
	s.Close()
}

func TestWriteNowTellsErrors(t *testing.T) {
	dir := folder(t)
	l := listen(t, Config{Identity: newIdentity(t, "bob"), Dir: dir})
	end, s := link(t, l, &Dialer{Config: Config{Identity: newIdentity(t, "alice"), Dir: dir}})
	c := end.(*Conn)
	if n, err := c.WriteNow(nil); n != 0 || err != nil {
		t.Errorf("nothing: %d, %v", n, err)
	}
	s.Close()
	if _, err := c.WriteNow([]byte("x")); err == nil {
		t.Error("a write to a closed peer succeeded")
	}
	c.Close()
	if _, err := c.WriteNow([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want net.ErrClosed", err)
	}
}

func TestCancelledDialEndsAtOnce(t *testing.T) {
	for _, step := range []string{"connected", "greeted"} {
		dir := folder(t)
		alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
		cfg, _ := Config{Identity: bob, Dir: dir, HandshakeTimeout: -1}.withDefaults()
		door, err := openDoorway(context.Background(), cfg) // takes calls, says little
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		donec := make(chan struct{})
		go func() {
			defer close(donec)
			conn, err := door.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			receive(conn, kindHello)
			if step == "greeted" {
				b, _ := hello{device: bob.DeviceID()}.encode()
				send(conn, kindHello, b)
				receive(conn, kindProof)
			}
			cancel()
			conn.Read(make([]byte, 1))
		}()
		d := &Dialer{Config: Config{Identity: alice, Dir: dir, HandshakeTimeout: -1}}
		if _, _, err := d.Dial(ctx, bob.DeviceID()); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", step, err)
		}
		<-donec
		door.Close()
	}
}

func TestSilentCalleeTimesOut(t *testing.T) {
	dir := folder(t)
	bob := newIdentity(t, "bob")
	cfg, _ := Config{Identity: bob, Dir: dir}.withDefaults()
	door, err := openDoorway(context.Background(), cfg) // the kernel takes the call, nobody else does
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	d := &Dialer{Config: Config{Identity: newIdentity(t, "alice"), Dir: dir, HandshakeTimeout: 20 * time.Millisecond}}
	if _, _, err := d.Dial(context.Background(), bob.DeviceID()); !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "20ms") {
		t.Errorf("%v, want a time-out after 20 ms", err)
	}
}
