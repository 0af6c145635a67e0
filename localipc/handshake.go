package localipc

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"peerlink/identity"
	"peerlink/internal/proving"
)

// creds is what the kernel says of the process at the other end of a socket.
type creds struct{ pid, uid int }

type proven struct {
	conn    net.Conn
	peer    identity.Peer
	service string
}

// Peer implements proving.Proven.
func (p proven) Peer() identity.Peer { return p.peer }

// Close implements io.Closer.
func (p proven) Close() error { return p.conn.Close() }

type exchange struct {
	cfg   Config
	conn  net.Conn
	creds creds // the far end's

	hellos [2][]byte // the caller's and the callee's, as they went over the wire
	first  []byte    // the caller's proof
}

// statement is what a side signs: everything that was said before, and who the
// kernel must say it is.
func (x *exchange) statement(who creds) []byte {
	var b []byte
	for _, m := range [][]byte{x.hellos[0], x.hellos[1], x.first} {
		sum := sha256.Sum256(m)
		b = append(b, sum[:]...)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(who.pid))
	return binary.BigEndian.AppendUint64(b, uint64(who.uid))
}

func (x *exchange) prove(as role) ([]byte, error) {
	self := creds{pid: os.Getpid(), uid: selfUID()}
	sig, err := x.cfg.Identity.Sign(string(as), x.statement(self))
	if err != nil {
		return nil, fmt.Errorf("sign the proof: %w", err)
	}
	return proof{chain: x.cfg.Identity.Peer().Chain(), creds: self, sig: sig}.encode()
}

// judge verifies the far end's proof. What is cheap comes first; the trust
// store is asked about a device only when it is proven to be there.
func (x *exchange) judge(b []byte, as role, dialled identity.DeviceID) (identity.Peer, error) {
	p, err := decodeProof(b)
	if err != nil {
		return identity.Peer{}, err
	}
	if p.creds != x.creds {
		return identity.Peer{}, fmt.Errorf("the far end says that it is process %d of user %d, the system says %d of user %d: "+
			"a process stands in between, or the two run in different PID namespaces (then connect over the network)",
			p.creds.pid, p.creds.uid, x.creds.pid, x.creds.uid)
	}
	peer, err := identity.VerifyChain(p.chain, time.Now())
	if err != nil {
		return identity.Peer{}, err
	}
	if !dialled.IsZero() && peer.Device != dialled {
		return identity.Peer{}, fmt.Errorf("dialled device %s, found %s", dialled, peer.Device)
	}
	if err := peer.Verify(string(as), x.statement(p.creds), p.sig); err != nil {
		return identity.Peer{}, err
	}
	return peer, x.cfg.Trust.Check(peer)
}

// call runs the caller's side. The caller owns conn.
func (c Config) call(ctx context.Context, conn net.Conn, dialled identity.DeviceID, service string) (proven, error) {
	x := &exchange{cfg: c, conn: conn}
	return x.run(ctx, func() (proven, error) { return x.call(dialled, service) })
}

// answer runs the callee's side.
func (c Config) answer(ctx context.Context, conn net.Conn) (proven, error) {
	x := &exchange{cfg: c, conn: conn}
	return x.run(ctx, func() (proven, error) { return x.answer() })
}

// run bounds a handshake in time; without success it closes the connection.
func (x *exchange) run(ctx context.Context, handshake func() (proven, error)) (proven, error) {
	return proving.Within(ctx, x.conn, x.cfg.HandshakeTimeout, "proven its device", func() (proven, error) { return x.checked(handshake) })
}

// checked asks the kernel which process is there before anything is read.
func (x *exchange) checked(handshake func() (proven, error)) (proven, error) {
	var err error
	if x.creds, err = peerCreds(x.conn); err != nil {
		return proven{}, fmt.Errorf("ask the system who is at the other end: %w", err)
	}
	if err := x.creds.allowed(); err != nil {
		return proven{}, err
	}
	return handshake()
}

