package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"testing"
)

func TestABareKeyProvesItsDevice(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := New("alice", key)
	if err != nil {
		t.Fatal(err)
	}
	ed, err := Generate("alice")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []*Identity{ed, p256} {
		sig, err := id.Sign("invite", []byte("here"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := VerifyBareKey(id.PublicKey(), "invite", []byte("here"), sig)
		if err != nil || got != id.DeviceID() {
			t.Errorf("%v, %v; want %v", got, err, id.DeviceID())
		}
		for name, err := range map[string]error{
			"another message": second(VerifyBareKey(id.PublicKey(), "invite", []byte("there"), sig)),
			"another purpose": second(VerifyBareKey(id.PublicKey(), "record", []byte("here"), sig)),
			"no signature":    second(VerifyBareKey(id.PublicKey(), "invite", []byte("here"), nil)),
		} {
			if !errors.Is(err, ErrSignature) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	sig, err := ed.Sign("invite", []byte("here"))
	if err != nil {
		t.Fatal(err)
	}
	if id, err := VerifyBareKey(p256.PublicKey(), "invite", []byte("here"), sig); err == nil || !id.IsZero() {
		t.Errorf("another device's key: %v, %v", id, err)
	}
}

// fault: D3
func TestABareKeyThatCannotBeADevicesIsRefused(t *testing.T) {
	large, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := x509.MarshalPKIXPublicKey(&large.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := x509.MarshalPKIXPublicKey(&other.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string][]byte{
		"none": nil, "garbage": bytes.Repeat([]byte{7}, 40), "RSA": rsaKey, "P-224": p224, "a megabyte": make([]byte, 1<<20),
	} {
		if id, err := VerifyBareKey(key, "invite", []byte("here"), make([]byte, 64)); err == nil || !id.IsZero() {
			t.Errorf("%s: %v, %v", name, id, err)
		}
	}
}

func second(_ DeviceID, err error) error { return err }
