package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"io"
	"strings"
	"testing"
)

func TestGenerateMakesAnAccountWithOneDevice(t *testing.T) {
	for kind, id := range map[string]*Identity{"ed25519": generate(t, "alice"), "p256": generateP256(t, "alice")} {
		p := id.Peer()
		if id.Name() != "alice" || p.Name != "alice" || p.Device != id.DeviceID() || p.Account != id.AccountID() || !p.CA.IsZero() {
			t.Errorf("%s: %v of %s", kind, p, p.Account)
		}
		spki, err := x509.MarshalPKIXPublicKey(id.Certificate().PrivateKey.(crypto.Signer).Public())
		if err != nil || DeviceID(keyID(spki)) != id.DeviceID() {
			t.Errorf("%s: the certificate's key is not the device's (%v)", kind, err)
		}
	}
	if one, other := generate(t, "a"), generate(t, "a"); one.DeviceID() == other.DeviceID() {
		t.Error("two identities are one")
	}
}

func TestIssueDeviceMakesADeviceOfTheSameAccount(t *testing.T) {
	for kind, first := range map[string]*Identity{"ed25519": generate(t, "laptop"), "p256": generateP256(t, "laptop")} {
		second, err := first.IssueDevice("phone")
		if err != nil {
			t.Fatal(err)
		}
		third, err := second.IssueDevice("tablet")
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []*Identity{second, third} {
			if id.AccountID() != first.AccountID() || id.DeviceID() == first.DeviceID() || bytes.Equal(id.SealingKey(), first.SealingKey()) {
				t.Errorf("%s: %v of %s", kind, id.Peer(), id.AccountID())
			}
		}
	}
}

func TestIssueDeviceNeedsTheAccountsKeyAndAName(t *testing.T) {
	id := generate(t, "laptop")
	if _, err := id.IssueDevice("a\x1bb"); err == nil || !strings.Contains(err.Error(), "unprintable") {
		t.Errorf("bad name: %v", err)
	}
	id.account = nil
	if _, err := id.IssueDevice("phone"); err == nil || !strings.Contains(err.Error(), "account's key") {
		t.Errorf("without the account's key: %v", err)
	}
}

func TestNewRefusesKeysAndNames(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for want, key := range map[string]crypto.Signer{"rsa": rsaKey, "P-384": p384} {
		if _, err := New("x", key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for _, name := range []string{"", "a\nb", strings.Repeat("x", MaxNameLen+1)} {
		if _, err := Generate(name); err == nil || !strings.Contains(err.Error(), "the name") {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

// hardware is a key that signs but cannot be read.
type hardware struct{ key crypto.Signer }

func (h hardware) Public() crypto.PublicKey { return h.key.Public() }
func (h hardware) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return h.key.Sign(r, digest, opts)
}

func TestAccountKeyMayLiveInHardware(t *testing.T) {
	for kind, newKey := range keyKinds {
		id, err := New("card", hardware{newKey(t)})
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if _, err := id.IssueDevice("phone"); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := id.Encode(); err == nil || !strings.Contains(err.Error(), "encode") {
			t.Errorf("%s: Encode: %v", kind, err)
		}
	}
}

func TestSealedMessageOpensForItsOwnerAndPurpose(t *testing.T) {
	alice, bob := generate(t, "alice"), generateP256(t, "bob")
	for _, msg := range [][]byte{nil, []byte("offer"), bytes.Repeat([]byte("x"), 64<<10)} {
		sealed, err := Seal(bob.SealingKey(), "signal", msg)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(sealed) - len(msg); n != MaxSealedOverhead {
			t.Errorf("sealing adds %d bytes, want %d", n, MaxSealedOverhead)
		}
		if got, err := bob.Open("signal", sealed); err != nil || !bytes.Equal(got, msg) {
			t.Errorf("%d bytes: %v", len(msg), err)
		}
		damaged := bytes.Clone(sealed)
		damaged[len(damaged)-1] ^= 1
		for name, open := range map[string]func() ([]byte, error){
			"other device":  func() ([]byte, error) { return alice.Open("signal", sealed) },
			"other purpose": func() ([]byte, error) { return bob.Open("record", sealed) },
			"damaged":       func() ([]byte, error) { return bob.Open("signal", damaged) },
			"cut off":       func() ([]byte, error) { return bob.Open("signal", sealed[:len(sealed)-1]) },
			"only a key":    func() ([]byte, error) { return bob.Open("signal", sealed[:1120]) },
			"nothing":       func() ([]byte, error) { return bob.Open("signal", nil) },
		} {
			if got, err := open(); err == nil || got != nil {
				t.Errorf("%s: opened", name)
			}
		}
	}
	if n := len(bob.SealingKey()); n != 1216 {
		t.Errorf("a sealing key has %d bytes", n)
	}
	for _, key := range [][]byte{nil, make([]byte, 32), make([]byte, 1215), bytes.Repeat([]byte{0xff}, 1216)} {
		if _, err := Seal(key, "signal", []byte("x")); err == nil {
			t.Errorf("sealed to a malformed key of %d bytes", len(key))
		}
	}
}

func BenchmarkSealAndOpen(b *testing.B) {
	bob := generate(b, "bob")
	msg := make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		sealed, err := Seal(bob.SealingKey(), "signal", msg)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := bob.Open("signal", sealed); err != nil {
			b.Fatal(err)
		}
	}
}
