package dht

import (
	"bytes"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"peerlink/identity"
	"peerlink/internal/packed"
)

// A signed statement is how records and signals travel:
//
//	[statement bytes, signature bytes]
//
// The signature is the device's over the statement exactly as it was received,
// so nothing depends on how somebody else would encode the same values. The
// statement begins with its version; what a later version appends is skipped.
const wireVersion = 1

// maxExtra is how many elements a statement may have beyond those known here.
const maxExtra = 8

// pack writes its arguments as one msgpack array, integers as short as possible.
func pack(values ...any) ([]byte, error) {
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	enc.UseCompactInts(true)
	if err := enc.EncodeArrayLen(len(values)); err != nil {
		return nil, err
	}
	for _, v := range values {
		if err := enc.Encode(v); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// sign packs a statement, signs it for purpose and packs both.
func sign(id *identity.Identity, purpose string, values ...any) ([]byte, error) {
	st, err := pack(values...)
	if err != nil {
		return nil, err
	}
	sig, err := id.Sign(purpose, st)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", purpose, err)
	}
	return pack(st, sig)
}

// signed is a statement and its signature, neither believed yet.
type signed struct {
	statement, signature []byte
}

// maxSignature is the longest signature of a device key (ASN.1 P-256).
const maxSignature = 72

// readSigned takes a statement of at most most bytes apart.
func readSigned(b []byte, most int) (signed, error) {
	var s signed
	r := packed.NewReader(b)
	n, err := r.Array(2)
	if err == nil && n != 2 {
		err = fmt.Errorf("%d elements instead of a statement and its signature", n)
	}
	if err == nil {
		s.statement, err = r.Bytes(most)
	}
	if err == nil {
		s.signature, err = r.Bytes(maxSignature)
	}
	if err == nil && r.Len() != 0 {
		err = fmt.Errorf("%d bytes follow the signature", r.Len())
	}
	return s, err
}

// open begins reading a statement of at least fields elements; end must follow
// with the number it returned.
func (s signed) open(fields int) (r *packed.Reader, extra int, err error) {
	r = packed.NewReader(s.statement)
	n, err := r.Array(fields + maxExtra)
	if err != nil {
		return nil, 0, err
	}
	if n < fields {
		return nil, 0, fmt.Errorf("statement of %d elements, want %d", n, fields)
	}
	v, err := r.Uint(1 << 16)
	if err != nil {
		return nil, 0, err
	}
	if v != wireVersion {
		return nil, 0, fmt.Errorf("version %d, this program knows %d: update the older side", v, wireVersion)
	}
	return r, n - fields, nil
}

// end skips the elements of a later version; nothing may follow them.
func end(r *packed.Reader, extra int) error {
	for ; extra > 0; extra-- {
		if err := r.Skip(); err != nil {
			return err
		}
	}
	if r.Len() != 0 {
		return fmt.Errorf("%d bytes follow the statement", r.Len())
	}
	return nil
}

// readChain reads a certificate chain; its sizes are checked, nothing else.
func readChain(r *packed.Reader) ([][]byte, error) {
	n, err := r.Array(identity.MaxChainLen)
	if err != nil {
		return nil, err
	}
	chain := make([][]byte, n)
	for i := range chain {
		if chain[i], err = r.Bytes(identity.MaxCertLen); err != nil {
			return nil, err
		}
	}
	return chain, nil
}
