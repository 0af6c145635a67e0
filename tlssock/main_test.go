package tlssock

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"math/big"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peerlink/identity"
)

// TestMain leaves out the three subtests of nettest that write again after a
// write has timed out: crypto/tls cannot take back half a record, so such a
// connection stays broken for writing. TestWriteDeadlineBreaksWriting holds
// what is true instead.
func TestMain(m *testing.M) {
	flag.Parse()
	skip := "TestConnConforms/.*/(PastTimeout|FutureTimeout|ConcurrentMethods)"
	if given := flag.Lookup("test.skip").Value.String(); given != "" {
		skip = given + "|" + skip
	}
	if err := flag.Set("test.skip", skip); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

func newIdentity(t testing.TB, name string) *identity.Identity {
	t.Helper()
	id, err := identity.Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// tcpPipe returns both ends of a TCP connection over loopback.
func tcpPipe(t testing.TB) (caller, callee net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	caller, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	callee, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { caller.Close(); callee.Close() })
	return caller, callee
}

// link returns both ends of a finished handshake over loopback.
func link(t testing.TB, alice, bob *identity.Identity) (caller, callee *Conn) {
	t.Helper()
	c, s := tcpPipe(t)
	return linkOver(t, c, s, alice, bob)
}

func linkOver(t testing.TB, c, s net.Conn, alice, bob *identity.Identity) (caller, callee *Conn) {
	t.Helper()
	ctx := context.Background()
	donec := make(chan error, 1)
	go func() {
		var err error
		callee, err = Server(ctx, s, bob, nil)
		donec <- err
	}()
	caller, err := Client(ctx, c, alice, bob.DeviceID())
	if err != nil {
		t.Fatal(err)
	}
	if err := <-donec; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { caller.Close(); callee.Close() })
	return caller, callee
}

// readAsCaller speaks TLS in its own way to a Server of ours
// and returns what that ends with.
func readAsCaller(conn net.Conn, cfg *tls.Config) error {
	c := tls.Client(conn, cfg)
	defer c.Close()
	if err := c.Handshake(); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// cert is a certificate and its key, made by hand for the hostile cases.
type cert struct {
	tmpl *x509.Certificate
	der  []byte
	key  crypto.Signer
}

// makeCert signs a certificate for a fresh key, or for edit's choice; without
// an issuer it signs itself.
func makeCert(t testing.TB, name string, issuer *cert, edit func(*x509.Certificate)) *cert {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return certFor(t, name, key, issuer, edit)
}

func certFor(t testing.TB, name string, key crypto.Signer, issuer *cert, edit func(*x509.Certificate)) *cert {
	t.Helper()
	c := &cert{key: key, tmpl: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}}
	if edit != nil {
		edit(c.tmpl)
	}
	if issuer == nil {
		issuer = c
	}
	var err error
	c.der, err = x509.CreateCertificate(rand.Reader, c.tmpl, issuer.tmpl, key.Public(), issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// authority makes a template that may sign certificates.
func authority(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }
