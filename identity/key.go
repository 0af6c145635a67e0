package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
)

// maxSignatureLen bounds what Verify accepts as a signature: the longest that the
// two key types make is an ASN.1 P-256 signature of 72 bytes.
const maxSignatureLen = 72

// ErrSignature is matched when a signature does not fit the message and key.
var ErrSignature = errors.New("identity: signature does not verify")

// keyID hashes a public key's DER SubjectPublicKeyInfo.
func keyID(spki []byte) [idLen]byte { return sha256.Sum256(spki) }

// checkKeyType accepts Ed25519 and ECDSA P-256, the two kinds of key that a
// device or an account may have.
func checkKeyType(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return nil
		}
		return fmt.Errorf("ECDSA key on %s, want P-256", k.Curve.Params().Name)
	default:
		return fmt.Errorf("key type %T, want Ed25519 or ECDSA P-256", pub)
	}
}

// statement is what is really signed: a message can never be taken for one of
// another purpose, as the purpose stands before it, closed by a zero byte.
func statement(purpose string, msg []byte) []byte {
	b := make([]byte, 0, len("peerlink/")+len(purpose)+1+len(msg))
	b = append(b, "peerlink/"...)
	b = append(b, purpose...)
	b = append(b, 0)
	return append(b, msg...)
}

func sign(key crypto.Signer, purpose string, msg []byte) ([]byte, error) {
	st := statement(purpose, msg)
	if _, ok := key.Public().(ed25519.PublicKey); ok {
		return key.Sign(rand.Reader, st, crypto.Hash(0))
	}
	digest := sha256.Sum256(st)
	return key.Sign(rand.Reader, digest[:], crypto.SHA256)
}

func verify(pub crypto.PublicKey, purpose string, msg, sig []byte) error {
	if len(sig) > maxSignatureLen {
		return fmt.Errorf("%w: %d bytes long", ErrSignature, len(sig))
	}
	ok := false
	st := statement(purpose, msg)
	switch k := pub.(type) {
	case ed25519.PublicKey:
		ok = ed25519.Verify(k, st, sig)
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(st)
		ok = ecdsa.VerifyASN1(k, digest[:], sig)
	}
	if !ok {
		return fmt.Errorf("%w (%s)", ErrSignature, purpose)
	}
	return nil
}

// certAlgorithm is the one signature algorithm that fits an issuer's key.
func certAlgorithm(issuer crypto.PublicKey) x509.SignatureAlgorithm {
	if _, ok := issuer.(ed25519.PublicKey); ok {
		return x509.PureEd25519
	}
	return x509.ECDSAWithSHA256
}

func newKeyLike(pub crypto.PublicKey) (crypto.Signer, error) {
	if _, ok := pub.(ed25519.PublicKey); ok {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}
