package codes

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/schollz/pake/v3"
)

// The exchange is PAKE2 of Boneh and Shoup (SPAKE2 with the password in the
// key): X = g^a·U^pw, Y = g^b·V^pw. The library takes its peer's message as
// JSON and hands it to crypto/elliptic, which panics on what is no point, and
// puts neither the parties nor a confirmation into its key. So points travel in
// their standard form here, are checked by crypto/ecdh before the library sees
// them, and the keys that count are derived from its key and all that was said.
const (
	curve    = "p256" // constant time, no cofactor; not so the library's own siec and ed25519
	shareLen = 65     // an uncompressed point: 4 | x(32) | y(32)
	macLen   = sha256.Size
	// KeyLen is the length in bytes of the key that both ends have.
	KeyLen = 32
)

var errPoint = errors.New("not a point of the curve")

// exchange is one end's part in one run.
type exchange struct {
	context []byte // what is agreed on before
	p       *pake.Pake
	mine    []byte
}

// newExchange begins a run. Its share is only there for a joiner: an inviter's
// comes about with the joiner's.
func newExchange(t Terms) (*exchange, error) {
	context := t.context()
	pw, err := hkdf.Key(sha256.New, []byte(t.Code.Words), nil, string(context), 32)
	if err != nil {
		return nil, err
	}
	e := &exchange{context: context}
	if e.p, err = pake.InitCurve(pw, int(t.Role), curve); err != nil {
		return nil, err
	}
	if t.Role == Joiner {
		e.mine, err = encodePoint(e.p.Xᵤ, e.p.Xᵥ)
	}
	return e, err
}

// secrets are what a run comes to.
type secrets struct {
	joiner, inviter []byte // the confirmations that they send
	key             [KeyLen]byte
}

// finish takes the peer's share.
func (e *exchange) finish(role Role, theirs []byte) (s secrets, err error) {
	x, y, err := decodePoint(theirs)
	if err != nil {
		return s, err
	}
	from := &pake.Pake{Role: int(Joiner), Xᵤ: x, Xᵥ: y}
	if role == Joiner {
		from = &pake.Pake{Role: int(Inviter), Yᵤ: x, Yᵥ: y}
	}
	if err := e.p.Update(from.Bytes()); err != nil {
		return s, err
	}
	joiner, inviter := e.mine, theirs
	if role == Inviter {
		if e.mine, err = encodePoint(e.p.Yᵤ, e.p.Yᵥ); err != nil {
			return s, err
		}
		joiner, inviter = theirs, e.mine
	}
	shared, err := e.p.SessionKey()
	if err != nil {
		return s, err
	}
	h := sha256.New()
	for _, part := range [][]byte{e.context, joiner, inviter} { // the context tells its own length
		h.Write(part)
	}
	said := h.Sum(nil)
	keys, err := hkdf.Key(sha256.New, shared, said, "peerlink/invite/1 keys", 2*macLen+KeyLen)
	if err != nil {
		return s, err
	}
	s.joiner, s.inviter = mac(keys[:macLen], said), mac(keys[macLen:2*macLen], said)
	copy(s.key[:], keys[2*macLen:])
	return s, nil
}

func mac(key, msg []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(msg)
	return m.Sum(nil)
}

// context is all that both ends must agree on beside the words: what for, which
// number, and which two devices, in their roles.
func (t Terms) context() []byte {
	inviter, joiner := t.Me, t.Peer
	if t.Role == Joiner {
		inviter, joiner = t.Peer, t.Me
	}
	b := append([]byte("peerlink/invite/1\x00"), byte(len(t.Purpose)))
	b = append(b, t.Purpose...)
	b = binary.BigEndian.AppendUint32(b, uint32(t.Code.Number))
	b = append(b, inviter[:]...)
	return append(b, joiner[:]...)
}

// encodePoint writes a point of the library's.
func encodePoint(x, y *big.Int) ([]byte, error) {
	b := make([]byte, shareLen)
	b[0] = 4
	x.FillBytes(b[1:33])
	y.FillBytes(b[33:])
	if _, err := ecdh.P256().NewPublicKey(b); err != nil { // the point at infinity: one in 2^256
		return nil, fmt.Errorf("make a share: %w", errPoint)
	}
	return b, nil
}

// decodePoint reads a stranger's point.
func decodePoint(b []byte) (x, y *big.Int, err error) {
	if len(b) != shareLen {
		return nil, nil, fmt.Errorf("a share of %d bytes, want %d", len(b), shareLen)
	}
	if _, err := ecdh.P256().NewPublicKey(b); err != nil {
		return nil, nil, fmt.Errorf("the share is %w", errPoint)
	}
	return new(big.Int).SetBytes(b[1:33]), new(big.Int).SetBytes(b[33:]), nil
}
