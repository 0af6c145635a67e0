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

	"peerlink/identity"
	"peerlink/internal/packed"
)

// pair returns both ends of a Unix socket within this process.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", folder(t)+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func config(t testing.TB, id *identity.Identity) Config {
	t.Helper()
	c, err := Config{Identity: id, Dir: "/unused"}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func banned(t testing.TB, who identity.Subject) *identity.Trust {
	t.Helper()
	trust := new(identity.Trust)
	if err := trust.Set(who, identity.Banned); err != nil {
		t.Fatal(err)
	}
	return trust
}

func TestTrustIsAskedOnBothSides(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	for _, side := range []role{caller, callee} {
		a, b := config(t, alice), config(t, bob)
		if side == caller {
			a.Trust = banned(t, bob.AccountID())
		} else {
			b.Trust = banned(t, alice.DeviceID())
		}
		x, y := pair(t)
		donec := make(chan error, 1)
		go func() {
			_, err := b.answer(context.Background(), y)
			donec <- err
		}()
		_, err := a.call(context.Background(), x, bob.DeviceID(), streamService)
		aerr, berr := err, <-donec
		if aerr == nil || berr == nil {
			t.Fatalf("the %s refuses: the caller got %v, the callee %v", side, aerr, berr)
		}
		judge, other := aerr, berr
		if side == callee {
			judge, other = berr, aerr
		}
		if !errors.Is(judge, identity.ErrNotTrusted) {
			t.Errorf("the %s: %v, want ErrNotTrusted", side, judge)
		}
		if !errors.Is(other, ErrRefused) {
			t.Errorf("the other side of the %s: %v, want ErrRefused", side, other)
		}
	}
}

// A device must have its own key: another's chain is not enough.
func TestForgedProofIsRefused(t *testing.T) {
	alice, bob, eve := newIdentity(t, "alice"), newIdentity(t, "bob"), newIdentity(t, "eve")
	for name, forge := range map[string]func(p *proof, x *exchange){
		"another's chain": func(p *proof, _ *exchange) { p.chain = bob.Peer().Chain() },
		"reflected role": func(p *proof, x *exchange) {
			p.sig, _ = eve.Sign(string(callee), x.statement(p.creds))
		},
		"other purpose": func(p *proof, x *exchange) { p.sig, _ = eve.Sign("signal", x.statement(p.creds)) },
		"no signature":  func(p *proof, _ *exchange) { p.sig = nil },
		"old nonce": func(p *proof, x *exchange) {
			y := *x
			y.hellos[1] = append([]byte(nil), y.hellos[1]...)
			y.hellos[1][len(y.hellos[1])-1] ^= 1
			p.sig, _ = eve.Sign(string(caller), y.statement(p.creds))
		},
		"cut chain": func(p *proof, _ *exchange) { p.chain = p.chain[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			x, y := pair(t)
			donec := make(chan error, 1)
			go func() {
				_, err := config(t, alice).answer(context.Background(), y)
				donec <- err
			}()
			ex := &exchange{cfg: config(t, eve), conn: x}
			if _, err := ex.greet(hello{service: streamService, device: alice.DeviceID()}, 0, callee); err != nil {
				t.Fatal(err)
			}
			b, err := ex.prove(caller)
			if err != nil {
				t.Fatal(err)
			}
			p, err := decodeProof(b)
			if err != nil {
				t.Fatal(err)
			}
			forge(&p, ex)
			if b, err = p.encode(); err != nil {
				t.Fatal(err)
			}
			send(x, kindProof, b)
			if _, err := receive(x, kindProof); !errors.Is(err, ErrRefused) {
				t.Errorf("the forger got %v, want ErrRefused", err)
			}
			if err := <-donec; err == nil {
				t.Error("the forged proof was taken")
			}
		})
	}
}

// A proof that is made for the wrong process is refused before its signature is
// looked at: that is what keeps a process in the middle out.
//
// fault: G5
func TestProofOfAnotherProcessIsRefused(t *testing.T) {
	alice, eve := newIdentity(t, "alice"), newIdentity(t, "eve")
	x, y := pair(t)
	donec := make(chan error, 1)
	go func() {
		_, err := config(t, alice).answer(context.Background(), y)
		donec <- err
	}()
	ex := &exchange{cfg: config(t, eve), conn: x}
	if _, err := ex.greet(hello{service: streamService, device: alice.DeviceID()}, 0, callee); err != nil {
		t.Fatal(err)
	}
	who := creds{pid: os.Getpid() + 1, uid: os.Geteuid()}
	sig, err := eve.Sign(string(caller), ex.statement(who))
	if err != nil {
		t.Fatal(err)
	}
	b, err := proof{chain: eve.Peer().Chain(), creds: who, sig: sig}.encode()
	if err != nil {
		t.Fatal(err)
	}
	send(x, kindProof, b)
	if _, err := receive(x, kindProof); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "process") {
		t.Errorf("%v, want a refusal that names the processes", err)
	}
	<-donec
}

