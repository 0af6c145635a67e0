package ice

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// The check of a TCP connection. Each side sends
//
//	hello: "PLC1" | role | request id [16] | nonce [16]      37 bytes
//	proof: HMAC-SHA256(check key, statement)                 32 bytes
//	statement: "peerlink/ice-tcp/1" | 0 | prover's role | request id | verifier's nonce | prover's nonce
//
// and role is 'c' (controlling: who sent the offer) or 'd' (controlled). Who
// dialled sends its hello first; who accepted answers hello and proof at once;
// with simultaneous open both have dialled and both say hello. After both
// proofs the controlling side sends one byte, 'N', on the connection it
// chooses, and TLS starts on it: the controlling side is the TLS client,
// whoever dialled. On the others it closes. Within TLS, the controlled side's
// first byte is 'N' too: it says that this is the stream it has taken, and Dial
// returns. Everything after it is the application's.
//
// The check is no authentication of a device, which TLS does: it finds the
// negotiation that a connection belongs to, and keeps everybody who was not
// told the key of the offer from taking up its time.
const (
	checkMagic   = "PLC1"
	checkLabel   = "peerlink/ice-tcp/1\x00"
	helloLen     = len(checkMagic) + 1 + 16 + 16
	nominate     = 'N'
	greeting     = 'N'
	checkTimeout = 5 * time.Second // two round trips and a lost SYN of a bad link
)

// role is a side of a negotiation.
type role byte

const (
	controlling role = 'c'
	controlled  role = 'd'
)

func (r role) other() role {
	if r == controlling {
		return controlled
	}
	return controlling
}

// errCrossed: two dials of different negotiations met in one connection.
var errCrossed = errors.New("met a dial of another negotiation")

type hello struct {
	role  role
	id    requestID
	nonce [16]byte
}

func newHello(r role, id requestID) hello {
	h := hello{role: r, id: id}
	rand.Read(h.nonce[:])
	return h
}

func (h hello) encode() []byte {
	b := make([]byte, 0, helloLen+sha256.Size)
	b = append(b, checkMagic...)
	b = append(b, byte(h.role))
	b = append(b, h.id[:]...)
	return append(b, h.nonce[:]...)
}

func parseHello(b []byte) (hello, error) {
	if len(b) != helloLen || string(b[:len(checkMagic)]) != checkMagic {
		return hello{}, errors.New("not a check of peerlink")
	}
	b = b[len(checkMagic):]
	h := hello{role: role(b[0]), id: requestID(b[1:17]), nonce: [16]byte(b[17:])}
	if h.role != controlling && h.role != controlled {
		return hello{}, fmt.Errorf("unknown role %q", b[0])
	}
	return h, nil
}

func readHello(conn net.Conn) (hello, error) {
	var b [helloLen]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return hello{}, err
	}
	return parseHello(b[:])
}

// prove computes the proof of prover towards verifier.
func (k checkKey) prove(prover, verifier hello) []byte {
	mac := hmac.New(sha256.New, k[:])
	mac.Write([]byte(checkLabel))
	mac.Write([]byte{byte(prover.role)})
	mac.Write(prover.id[:])
	mac.Write(verifier.nonce[:])
	mac.Write(prover.nonce[:])
	return mac.Sum(nil)
}

func (k checkKey) readProof(conn net.Conn, prover, verifier hello) error {
	var b [sha256.Size]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return err
	}
	if !hmac.Equal(b[:], k.prove(prover, verifier)) {
		return errors.New("proof does not fit the offer's key")
	}
	return nil
}

// checkDialled runs the dialling side.
func checkDialled(conn net.Conn, r role, id requestID, key checkKey) error {
	mine := newHello(r, id)
	if _, err := conn.Write(mine.encode()); err != nil {
		return err
	}
	theirs, err := readHello(conn)
	switch {
	case err != nil:
		return err
	case theirs.id != id || theirs.role != r.other():
		return errCrossed
	}
	if _, err := conn.Write(key.prove(mine, theirs)); err != nil {
		return err
	}
	return key.readProof(conn, theirs, mine)
}

// checkAccepted runs the accepting side; find looks up the negotiation that
// the hello names.
func checkAccepted(conn net.Conn, find func(hello) *negotiation) (*negotiation, error) {
	theirs, err := readHello(conn)
	if err != nil {
		return nil, err
	}
	n := find(theirs)
	if n == nil {
		return nil, errors.New("no such negotiation")
	}
	mine := newHello(n.role, n.id)
	if _, err := conn.Write(append(mine.encode(), n.key.prove(mine, theirs)...)); err != nil {
		return nil, err
	}
	return n, n.key.readProof(conn, theirs, mine)
}

// bounded runs f, which reads and writes conn, until ctx ends or the time is
// over, and leaves conn without a deadline.
func bounded(ctx context.Context, conn interface{ SetDeadline(time.Time) error }, limit time.Duration, f func() error) error {
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}