// allowed refuses a process of another user.
func (c creds) allowed() error {
	if c.uid == selfUID() {
		return nil
	}
	return fmt.Errorf("process %d belongs to user %d, and this one runs as user %d: only processes of one user talk over this carrier", c.pid, c.uid, selfUID())
}

func (x *exchange) call(dialled identity.DeviceID, service string) (proven, error) {
	mine := hello{service: service, device: dialled}
	theirs, err := x.greet(mine, 0, callee)
	if err != nil {
		return proven{}, err
	}
	if theirs.device != dialled {
		return proven{}, fmt.Errorf("dialled device %s, found %s", dialled, theirs.device)
	}
	if x.first, err = x.prove(caller); err != nil {
		return proven{}, err
	}
	if err := send(x.conn, kindProof, x.first); err != nil {
		return proven{}, x.lastWord(err)
	}
	b, err := receive(x.conn, kindProof)
	if err != nil {
		return proven{}, err
	}
	peer, err := x.judge(b, callee, dialled)
	if err != nil {
		refuse(x.conn, err)
		return proven{}, err
	}
	if err := send(x.conn, kindReady, nil); err != nil {
		return proven{}, x.lastWord(err)
	}
	return proven{conn: x.conn, peer: peer, service: service}, nil
}

// greet exchanges the hellos; at is the place of one's own. The caller speaks
// first.
func (x *exchange) greet(mine hello, at int, other role) (theirs hello, err error) {
	if _, err := rand.Read(mine.nonce[:]); err != nil {
		return theirs, err
	}
	b, err := mine.encode()
	if err != nil {
		return theirs, err
	}
	x.hellos[at] = b
	if err := send(x.conn, kindHello, b); err != nil {
		return theirs, x.lastWord(err)
	}
	if other == caller {
		return theirs, nil // it has spoken already
	}
	if x.hellos[1-at], err = receive(x.conn, kindHello); err != nil {
		return theirs, err
	}
	return decodeHello(x.hellos[1-at], other)
}

// lastWord looks for the reason that the far end gave before it closed.
func (x *exchange) lastWord(err error) error {
	if _, rerr := receive(x.conn, kindRefused); errors.Is(rerr, ErrRefused) {
		return rerr
	}
	return err
}

func (x *exchange) answer() (proven, error) {
	out, err := x.answerOrSay()
	if err != nil && !errors.Is(err, ErrRefused) {
		refuse(x.conn, err)
	}
	return out, err
}

func (x *exchange) answerOrSay() (proven, error) {
	b, err := receive(x.conn, kindHello)
	if err != nil {
		return proven{}, err
	}
	x.hellos[0] = b
	theirs, err := decodeHello(b, caller)
	if err != nil {
		return proven{}, err
	}
	self := x.cfg.Identity.DeviceID()
	switch {
	case theirs.device != self:
		return proven{}, fmt.Errorf("device %s was called, this is %s", theirs.device.Short(), self.Short())
	case theirs.service != streamService && !slices.Contains(x.cfg.Services, theirs.service):
		return proven{}, fmt.Errorf("service %q is not offered", theirs.service)
	}
	if _, err := x.greet(hello{device: self}, 1, caller); err != nil {
		return proven{}, err
	}
	if x.first, err = receive(x.conn, kindProof); err != nil {
		return proven{}, err
	}
	return x.conclude(theirs.service)
}

// conclude judges the caller, proves this device and waits for the caller's
// consent.
func (x *exchange) conclude(service string) (proven, error) {
	shown := x.first
	x.first = nil // the caller signed before there was one
	peer, err := x.judge(shown, caller, identity.DeviceID{})
	if err != nil {
		return proven{}, err
	}
	x.first = shown
	b, err := x.prove(callee)
	if err != nil {
		return proven{}, err
	}
	if err := send(x.conn, kindProof, b); err != nil {
		return proven{}, x.lastWord(err)
	}
	if _, err := receive(x.conn, kindReady); err != nil {
		return proven{}, err
	}
	return proven{conn: x.conn, peer: peer, service: service}, nil
}
