package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// signedList is a list that an account (or an authority) has signed, as in
// docs/protocol.md, "Revocation lists" and "Devices of an account". Each list is
// whole: a later one, with a higher number, takes the place of all before. The
// signer's id is the hash of the key, so the list needs no certificate.
//
//	magic[4] | key length:uint16 | key | number:uint64 | issued:uint64, ms
//	count:uint16 | count × item, ascending | signature length:uint8 | signature of all before it
type signedList[T any] struct {
	signer AccountID
	number uint64
	issued time.Time
	items  []T // ascending
	raw    []byte
	block  string // of PEM
}

const (
	// maxIssuerKey is the length of the longest key we know, in bytes: P-256
	// takes 91.
	maxIssuerKey = 128
	// maxIssued is the last moment that a list may name: the year 9999.
	maxIssued = 253_402_300_799_999
	// listOverhead is what the longest list takes besides its items, in bytes.
	listOverhead = 4 + 2 + maxIssuerKey + 8 + 8 + 2 + 1 + maxSignatureLen
)

// listForm is a kind of list and the codec of its items.
type listForm[T any] struct {
	magic, purpose string
	block          string // of PEM
	most, itemLen  int    // how many items there are at most, and the length of the longest in bytes
	full           string // the format of the error for more than most items
	compare        func(a, b T) int
	append         func(b []byte, item T) ([]byte, error)
	read           func(from *cryptobyte.String) (T, error)
}

func (f *listForm[T]) maxLen() int { return listOverhead + f.most*f.itemLen }

// encode signs a list of items, which it puts in order.
func (f *listForm[T]) encode(signer crypto.Signer, number uint64, items []T) ([]byte, error) {
	if err := checkKeyType(signer.Public()); err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil, err
	}
	items = slices.Clone(items)
	slices.SortStableFunc(items, f.compare)
	items = slices.CompactFunc(items, func(a, b T) bool { return f.compare(a, b) == 0 })
	switch {
	case len(items) > f.most:
		return nil, fmt.Errorf(f.full, len(items), f.most)
	case number > MaxRevocationNumber:
		return nil, fmt.Errorf("number %d is above %d", number, uint64(MaxRevocationNumber))
	}
	b := binary.BigEndian.AppendUint16([]byte(f.magic), uint16(len(key)))
	b = append(b, key...)
	b = binary.BigEndian.AppendUint64(b, number)
	b = binary.BigEndian.AppendUint64(b, uint64(time.Now().UnixMilli()))
	b = binary.BigEndian.AppendUint16(b, uint16(len(items)))
	for _, item := range items {
		if b, err = f.append(b, item); err != nil {
			return nil, err
		}
	}
	sig, err := sign(signer, f.purpose, b)
	if err != nil {
		return nil, err
	}
	return append(append(b, byte(len(sig))), sig...), nil
}

// parse reads a list, in binary or as PEM, and verifies its signature.
func (f *listForm[T]) parse(b []byte) (l signedList[T], err error) {
	if len(b) > 2*f.maxLen() {
		return l, fmt.Errorf("%d bytes, at most %d are read", len(b), 2*f.maxLen())
	}
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("-----BEGIN ")) {
		block, rest := pem.Decode(b)
		if block == nil || block.Type != f.block || len(bytes.TrimSpace(rest)) > 0 {
			return l, fmt.Errorf("want one PEM block “%s”", f.block)
		}
		b = block.Bytes
	}
	if len(b) > f.maxLen() {
		return l, fmt.Errorf("%d bytes, at most %d are taken", len(b), f.maxLen())
	}
	l = signedList[T]{raw: bytes.Clone(b), block: f.block}
	rest := cryptobyte.String(l.raw)
	if !rest.Skip(len(f.magic)) || !bytes.HasPrefix(l.raw, []byte(f.magic)) {
		return l, fmt.Errorf("it does not begin with %q", f.magic)
	}
	var key, sig cryptobyte.String
	var issued uint64
	if !rest.ReadUint16LengthPrefixed(&key) || !rest.ReadUint64(&l.number) || !rest.ReadUint64(&issued) {
		return l, errCutOff
	}
	if l.items, err = f.readItems(&rest); err != nil {
		return l, err
	}
	signed := l.raw[:len(l.raw)-len(rest)]
	switch {
	case !rest.ReadUint8LengthPrefixed(&sig):
		return l, errCutOff
	case len(rest) > 0:
		return l, fmt.Errorf("%d bytes follow the signature", len(rest))
	case len(key) > maxIssuerKey || l.number > MaxRevocationNumber || issued > maxIssued:
		return l, errors.New("its key, number or time is out of bounds")
	}
	l.issued = time.UnixMilli(int64(issued))
	pub, err := x509.ParsePKIXPublicKey(key)
	if err == nil {
		err = checkKeyType(pub)
	}
	if err != nil {
		return l, fmt.Errorf("the signer's key: %w", err)
	}
	l.signer = AccountID(keyID(key))
	return l, verify(pub, f.purpose, signed, sig)
}

// readItems reads the items, which stand in order.
func (f *listForm[T]) readItems(from *cryptobyte.String) (items []T, err error) {
	var count uint16
	if !from.ReadUint16(&count) {
		return nil, errCutOff
	}
	if int(count) > f.most {
		return nil, fmt.Errorf("%d items, at most %d are taken", count, f.most)
	}
	for range count {
		item, err := f.read(from)
		switch {
		case err != nil:
			return nil, err
		case len(items) > 0 && f.compare(items[len(items)-1], item) >= 0:
			return nil, errors.New("the items are not in order")
		}
		items = append(items, item)
	}
	return items, nil
}

// Number returns the list's number; a higher one takes its place.
func (l *signedList[T]) Number() uint64 { return l.number }

// Issued returns when the list was made, by its signer's clock. Nothing depends
// on it.
func (l *signedList[T]) Issued() time.Time { return l.issued }

// MarshalBinary returns the list's bytes, a copy.
func (l *signedList[T]) MarshalBinary() ([]byte, error) { return bytes.Clone(l.raw), nil }

// MarshalText returns the list as a PEM block.
func (l *signedList[T]) MarshalText() ([]byte, error) {
	return pem.EncodeToMemory(&pem.Block{Type: l.block, Bytes: l.raw}), nil
}

// ParseList reads a list of any kind, in binary: a *DeviceList or a
// *RevocationList, told by its first bytes. Another beginning gives nil without an
// error: a list of a kind that this program does not know. Errors are the ones
// of ParseDeviceList and ParseRevocationList.
func ParseList(b []byte) (list any, err error) {
	switch {
	case bytes.HasPrefix(b, []byte(deviceLists.magic)):
		list, err = ParseDeviceList(b)
	case bytes.HasPrefix(b, []byte(revocationLists.magic)):
		list, err = ParseRevocationList(b)
	}
	if err != nil {
		return nil, err // and not a nil list in an interface
	}
	return list, nil
}

var errCutOff = errors.New("the rest is cut off")
