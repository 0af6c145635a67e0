package identity

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// A revocation list says which of the keys that an account (or an authority) has
// signed are no longer to be believed: items of kind:uint8, 'a' account or 'd' device | id[32].
var revocationLists = listForm[subject]{
	magic: "PLR1", purpose: "revoke", block: "PEERLINK REVOCATIONS",
	most: MaxRevoked, itemLen: revokedLen,
	full:    "%d ids, at most %d fit in",
	compare: compareSubjects,
	append: func(b []byte, s subject) ([]byte, error) {
		return append(append(b, s.kind[0]), s.id[:]...), nil
	},
	read: func(from *cryptobyte.String) (s subject, err error) {
		var kind byte
		if !from.ReadUint8(&kind) || !from.CopyBytes(s.id[:]) {
			return s, errCutOff
		}
		if s.kind = kinds[kind]; s.kind == "" {
			return s, fmt.Errorf("an id of kind %q, want 'a' or 'd'", kind)
		}
		return s, nil
	},
}

const revokedLen = 1 + idLen

// MaxRevoked is how many ids one revocation list may have; one takes 33 bytes.
const MaxRevoked = 1024

// MaxRevocationNumber is the highest number that a list may have.
const MaxRevocationNumber = 1 << 62

// ErrRevocations is matched by the errors of ParseRevocationList.
var ErrRevocations = errors.New("identity: revocation list refused")

// RevocationList is a list of revoked keys. Its signature has been verified. It is immutable and may be used concurrently.
type RevocationList struct{ signedList[subject] }

// NewRevocationList signs a list with the key of an account or an authority.
// number is above that of every earlier list of the same key; ids are all that are
// revoked, at most 1 024, the ones of earlier lists included. It blocks only if
// the key lives in hardware that does.
func NewRevocationList(issuer crypto.Signer, number uint64, ids ...Subject) (*RevocationList, error) {
	items := make([]subject, len(ids))
	for i, s := range ids {
		items[i] = s.subject()
	}
	b, err := revocationLists.encode(issuer, number, items)
	if err != nil {
		return nil, fmt.Errorf("identity: make revocation list: %w", err)
	}
	return ParseRevocationList(b)
}

// RevocationList is NewRevocationList with the key of the device's account. A
// device that does not hold it fails.
func (id *Identity) RevocationList(number uint64, ids ...Subject) (*RevocationList, error) {
	if id.account == nil {
		return nil, errors.New("identity: this device does not hold its account's key, so it cannot revoke another device")
	}
	return NewRevocationList(id.account, number, ids...)
}

// ParseRevocationList reads what MarshalBinary or MarshalText wrote and verifies
// its signature. Sizes are checked before anything is allocated or verified.
// The error matches ErrRevocations.
func ParseRevocationList(b []byte) (*RevocationList, error) {
	l, err := revocationLists.parse(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRevocations, err)
	}
	return &RevocationList{l}, nil
}

var kinds = map[byte]string{'a': "account", 'd': "device"}

func compareSubjects(a, b subject) int {
	if a.kind != b.kind {
		return int(a.kind[0]) - int(b.kind[0])
	}
	return bytes.Compare(a.id[:], b.id[:])
}

// Issuer returns the id of the account or authority that signed the list.
func (l *RevocationList) Issuer() AccountID { return l.signer }

// Digest names the list: the SHA-256 of its bytes.
func (l *RevocationList) Digest() [sha256.Size]byte { return sha256.Sum256(l.raw) }

// Revokes reports whether the list names an id.
func (l *RevocationList) Revokes(id Subject) bool { return l.has(id.subject()) }

func (l *RevocationList) has(s subject) bool {
	_, found := slices.BinarySearchFunc(l.items, s, compareSubjects)
	return found
}

// Revoked returns the ids that the list names: first accounts, then devices.
func (l *RevocationList) Revoked() []Subject {
	out := make([]Subject, len(l.items))
	for i, s := range l.items {
		if s.kind == "account" {
			out[i] = AccountID(s.id)
		} else {
			out[i] = DeviceID(s.id)
		}
	}
	return out
}

// String names the list for people.
func (l *RevocationList) String() string {
	d := l.Digest()
	return fmt.Sprintf("revocation list %d of account %s (%d revoked, digest %s)", l.number, l.signer.Short(), len(l.items), hex.EncodeToString(d[:4]))
}
