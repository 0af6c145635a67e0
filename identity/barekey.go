package identity

import (
	"crypto/x509"
	"fmt"
)

// maxBareKey is how many bytes a DER SubjectPublicKeyInfo of our key types may
// have: a P-256 key has 91.
const maxBareKey = 128

// PublicKey returns the device's key as DER SubjectPublicKeyInfo, whose SHA-256
// is the DeviceID. It tells nothing else of the device, as a chain does.
func (id *Identity) PublicKey() []byte {
	leaf, err := x509.ParseCertificate(id.self.chain[0])
	if err != nil {
		panic(err) // it was parsed when the identity was made
	}
	return leaf.RawSubjectPublicKeyInfo
}

// VerifyBareKey checks a signature of Identity.Sign by nothing but the device's
// key, as PublicKey returned it, and returns the device's id. Nothing is known
// of the device then but that it has this key: no name, no account, no lifetime.
// Sizes are checked before anything is parsed.
func VerifyBareKey(spki []byte, purpose string, msg, sig []byte) (DeviceID, error) {
	if len(spki) > maxBareKey {
		return DeviceID{}, fmt.Errorf("identity: a key of %d bytes, at most %d are taken", len(spki), maxBareKey)
	}
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return DeviceID{}, fmt.Errorf("identity: bare key: %w", err)
	}
	if err := checkKeyType(pub); err != nil {
		return DeviceID{}, fmt.Errorf("identity: bare key: %w", err)
	}
	if err := verify(pub, purpose, msg, sig); err != nil {
		return DeviceID{}, err
	}
	return DeviceID(keyID(spki)), nil
}
