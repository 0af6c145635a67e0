package identity

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A revocation list says which of the keys that an account (or an authority)
// has signed are not to be believed any more. Each list is whole: a later one,
// with a higher number, takes the place of all before. On the wire and on disk,
// big-endian:
//
//	"PLR1" | key length:uint16 | key, DER SubjectPublicKeyInfo of the issuer
//	number:uint64 | issued:uint64, Unix milliseconds
//	count:uint16 | count × (kind:uint8, 'a' account or 'd' device; id[32]), ascending, each once
//	signature length:uint8 | signature of all before it, purpose "revoke"
//
// The issuer's id is the hash of the key, so the list needs no certificate.
const (
	revocationMagic   = "PLR1"
	revocationPurpose = "revoke"
	revocationBlock   = "PEERLINK REVOCATIONS" // of PEM
	// maxIssuerKey is the length of the longest key we know, in bytes: P-256
	// takes 91.
	maxIssuerKey = 128
	revokedLen   = 1 + idLen
	// maxRevocationLen is the length of the longest list in bytes.
	maxRevocationLen = len(revocationMagic) + 2 + maxIssuerKey + 8 + 8 + 2 + MaxRevoked*revokedLen + 1 + maxSignatureLen
	// maxIssued is the last moment that a list may name: the year 9999.
	maxIssued = 253_402_300_799_999
)

// MaxRevoked is how many ids one revocation list may have; one takes 33 bytes.
const MaxRevoked = 1024

// MaxRevocationNumber is the highest number that a list may have.
const MaxRevocationNumber = 1 << 62

// ErrRevocations is matched by the errors of ParseRevocationList.
var ErrRevocations = errors.New("identity: revocation list refused")

// RevocationList is a list whose signature has been verified. It is immutable
// and may be used concurrently.
type RevocationList struct {
	issuer AccountID
	number uint64
	issued time.Time
	who    []subject // ascending
	raw    []byte
}

// NewRevocationList signs a list with the key of an account or an authority.
// number is above that of every earlier list of the same key; who are all that
// are revoked, at most 1 024, those of earlier lists included. It blocks only if
// the key lives in hardware that does.
func NewRevocationList(issuer crypto.Signer, number uint64, who ...Subject) (*RevocationList, error) {
	fail := func(err error) (*RevocationList, error) {
		return nil, fmt.Errorf("identity: make revocation list: %w", err)
	}
	if err := checkKeyType(issuer.Public()); err != nil {
		return fail(err)
	}
	key, err := x509.MarshalPKIXPublicKey(issuer.Public())
	if err != nil {
		return fail(err)
	}
	ids := make([]subject, len(who))
	for i, s := range who {
		ids[i] = s.subject()
	}
	slices.SortFunc(ids, compareSubjects)
	ids = slices.Compact(ids)
	switch {
	case len(ids) > MaxRevoked:
		return fail(fmt.Errorf("%d ids, at most %d fit in", len(ids), MaxRevoked))
	case number > MaxRevocationNumber:
		return fail(fmt.Errorf("number %d is above %d", number, uint64(MaxRevocationNumber)))
	}
	b := binary.BigEndian.AppendUint16([]byte(revocationMagic), uint16(len(key)))
	b = append(b, key...)
	b = binary.BigEndian.AppendUint64(b, number)
	b = binary.BigEndian.AppendUint64(b, uint64(time.Now().UnixMilli()))
	b = binary.BigEndian.AppendUint16(b, uint16(len(ids)))
	for _, s := range ids {
		b = append(append(b, s.kind[0]), s.id[:]...)
	}
	sig, err := sign(issuer, revocationPurpose, b)
	if err != nil {
		return fail(err)
	}
	return ParseRevocationList(append(append(b, byte(len(sig))), sig...))
}

// RevocationList is NewRevocationList with the key of the device's account. A
// device that does not hold it fails.
func (id *Identity) RevocationList(number uint64, who ...Subject) (*RevocationList, error) {
	if id.account == nil {
		return nil, errors.New("identity: this device does not hold its account's key, so it cannot revoke another device")
	}
	return NewRevocationList(id.account, number, who...)
}

// ParseRevocationList reads what MarshalBinary or MarshalText wrote and verifies
// its signature. Sizes are checked before anything is allocated or verified.
// The error matches ErrRevocations.
func ParseRevocationList(b []byte) (*RevocationList, error) {
	l, err := parseRevocationList(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRevocations, err)
	}
	return l, nil
}

