package identity

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// HoldsAccount reports whether the device holds its account's key, and so can
// sign and revoke other devices.
func (id *Identity) HoldsAccount() bool { return id.account != nil }

// SignDevice makes a device of another account, or of none that matters, one of
// this account's, under a name (see CheckName), and returns its new chain, device
// first, for its Adopt. It certifies the key of a Peer that a handshake has
// proven: there is no other request, as who holds the key is known already. It
// needs the account's key, and blocks only if that lives in hardware that does.
func (id *Identity) SignDevice(p Peer, name string) ([][]byte, error) {
	switch {
	case id.account == nil:
		return nil, errors.New("identity: this device does not hold its account's key, so it cannot sign another device")
	case p.key == nil || p.Device.IsZero():
		return nil, errors.New("identity: a device without a proven key cannot be signed")
	case p.Device == id.self.Device:
		return nil, errors.New("identity: that is this device itself")
	}
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return certify(name, p.key, id.account, id.self.chain[1:])
}

// Adopt returns the same device under the account of a chain that SignDevice made
// for it: its keys, and so its id, stay; the key of the account it had before does
// not come along. A chain that is not this device's is refused.
func (id *Identity) Adopt(chain [][]byte) (*Identity, error) {
	self, err := VerifyChain(chain, time.Now())
	switch {
	case err != nil:
		return nil, err
	case self.Device != id.self.Device:
		return nil, fmt.Errorf("%w: it is of device %s, and this is %s", ErrChain, self.Device.Short(), id.self.Device.Short())
	case !bytes.Equal(chain[0], self.chain[0]):
		return nil, fmt.Errorf("%w: the device's certificate is not the first", ErrChain)
	}
	return &Identity{self: self, device: id.device, decryption: id.decryption}, nil
}

// certify has account, the key of issuers[0], sign a device's key, and returns
// the whole chain.
func certify(name string, device crypto.PublicKey, account crypto.Signer, issuers [][]byte) ([][]byte, error) {
	issuer, err := x509.ParseCertificate(issuers[0])
	if err != nil {
		return nil, err
	}
	tmpl, err := template(name, deviceValidity)
	if err != nil {
		return nil, err
	}
	tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, issuer, device, account)
	if err != nil {
		return nil, fmt.Errorf("identity: sign device certificate: %w", err)
	}
	return append([][]byte{der}, issuers...), nil
}
