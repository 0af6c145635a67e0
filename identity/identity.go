package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Validity of the certificates made here. They begin a day early, so that a
// peer whose clock is a day behind still takes a new one.
const (
	backdate        = 24 * time.Hour
	deviceValidity  = 10 * 365 * 24 * time.Hour
	accountValidity = 30 * 365 * 24 * time.Hour
)

// MaxSealedOverhead is how many bytes Seal adds to a message at most: the
// MLKEM768-X25519 encapsulation (1 120 bytes) and the AEAD tag (16 bytes).
const MaxSealedOverhead = 1136

// Identity is a device that this process can act as: its keys and its chain.
// Make one with Generate, IssueDevice or Decode; the zero value has no keys.
// It is immutable and may be used concurrently.
type Identity struct {
	self       Peer
	device     crypto.Signer
	account    crypto.Signer // nil where only the device's key is held
	decryption hpke.PrivateKey
}

// Generate makes a new account with one device, both called name (see
// CheckName), with Ed25519 keys and an MLKEM768-X25519 key for sealed signals.
func Generate(name string) (*Identity, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return New(name, key)
}

// New is Generate with an account key of the caller's: Ed25519 or ECDSA P-256,
// which may live in hardware. The device's key is of the same type.
func New(name string, account crypto.Signer) (*Identity, error) {
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if err := checkKeyType(account.Public()); err != nil {
		return nil, fmt.Errorf("identity: account key: %w", err)
	}
	tmpl, err := template(name, accountValidity)
	if err != nil {
		return nil, err
	}
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, account.Public(), account)
	if err != nil {
		return nil, fmt.Errorf("identity: sign account certificate: %w", err)
	}
	return issue(name, account, [][]byte{der})
}

// IssueDevice makes a further device of the same account, with keys of its
// own. It needs the account's key: on a device that holds only its own it
// fails.
func (id *Identity) IssueDevice(name string) (*Identity, error) {
	if id.account == nil {
		return nil, errors.New("identity: this device does not hold its account's key, so it cannot sign another device")
	}
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return issue(name, id.account, id.self.chain[1:])
}

// issue makes device keys and has account, the key of issuers[0], sign them.
func issue(name string, account crypto.Signer, issuers [][]byte) (*Identity, error) {
	key, err := newKeyLike(account.Public())
	if err != nil {
		return nil, err
	}
	dec, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("identity: make HPKE key: %w", err)
	}
	chain, err := certify(name, key.Public(), account, issuers)
	if err != nil {
		return nil, err
	}
	self, err := VerifyChain(chain, time.Now())
	if err != nil {
		return nil, err
	}
	return &Identity{self: self, device: key, account: account, decryption: dec}, nil
}

func template(name string, validity time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(validity),
	}, nil
}

// DeviceID returns the id of the device's key.
func (id *Identity) DeviceID() DeviceID { return id.self.Device }

// AccountID returns the id of the account that signed the device.
func (id *Identity) AccountID() AccountID { return id.self.Account }

// Name returns the device's name.
func (id *Identity) Name() string { return id.self.Name }

// Peer returns the identity as others see it.
func (id *Identity) Peer() Peer { return id.self }

// Certificate returns the chain and the device's key for crypto/tls.
func (id *Identity) Certificate() tls.Certificate {
	return tls.Certificate{Certificate: id.self.Chain(), PrivateKey: id.device}
}

// Sign signs msg with the device's key for one purpose, a short constant such
// as "signal"; Peer.Verify with the same purpose checks it. It blocks only if
// the key lives in hardware that does.
func (id *Identity) Sign(purpose string, msg []byte) ([]byte, error) {
	return sign(id.device, purpose, msg)
}

// SealingKey returns the public HPKE key (MLKEM768-X25519, 1 216 bytes) that
// Seal needs to encrypt for this device. It is not bound to the device by
// itself: publish it signed.
func (id *Identity) SealingKey() []byte { return id.decryption.PublicKey().Bytes() }

// Seal encrypts msg for the holder of a SealingKey. info is the purpose and
// context, which Open must be given too. HPKE's base mode does not say who
// sealed: sign as well.
func Seal(sealingKey []byte, info string, msg []byte) ([]byte, error) {
	pk, err := hpke.MLKEM768X25519().NewPublicKey(sealingKey)
	if err != nil {
		return nil, fmt.Errorf("identity: sealing key: %w", err)
	}
	return hpke.Seal(pk, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(info), msg)
}

// Open decrypts what Seal made for this device with the same info.
func (id *Identity) Open(info string, sealed []byte) ([]byte, error) {
	msg, err := hpke.Open(id.decryption, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(info), sealed)
	if err != nil {
		return nil, fmt.Errorf("identity: open sealed message: %w", err)
	}
	return msg, nil
}