func TestWrongDeviceIsRefused(t *testing.T) {
	alice, bob, eve := newIdentity(t, "alice"), newIdentity(t, "bob"), newIdentity(t, "eve")
	x, y := pair(t)
	go config(t, eve).answer(context.Background(), y)
	if _, err := config(t, alice).call(context.Background(), x, bob.DeviceID(), streamService); !errors.Is(err, ErrRefused) {
		t.Errorf("%v, want ErrRefused", err)
	}
	// One that claims to be bob, and proves to be eve.
	x, y = pair(t)
	donec := make(chan error, 1)
	go func() {
		_, err := config(t, alice).call(context.Background(), x, bob.DeviceID(), streamService)
		donec <- err
	}()
	ex := &exchange{cfg: config(t, eve), conn: y}
	ex.hellos[0], _ = receive(y, kindHello)
	ex.greet(hello{device: bob.DeviceID()}, 1, caller)
	ex.first, _ = receive(y, kindProof)
	b, err := ex.prove(callee)
	if err != nil {
		t.Fatal(err)
	}
	send(y, kindProof, b)
	if err := <-donec; err == nil || !strings.Contains(err.Error(), "found "+eve.DeviceID().String()) {
		t.Errorf("%v, want the device that was found", err)
	}
}

// fault: G5
func TestOtherVersionIsToldWhatToDo(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	x, y := pair(t)
	go config(t, alice).answer(context.Background(), y)
	b, err := packed.Pack(wireMagic, wireVersion+1, "all else is new")
	if err != nil {
		t.Fatal(err)
	}
	send(x, kindHello, b)
	if _, err := receive(x, kindHello); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "restart") {
		t.Errorf("a newer caller is told %v", err)
	}
	x, y = pair(t)
	go func() {
		receive(y, kindHello)
		send(y, kindHello, b)
		io.Copy(io.Discard, y)
	}()
	if _, err := config(t, alice).call(context.Background(), x, bob.DeviceID(), streamService); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("a caller of an older callee is told %v", err)
	}
}

// Programs before 0.6 could keep TLS over the socket.
func TestCallerThatAsksForTLSIsTold(t *testing.T) {
	alice := newIdentity(t, "alice")
	x, y := pair(t)
	go config(t, alice).answer(context.Background(), y)
	id, nonce := alice.DeviceID(), make([]byte, nonceLen)
	b, err := packed.Pack(wireMagic, wireVersion, 1, streamService, id[:], nonce)
	if err != nil {
		t.Fatal(err)
	}
	send(x, kindHello, b)
	if _, err := receive(x, kindHello); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("the caller is told %v", err)
	}
}

// fault: A1, A3
func TestBytesOfStrangersAreBounded(t *testing.T) {
	alice := newIdentity(t, "alice")
	for name, sent := range map[string]string{
		"nothing":        "",
		"half a head":    "\x01\x00",
		"too long":       "\x01\xff\xff",
		"cut":            "\x01\x00\x20abc",
		"HTTP":           "GET / HTTP/1.1\r\n\r\n",
		"early proof":    "\x02\x00\x01\x90",
		"4 GiB string":   "\x01\x00\x05\xdb\xff\xff\xff\xff",
		"4 Gi elements":  "\x01\x00\x05\xdd\xff\xff\xff\xff",
		"not a hello":    "\x01\x00\x01\xc0",
		"another's word": "\x01\x00\x07\x92\xa4ssh2\x01",
	} {
		x, y := pair(t)
		io.WriteString(x, sent)
		x.(*net.UnixConn).CloseWrite()
		if _, err := config(t, alice).answer(context.Background(), y); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzMessages(f *testing.F) {
	alice, err := identity.Generate("alice")
	if err != nil {
		f.Fatal(err)
	}
	seed := func(b []byte, err error) {
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	seed(hello{service: streamService, device: alice.DeviceID()}.encode())
	seed(hello{device: alice.DeviceID()}.encode())
	seed(proof{chain: alice.Peer().Chain(), creds: creds{1, 2}, sig: make([]byte, 64)}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, from := range []role{caller, callee} {
			h, err := decodeHello(b, from)
			if err != nil {
				continue
			}
			if from == caller && h.service == "" {
				continue // it has no place in a callee's hello
			}
			again, err := h.encode()
			if err != nil {
				t.Fatal(err)
			}
			if h2, err := decodeHello(again, from); err != nil || h2 != h {
				t.Fatalf("%+v became %+v, %v", h, h2, err)
			}
		}
		if p, err := decodeProof(b); err == nil {
			again, err := p.encode()
			if err != nil {
				t.Fatal(err)
			}
			if p2, err := decodeProof(again); err != nil || p2.creds != p.creds || len(p2.chain) != len(p.chain) {
				t.Fatalf("%+v became %+v, %v", p, p2, err)
			}
		}
		readRefusal(b)
	})
}

func FuzzAnnouncement(f *testing.F) {
	alice, err := identity.Generate("alice")
	if err != nil {
		f.Fatal(err)
	}
	when := time.Now()
	b, err := Config{Identity: alice, Services: []string{"shm"}}.announce(17, when)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("\x92\xc4\x01\x90\xc4\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := readAnnouncement(b, when)
		if err == nil && (d.Peer.Device.IsZero() || len(d.Services) > maxServices) {
			t.Fatalf("taken: %+v", d)
		}
	})
}
