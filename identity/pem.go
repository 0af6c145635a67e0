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
		b = bytes.TrimSpace(b)
		if len(b) == 0 {
			return assemble(chain, keys)
		}
		blk, rest, err := nextBlock(b)
		if err != nil {
			return nil, err
		}
		b = rest
		_, twice := keys[blk.Type]
		switch {
		case blk.Type == pemCert:
			chain = append(chain, blk.Bytes)
		case twice:
			return nil, fmt.Errorf("two %q blocks", blk.Type)
		case blk.Type == pemDevice || blk.Type == pemAccount || blk.Type == pemHPKE:
			keys[blk.Type] = blk.Bytes
		default:
			return nil, fmt.Errorf("unknown block %.60q", blk.Type)
		}
	}
}

// nextBlock reads the block that b begins with. pem.Decode alone skips over
// whatever is not a whole block: a damaged account key would be taken for none.
func nextBlock(b []byte) (*pem.Block, []byte, error) {
	begin := []byte("-----BEGIN ")
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if !bytes.HasPrefix(b, begin) {
		return nil, nil, fmt.Errorf("%.60q is not the beginning of a PEM block: damaged", line)
	}
	blk, rest := pem.Decode(b)
	if blk == nil || bytes.Count(b[:len(b)-len(rest)], begin) != 1 {
		return nil, nil, fmt.Errorf("the block after %.60q is damaged or truncated", bytes.TrimSpace(line))
	}
	if len(blk.Headers) > 0 {
		return nil, nil, fmt.Errorf("%q block: PEM headers are not taken", blk.Type)
	}
	return blk, rest, nil
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
	if again, err := x509.MarshalPKCS8PrivateKey(k); err != nil || !bytes.Equal(again, der) {
		return nil, fmt.Errorf("%q block: not as it was written: damaged", kind)
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
