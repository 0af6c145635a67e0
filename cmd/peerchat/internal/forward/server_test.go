package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/identity"
)

// allow adds a rule.
func (w *world) allow(do, addr string) {
	w.t.Helper()
	if err := w.rules.Allow(Rule{alice, do, addr}); err != nil {
		w.t.Fatal(err)
	}
}

// fault: H8
func TestNobodyMayUntilThereIsARule(t *testing.T) {
	w := newWorld(t)
	var reached atomic.Int32
	l := target(t, "tcp", "127.0.0.1:0", func(c net.Conn) { reached.Add(1); _, _ = io.Copy(c, c) })
	addr := l.Addr().String()
	denied := func(why string, err error) {
		t.Helper()
		var said *ServerError
		if !errors.As(err, &said) || !strings.Contains(err.Error(), "you may not connect to "+addr) {
			t.Errorf("%s: %v", why, err)
		}
	}
	_, err := w.dial(alice, addr)
	denied("without a rule", err)
	w.allow(DoListen, addr)
	_, err = w.dial(alice, addr)
	denied("with a rule for something else", err)
	w.allow(DoDial, addr)
	_, err = w.dial(bob, addr)
	denied("with a rule for somebody else", err)
	if n := reached.Load(); n != 0 {
		t.Fatalf("the target was reached %d times", n)
	}
	c, err := w.dial(alice, addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	if _, err := io.ReadFull(c, one); err != nil {
		t.Fatal(err)
	}
	// A rule that is taken back ends what it allowed, and not as an end.
	if err := w.rules.Remove(Rule{alice, DoDial, addr}); err != nil {
		t.Fatal(err)
	}
	w.server.Recheck()
	if _, err := c.Read(one); !isCut(err) {
		t.Errorf("after the rule was removed: %v", err)
	}
	_, err = w.dial(alice, addr)
	denied("after the rule was removed", err)
}

// A rule for a contact is for all its devices, as long as they are; one for
// another of its devices is for that one.
//
// fault: H8
func TestARuleForAContactIsForAllItsDevices(t *testing.T) {
	w := newWorld(t)
	l := target(t, "tcp", "127.0.0.1:0", func(c net.Conn) { _, _ = io.Copy(c, c) })
	addr := l.Addr().String()
	phone := identity.DeviceID{3}
	w.allow(DoDial, addr)
	if _, err := w.dial(phone, addr); err == nil {
		t.Fatal("a device of nobody was let in")
	}
	w.belongs(phone, alice)
	c, err := w.dial(phone, addr)
	if err != nil {
		t.Fatalf("another device of the contact: %v", err)
	}
	other, err := w.dial(alice, addr)
	if err != nil {
		t.Fatal(err)
	}
	w.belongs(phone, identity.DeviceID{}) // it has left the contact
	w.server.Recheck()
	one := make([]byte, 1)
	if _, err := c.Read(one); !isCut(err) {
		t.Errorf("after it has left: %v", err)
	}
	if _, err := w.dial(phone, addr); err == nil {
		t.Error("after it has left it was let in")
	}
	if _, err := other.Write(one); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(other, one); err != nil {
		t.Errorf("the contact's first device: %v", err)
	}
	if err := w.rules.Remove(Rule{alice, DoDial, addr}); err != nil {
		t.Fatal(err)
	}
	if err := w.rules.Allow(Rule{phone, DoDial, addr}); err != nil {
		t.Fatal(err)
	}
	w.belongs(phone, alice)
	if _, err := w.dial(alice, addr); err == nil {
		t.Error("a rule for the phone lets the contact's first device in")
	}
	if _, err := w.dial(phone, addr); err != nil {
		t.Error(err)
	}
}

// fault: H8
func TestARefusedTargetIsToldWithItsAddress(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close() // nobody is there
	w.allow(DoDial, addr)
	c, err := w.dial(alice, addr)
	var said *ServerError
	if !errors.As(err, &said) || !strings.Contains(err.Error(), "connect to "+addr+": ") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("the error is %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the channel is still open")
	}
	path := filepath.Join(t.TempDir(), "none.sock")
	w.allow(DoDial, path)
	if _, err := w.dial(alice, path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("of a socket that is not there: %v", err)
	}
}

