package ice

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"peerlink/internal/calls"
)

func TestTheProofHasTheDocumentedBytes(t *testing.T) {
	m := sampleOffer()
	prover, verifier := hello{role: controlling, id: m.id}, hello{role: controlled, id: m.id}
	for i := range prover.nonce {
		prover.nonce[i], verifier.nonce[i] = byte(0xa0+i), byte(0xb0+i)
	}
	const wantHello = "504c433163000102030405060708090a0b0c0d0e0fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf"
	const wantProof = "16f573beff9e5434a7605f3a87def2ba9cfc138c731cbca299ced11a818449c1"
	if got := hex.EncodeToString(prover.encode()); got != wantHello {
		t.Errorf("hello %s", got)
	}
	if got := hex.EncodeToString(m.tcp.key.prove(prover, verifier)); got != wantProof {
		t.Errorf("proof %s", got)
	}
	if bytes.Equal(m.tcp.key.prove(prover, verifier), m.tcp.key.prove(verifier, prover)) {
		t.Error("a proof can be sent back to its maker")
	}
}

// tcpPair is a real connection with room in its buffers, as a check writes
// before it reads.
func tcpPair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(10 * time.Second)
	a.SetDeadline(end)
	b.SetDeadline(end)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestAnAcceptedCheckNeedsTheRightKeyRoleAndRequest(t *testing.T) {
	id, key := calls.NewID(), checkKey{1}
	n := newNegotiation(t.Context(), controlled, id, newIdentity(t, "a").DeviceID())
	defer n.end()
	n.key = key
	find := func(h hello) *negotiation {
		if h.id == id && h.role == controlling {
			return n
		}
		return nil
	}
	for name, c := range map[string]struct {
		role role
		id   requestID
		key  checkKey
		ok   bool
	}{
		"right":         {controlling, id, key, true},
		"wrong key":     {controlling, id, checkKey{2}, false},
		"wrong role":    {controlled, id, key, false},
		"other request": {controlling, calls.NewID(), key, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := tcpPair(t)
			done := make(chan error, 1)
			go func() {
				err := checkDialled(a, c.role, c.id, c.key)
				if err != nil {
					a.Close()
				}
				done <- err
			}()
			got, err := checkAccepted(b, find)
			if err != nil {
				b.Close()
			}
			derr := <-done
			if (err == nil) != c.ok || (derr == nil) != c.ok || c.ok && got != n {
				t.Errorf("accepted %v, dialled %v", err, derr)
			}
		})
	}
}

// With simultaneous open both ends have dialled.
func TestTwoDialsThatMeetCheckEachOtherOrKnowThatTheyCrossed(t *testing.T) {
	id, key := calls.NewID(), checkKey{1}
	for name, c := range map[string]struct {
		id   requestID
		role role
		want error
	}{
		"the same negotiation": {id, controlled, nil},
		"crossed":              {calls.NewID(), controlling, errCrossed},
		"itself":               {id, controlling, errCrossed},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := tcpPair(t)
			done := make(chan error, 1)
			go func() { done <- checkDialled(a, controlling, id, key) }()
			err := checkDialled(b, c.role, c.id, key)
			if aerr := <-done; !errors.Is(err, c.want) || !errors.Is(aerr, c.want) {
				t.Errorf("%v and %v, want %v", err, aerr, c.want)
			}
		})
	}
}

