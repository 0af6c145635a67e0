package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// generate makes an identity with Ed25519 keys.
func generate(t testing.TB, name string) *Identity {
	t.Helper()
	id, err := Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// generateP256 makes an identity with ECDSA P-256 keys.
func generateP256(t testing.TB, name string) *Identity {
	t.Helper()
	id, err := New(name, newP256(t))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func newP256(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newEd25519(t testing.TB) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// cert is a certificate made by hand, with its key.
type cert struct {
	tmpl *x509.Certificate
	key  crypto.Signer
	der  []byte
}

// certNow is when the certificates made by hand are valid, an hour around it.
var certNow = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// makeCert has issuer sign a certificate for key; a nil issuer is the
// certificate itself.
func makeCert(t testing.TB, name string, key crypto.Signer, issuer *cert, edits ...func(*x509.Certificate)) *cert {
	t.Helper()
	c := &cert{key: key, tmpl: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
		NotBefore: certNow.Add(-time.Hour), NotAfter: certNow.Add(time.Hour),
	}}
	for _, edit := range edits {
		edit(c.tmpl)
	}
	if issuer == nil {
		issuer = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c.tmpl, issuer.tmpl, key.Public(), issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	c.der = der
	return c
}

// authority makes a template that may sign certificates.
func authority(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }

func ders(certs ...*cert) [][]byte {
	out := make([][]byte, len(certs))
	for i, c := range certs {
		out[i] = c.der
	}
	return out
}