func TestHalfCloseIsKeptBothWays(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		addr := "127.0.0.1:0"
		if network == "unix" {
			dir, err := os.MkdirTemp("", "fw")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			addr = dir + "/s"
		}
		w := newWorld(t)
		l := target(t, network, addr, echo)
		w.allow(DoDial, l.Addr().String())
		c, err := w.dial(alice, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		go func() {
			_, _ = c.Write(sent)
			_ = c.CloseWrite()
		}()
		got, err := io.ReadAll(c) // it comes only after the end
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: %d bytes of %d, %v", network, len(got), len(sent), err)
		}
	}
}

func TestACutTargetIsNoEnd(t *testing.T) {
	w := newWorld(t)
	l := target(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		cut(c)
	})
	w.allow(DoDial, l.Addr().String())
	c, err := w.dial(alice, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); !isCut(err) {
		t.Errorf("a target that was killed reads as %v", err)
	}
}

// A device has 128 connections; the next one is refused, and the first that ends
// makes room.
//
// fault: H8
func TestConnectionsOfADeviceAreBounded(t *testing.T) {
	w := newWorld(t)
	l := target(t, "tcp", "127.0.0.1:0", func(c net.Conn) { _, _ = io.Copy(c, c) })
	addr := l.Addr().String()
	w.allow(DoDial, addr)
	if err := w.rules.Allow(Rule{bob, DoDial, addr}); err != nil {
		t.Fatal(err)
	}
	var first *net.TCPConn
	for i := range maxOfDevice {
		c, err := w.dial(alice, addr)
		if err != nil {
			t.Fatalf("connection %d: %v", i+1, err)
		}
		if first == nil {
			first = c
		}
	}
	if _, err := w.dial(alice, addr); err == nil {
		t.Fatalf("connection %d was joined", maxOfDevice+1)
	}
	if _, err := w.dial(bob, addr); err != nil {
		t.Errorf("another device has no room: %v", err)
	}
	_ = first.CloseWrite()
	if _, err := io.ReadAll(first); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(within); ; {
		if _, err := w.dial(alice, addr); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("there is no room again: %v", err)
		}
	}
}

// Devices that may do nothing take all the places that they can have. One that may is
// served meanwhile, and those that have no place are put off.
//
// case: S12
func TestStrangersTakeNoPlacesOfThoseThatMay(t *testing.T) {
	w := newWorld(t)
	l := target(t, "tcp", "127.0.0.1:0", func(c net.Conn) { _, _ = io.Copy(c, c) })
	w.allow(DoDial, l.Addr().String())
	var held []net.Conn
	var last net.Conn
	for i := range 100 {
		for range strangersOfDevice + 1 {
			last = w.open(identity.DeviceID{9, byte(i)}, URIDial)
			held = append(held, last)
		}
	}
	if _, err := last.Read(make([]byte, 1)); !isCut(err) {
		t.Errorf("a stranger without a place: %v", err)
	}
	if members, strangers := w.server.places.Used(); members != 0 || strangers != strangersInAll {
		t.Errorf("%d and %d places are taken, want 0 and %d", members, strangers, strangersInAll)
	}
	c, err := w.dial(alice, l.Addr().String())
	if err != nil {
		t.Fatalf("a device that may, meanwhile: %v", err)
	}
	held = append(held, c)
	for _, c := range held {
		_ = c.Close()
	}
	for deadline := time.Now().Add(within); ; {
		_, err := w.dial(bob, l.Addr().String())
		if said := (*ServerError)(nil); errors.As(err, &said) {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("afterwards a stranger hears %v, want why not", err)
		}
	}
}

