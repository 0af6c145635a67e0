package identity

import (
	"bytes"
	"crypto"
	"crypto/hpke"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// The PEM block types of an encoded identity, in their order.
const (
	pemCert    = "CERTIFICATE"
	pemDevice  = "PEERLINK DEVICE KEY"
	pemAccount = "PEERLINK ACCOUNT KEY"
	pemHPKE    = "PEERLINK HPKE KEY"
)

// MaxEncodedLen bounds what Decode takes, in bytes: three certificates and
// three keys in base64, with room to spare.
const MaxEncodedLen = 16 << 10

// Encode returns the identity as PEM blocks: the chain, the device's key, the
// HPKE key and, where held, the account's key (PKCS #8 and RFC 9180 forms).
// It is secret. Keys that live in hardware cannot be encoded.
func (id *Identity) Encode() ([]byte, error) {
	var b bytes.Buffer
	put := func(kind string, body []byte) { _ = pem.Encode(&b, &pem.Block{Type: kind, Bytes: body}) }
	for _, c := range id.self.chain {
		put(pemCert, c)
	}
	for _, k := range []struct {
		kind string
		key  crypto.Signer
	}{{pemDevice, id.device}, {pemAccount, id.account}} {
		if k.key == nil {
			continue
		}
		der, err := x509.MarshalPKCS8PrivateKey(k.key)
		if err != nil {
			return nil, fmt.Errorf("identity: encode %s: %w", k.kind, err)
		}
		put(k.kind, der)
	}
	raw, err := id.decryption.Bytes()
	if err != nil {
		return nil, fmt.Errorf("identity: encode HPKE key: %w", err)
	}
	put(pemHPKE, raw)
	return b.Bytes(), nil
}

// Decode reads what Encode wrote. Everything must be there and fit together: a
// truncated or mixed-up file is an error that says what is missing, never a
// smaller identity. An expired certificate is not an error here.
func Decode(b []byte) (*Identity, error) {
	id, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("identity: decode: %w", err)
	}
	return id, nil
}

func decode(b []byte) (*Identity, error) {
	if len(b) > MaxEncodedLen {
		return nil, fmt.Errorf("%d bytes, at most %d are taken", len(b), MaxEncodedLen)
	}
	var chain [][]byte
	keys := map[string][]byte{}
	for {
		blk, rest := pem.Decode(b)
		if blk == nil {
			break
		}
		b = rest
		if blk.Type == pemCert {
			chain = append(chain, blk.Bytes)
			continue
		}
		if _, twice := keys[blk.Type]; twice {
			return nil, fmt.Errorf("two %q blocks", blk.Type)
		}
		keys[blk.Type] = blk.Bytes
	}
	if len(bytes.TrimSpace(b)) > 0 {
		return nil, fmt.Errorf("%d bytes at the end are not PEM: damaged or truncated", len(b))
	}
	return assemble(chain, keys)
}

func assemble(chain [][]byte, keys map[string][]byte) (*Identity, error) {
	if len(chain) == 0 {
		return nil, errors.New("no certificate")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, err
	}
	id := &Identity{}
	if id.self, err = VerifyChain(chain, leaf.NotBefore.Add(time.Hour)); err != nil {
		return nil, err
	}
	if id.device, err = parseKey(keys, pemDevice, id.self.Device); err != nil {
		return nil, err
	}
	if _, held := keys[pemAccount]; held {
		if id.account, err = parseKey(keys, pemAccount, id.self.Account); err != nil {
			return nil, err
		}
	}
	raw, ok := keys[pemHPKE]
	if !ok {
		return nil, fmt.Errorf("no %q block: damaged or truncated", pemHPKE)
	}
	if id.decryption, err = hpke.MLKEM768X25519().NewPrivateKey(raw); err != nil {
		return nil, fmt.Errorf("%q block: %w", pemHPKE, err)
	}
	return id, nil
}

// parseKey reads a private key and checks that it is the one want names.
func parseKey[ID DeviceID | AccountID](keys map[string][]byte, kind string, want ID) (crypto.Signer, error) {
	der, ok := keys[kind]
	if !ok {
		return nil, fmt.Errorf("no %q block: damaged or truncated", kind)
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%q block: %w", kind, err)
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%q block: a %T cannot sign", kind, k)
	}
	spki, err := x509.MarshalPKIXPublicKey(s.Public())
	if err != nil {
		return nil, fmt.Errorf("%q block: %w", kind, err)
	}
	if ID(keyID(spki)) != want {
		return nil, fmt.Errorf("%q block: not the key of the certificate beside it", kind)
	}
	return s, nil
}
