package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// idLen is the length of an id in bytes: a SHA-256 digest.
const idLen = sha256.Size

// ErrBadID is matched by every error of ParseDeviceID and ParseAccountID.
var ErrBadID = errors.New("identity: malformed id")

// DeviceID names a device: the SHA-256 of its certificate's DER
// SubjectPublicKeyInfo. The zero value names no device. Values are comparable
// and safe to use as map keys.
type DeviceID [idLen]byte

// AccountID names an account (or a certificate authority above one): the
// SHA-256 of its key's DER SubjectPublicKeyInfo. The zero value names none.
type AccountID [idLen]byte

// Subject is what a trust decision can be about: a DeviceID or an AccountID.
type Subject interface {
	// String returns the id's 64 hex digits.
	String() string
	subject() subject
}

// subject is the trust store's key: an id and what kind of thing it names.
type subject struct {
	kind string // "device" or "account"
	id   [idLen]byte
}

func (id DeviceID) subject() subject  { return subject{"device", id} }
func (id AccountID) subject() subject { return subject{"account", id} }

// String returns the id as 64 lower-case hex digits.
func (id DeviceID) String() string { return hex.EncodeToString(id[:]) }

// String returns the id as 64 lower-case hex digits.
func (id AccountID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 8 hex digits, for logs and lists. It is not unique
// enough to address anything with.
func (id DeviceID) Short() string { return hex.EncodeToString(id[:4]) }

// Short returns the first 8 hex digits, for logs and lists.
func (id AccountID) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero reports whether the id is the zero value, which names no device.
func (id DeviceID) IsZero() bool { return id == DeviceID{} }

// IsZero reports whether the id is the zero value, which names no account.
func (id AccountID) IsZero() bool { return id == AccountID{} }

// MarshalText implements encoding.TextMarshaler: the 64 hex digits.
func (id DeviceID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// MarshalText implements encoding.TextMarshaler: the 64 hex digits.
func (id AccountID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts what
// ParseDeviceID accepts and leaves id alone when it fails.
func (id *DeviceID) UnmarshalText(b []byte) error {
	v, err := ParseDeviceID(string(b))
	if err == nil {
		*id = v
	}
	return err
}

// UnmarshalText implements encoding.TextUnmarshaler. It accepts what
// ParseAccountID accepts and leaves id alone when it fails.
func (id *AccountID) UnmarshalText(b []byte) error {
	v, err := ParseAccountID(string(b))
	if err == nil {
		*id = v
	}
	return err
}

// ParseDeviceID reads 64 hex digits, in either case. The zero id is refused.
// The error matches ErrBadID, says what is wrong, and quotes at most the first
// 80 bytes of s.
func ParseDeviceID(s string) (DeviceID, error) {
	b, err := parseID("device", s)
	return DeviceID(b), err
}

// ParseAccountID reads 64 hex digits, in either case. The zero id is refused.
// The error matches ErrBadID.
func ParseAccountID(s string) (AccountID, error) {
	b, err := parseID("account", s)
	return AccountID(b), err
}

func parseID(kind, s string) (id [idLen]byte, err error) {
	if len(s) != 2*idLen {
		return id, fmt.Errorf("%w: a %s id is %d hex digits, %.80q has %d characters", ErrBadID, kind, 2*idLen, s, len(s))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return [idLen]byte{}, fmt.Errorf("%w: %q is not a %s id: %w", ErrBadID, s, kind, err)
	}
	if id == [idLen]byte{} {
		return id, fmt.Errorf("%w: the all-zero %s id names nothing", ErrBadID, kind)
	}
	return id, nil
}