// fault: H8
func TestADeviceListensHereOnlyAsAllowed(t *testing.T) {
	w := newWorld(t)
	token := NewToken()
	where := mustAddr(t, "127.0.0.1:0")
	if _, err := Ask(t.Context(), w.open(alice, URIListen), where, token); err == nil || !strings.Contains(err.Error(), "you may not listen on 127.0.0.1:0") {
		t.Fatalf("without a rule: %v", err)
	}
	w.allow(DoListen, "127.0.0.1:*")
	if _, err := Ask(t.Context(), w.open(alice, URIListen), mustAddr(t, "*:0"), token); err == nil {
		t.Fatal("all addresses were taken by a rule for loopback")
	}
	if _, err := Ask(t.Context(), w.open(alice, URIListen), where, "12"); err == nil {
		t.Fatal("a token that can be guessed was taken")
	}
	asked := w.open(alice, URIListen)
	at, err := Ask(t.Context(), asked, where, token)
	if err != nil {
		t.Fatal(err)
	}
	// A second one for the same port is told that it is busy.
	if _, err := Ask(t.Context(), w.open(alice, URIListen), at, token); err == nil || !strings.Contains(err.Error(), at.Addr) || !strings.Contains(err.Error(), "another program uses this port") {
		t.Errorf("a port that is busy: %v", err)
	}
	c, err := net.Dial("tcp", at.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	far := (<-w.back).(named)
	if far.device != alice || far.uri != BackURI(token) {
		t.Errorf("it went to %v as %s", far.device, far.uri)
	}
	_ = far.SetDeadline(time.Now().Add(within))
	_ = c.SetDeadline(time.Now().Add(within))
	go echo(far)
	_, _ = c.Write([]byte("hello"))
	_ = c.(*net.TCPConn).CloseWrite()
	one := make([]byte, 5)
	if _, err := io.ReadFull(c, one); err != nil || string(one) != "hello" {
		t.Errorf("%q came back, %v", one, err)
	}
	// It ends with the channel that asked for it.
	_ = asked.Close()
	for deadline := time.Now().Add(within); ; {
		c, err := net.Dial("tcp", at.Addr)
		if err != nil {
			break
		}
		_ = c.Close()
		if time.Now().After(deadline) {
			t.Fatal("it is still listening")
		}
	}
}

func TestAServerThatClosesCutsAll(t *testing.T) {
	w := newWorld(t)
	l := target(t, "tcp", "127.0.0.1:0", func(c net.Conn) { _, _ = io.Copy(c, c) })
	w.allow(DoDial, l.Addr().String())
	c, err := w.dial(alice, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	silent := w.open(alice, URIDial) // asks for nothing
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*net.TCPConn{c, silent} {
		if _, err := c.Read(make([]byte, 1)); !isCut(err) {
			t.Errorf("it reads as %v", err)
		}
	}
}

func TestBadRequestsAreCut(t *testing.T) {
	w := newWorld(t)
	for _, bytes := range []string{"\xff\xff", "\x00\x02{]", "\x00\x00", "\x00\x0d{\"address\":1}", "\x00\x04{}{}"} {
		c := w.open(alice, URIDial)
		_, _ = c.Write([]byte(bytes))
		if b, err := io.ReadAll(c); !isCut(err) || len(b) > 0 {
			t.Errorf("%q: %q, %v", bytes, b, err)
		}
	}
	if _, err := ask(t.Context(), w.open(alice, "forward://other"), request{Addr: "a:1"}); err == nil {
		t.Error("a service that is not there answered")
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	a, _ := tcpPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := Dial(ctx, a, Address{"tcp", "a:1"}); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte("\x00\x11{\"addr\":\"a:1\"} xx"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var q request
		r := bytes.NewReader(b)
		if readMessage(r, &q) != nil {
			return
		}
		var out bytes.Buffer
		var again request
		if err := errors.Join(writeMessage(&out, q), readMessage(&out, &again)); err != nil || again != q {
			t.Errorf("%+v becomes %+v, %v", q, again, err)
		}
	})
}

// What a server takes for a device waits for a place of the device, too.
//
// case: E6
func TestATakenConnectionWaitsForAPlace(t *testing.T) {
	w := newWorld(t)
	l := target(t, "tcp", "127.0.0.1:0", func(c net.Conn) { _, _ = io.Copy(c, c) })
	w.allow(DoDial, l.Addr().String())
	w.allow(DoListen, "127.0.0.1:*")
	at, err := Ask(t.Context(), w.open(alice, URIListen), mustAddr(t, "127.0.0.1:0"), NewToken())
	if err != nil {
		t.Fatal(err)
	}
	var first *net.TCPConn
	for range maxOfDevice - 1 { // the listener has one
		if first, err = w.dial(alice, l.Addr().String()); err != nil {
			t.Fatal(err)
		}
	}
	c, err := net.Dial("tcp", at.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("without a place it reads as %v", err)
	}
	_ = first.CloseWrite()
	select {
	case far := <-w.back:
		_ = far.Close()
	case <-time.After(within):
		t.Error("it was not joined when there was a place")
	}
}