func TestBoundedEndsWithItsContextAndLeavesNoDeadline(t *testing.T) {
	a, b := tcpPair(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	started := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- bounded(ctx, a, time.Minute, func() error {
			close(started)
			_, err := a.Read(make([]byte, 1))
			return err
		})
	}()
	<-started
	cancel(errTest)
	if err := <-done; !errors.Is(err, errTest) {
		t.Errorf("error %v", err)
	}
	if err := bounded(t.Context(), a, time.Minute, func() error { return nil }); err != nil {
		t.Error(err)
	}
	b.Write([]byte{1})
	if _, err := a.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func (d *device) tcpAddr() string {
	for _, e := range d.engines {
		if e, ok := e.(*tcpEngine); ok {
			return net.JoinHostPort("127.0.0.1", strconv.Itoa(e.local.Port))
		}
	}
	return ""
}

// Strangers at the shared port cost a bounded number of connections and keep
// nobody else out.
// fault: D7, J3, E8
func TestHostileConnectionsAreBoundedAndKeepNobodyOut(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a", engines("tcp")), x.newDevice(t, "b", engines("tcp"))
	dial := func() net.Conn {
		c, err := net.Dial("tcp", b.tcpAddr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	// Slow ones: connected, a byte said, and there they stay.
	var slow []net.Conn
	for range 2 * maxUncheckedOfOne {
		c := dial()
		c.Write([]byte{checkMagic[0]})
		slow = append(slow, c)
	}
	engine := b.engines[0].(*tcpEngine)
	// The oldest went first.
	for i, c := range slow[:maxUncheckedOfOne] {
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("slow connection %d is still served: %v", i, err)
		}
	}
	if n := engine.gate.Held(); n > maxUncheckedOfOne {
		t.Errorf("%d unchecked connections are kept", n)
	}
	// Garbage and checks of nobody's request are closed without a word.
	for name, b := range map[string][]byte{
		"garbage":            bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 10),
		"an unknown request": newHello(controlling, calls.NewID()).encode(),
		"an unknown role":    newHello('x', calls.NewID()).encode(),
	} {
		c := dial()
		c.Write(b)
		if got, err := io.ReadAll(c); len(got) > 0 {
			t.Errorf("%s was answered %x, %v", name, got, err)
		}
	}
	connect(t, a, b)
	connect(t, b, a)
}

// fault: J3, J2
func TestAFloodFromOneAddressDoesNotStopDials(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a", engines("tcp")), x.newDevice(t, "b", engines("tcp"))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			junk := make([]byte, helloLen)
			rand.Read(junk)
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.Dial("tcp", b.tcpAddr())
				if err != nil {
					continue
				}
				c.(*net.TCPConn).SetLinger(0) // leave no TIME_WAIT behind
				c.Write(junk)
				c.Close()
			}
		})
	}
	for range 10 {
		connect(t, a, b)
	}
	close(stop)
	wg.Wait()
}

// A stranger who has the request id but not the key, and one who nominates
// with a wrong byte, get no further.
func TestAWrongProofOrNominationIsNotServed(t *testing.T) {
	x := newExchange()
	a, b := x.newDevice(t, "a", engines("tcp")), x.newDevice(t, "b", engines("tcp"))
	offer := &message{kind: calls.Offer, id: calls.NewID(), tcp: &tcpPart{key: checkKey{1}}}
	msg, err := offer.encode()
	if err != nil {
		t.Fatal(err)
	}
	b.board.Handle(a.id.Peer(), msg)
	waitFor(t, func() bool { return b.board.Side(offer.id, true) != nil })
	for _, c := range []struct {
		key  checkKey
		then byte
	}{{checkKey{2}, nominate}, {checkKey{1}, 'X'}} {
		conn, err := net.Dial("tcp", b.tcpAddr())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if err := checkDialled(conn, controlling, offer.id, c.key); err == nil {
			conn.Write([]byte{c.then})
		}
		if n, err := io.Copy(io.Discard, conn); n > 0 || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("key %x…, %q: read %d, %v", c.key[0], c.then, n, err)
		}
		conn.Close()
	}
	if b.accepted() {
		t.Error("a stream was delivered")
	}
}

func FuzzParseHello(f *testing.F) {
	f.Add(newHello(controlling, requestID{1}).encode())
	f.Add([]byte(checkMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHello(b)
		if err == nil && !bytes.Equal(h.encode(), b) {
			t.Fatalf("%x read as %+v", b, h)
		}
	})
}