func parseRevocationList(b []byte) (*RevocationList, error) {
	if len(b) > 2*maxRevocationLen {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(b), 2*maxRevocationLen)
	}
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("-----BEGIN ")) {
		block, rest := pem.Decode(b)
		if block == nil || block.Type != revocationBlock || len(bytes.TrimSpace(rest)) > 0 {
			return nil, fmt.Errorf("want one PEM block “%s”", revocationBlock)
		}
		b = block.Bytes
	}
	if len(b) > maxRevocationLen {
		return nil, fmt.Errorf("%d bytes, at most %d are taken", len(b), maxRevocationLen)
	}
	l := &RevocationList{raw: bytes.Clone(b)}
	r := fieldReader{rest: l.raw}
	if string(r.take(len(revocationMagic))) != revocationMagic {
		return nil, fmt.Errorf("it does not begin with %q", revocationMagic)
	}
	key := r.take(int(r.number(2, maxIssuerKey)))
	l.number = r.number(8, MaxRevocationNumber)
	l.issued = time.UnixMilli(int64(r.number(8, maxIssued)))
	l.readWho(&r)
	signed := l.raw[:len(l.raw)-len(r.rest)]
	sig := r.take(int(r.number(1, maxSignatureLen)))
	switch {
	case r.err != nil:
		return nil, r.err
	case len(r.rest) > 0:
		return nil, fmt.Errorf("%d bytes follow the signature", len(r.rest))
	}
	pub, err := x509.ParsePKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("the issuer's key: %w", err)
	}
	if err := checkKeyType(pub); err != nil {
		return nil, fmt.Errorf("the issuer's key: %w", err)
	}
	l.issuer = AccountID(keyID(key))
	return l, verify(pub, revocationPurpose, signed, sig)
}

// readWho reads the ids, which stand in order.
func (l *RevocationList) readWho(r *fieldReader) {
	n := int(r.number(2, MaxRevoked))
	if len(r.rest) < n*revokedLen {
		r.fail(errCutOff)
		return
	}
	for range n {
		b := r.take(revokedLen)
		s := subject{kinds[b[0]], [idLen]byte(b[1:])}
		switch {
		case s.kind == "":
			r.fail(fmt.Errorf("an id of kind %q, want 'a' or 'd'", b[0]))
		case len(l.who) > 0 && compareSubjects(l.who[len(l.who)-1], s) >= 0:
			r.fail(errors.New("the ids are not in order"))
		}
		l.who = append(l.who, s)
	}
}

var kinds = map[byte]string{'a': "account", 'd': "device"}

func compareSubjects(a, b subject) int {
	if a.kind != b.kind {
		return int(a.kind[0]) - int(b.kind[0])
	}
	return bytes.Compare(a.id[:], b.id[:])
}

var errCutOff = errors.New("the rest is cut off")

// fieldReader takes fields of fixed sizes from bytes. After the first error it
// returns zeros.
type fieldReader struct {
	rest []byte
	err  error
}

func (r *fieldReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// take returns the next n bytes.
func (r *fieldReader) take(n int) []byte {
	if r.err == nil && len(r.rest) < n {
		r.fail(errCutOff)
	}
	if r.err != nil {
		return make([]byte, n) // n is bounded: it is a constant, or number has checked it
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// number reads an integer of so many bytes that is at most most.
func (r *fieldReader) number(size int, most uint64) uint64 {
	var b [8]byte
	copy(b[8-size:], r.take(size))
	v := binary.BigEndian.Uint64(b[:])
	if v > most {
		r.fail(fmt.Errorf("%d where at most %d is allowed", v, most))
		return 0
	}
	return v
}

// Issuer returns the id of the account or authority that signed the list.
func (l *RevocationList) Issuer() AccountID { return l.issuer }

// Number returns the list's number; a higher one takes its place.
func (l *RevocationList) Number() uint64 { return l.number }

// Issued returns when the list was made, by its issuer's clock. Nothing depends
// on it.
func (l *RevocationList) Issued() time.Time { return l.issued }

// Digest names the list: the SHA-256 of its bytes.
func (l *RevocationList) Digest() [sha256.Size]byte { return sha256.Sum256(l.raw) }

// Revokes reports whether the list names an id.
func (l *RevocationList) Revokes(who Subject) bool { return l.has(who.subject()) }

func (l *RevocationList) has(s subject) bool {
	_, found := slices.BinarySearchFunc(l.who, s, compareSubjects)
	return found
}

// Revoked returns the ids that the list names: first accounts, then devices.
func (l *RevocationList) Revoked() []Subject {
	out := make([]Subject, len(l.who))
	for i, s := range l.who {
		if s.kind == "account" {
			out[i] = AccountID(s.id)
		} else {
			out[i] = DeviceID(s.id)
		}
	}
	return out
}

// String says whose list it is, for people.
func (l *RevocationList) String() string {
	d := l.Digest()
	return fmt.Sprintf("revocation list %d of account %s (%d revoked, digest %s)", l.number, l.issuer.Short(), len(l.who), hex.EncodeToString(d[:4]))
}

// MarshalBinary returns the list's bytes, a copy.
func (l *RevocationList) MarshalBinary() ([]byte, error) { return bytes.Clone(l.raw), nil }

// MarshalText returns the list as a PEM block.
func (l *RevocationList) MarshalText() ([]byte, error) {
	return pem.EncodeToMemory(&pem.Block{Type: revocationBlock, Bytes: l.raw}), nil
}
