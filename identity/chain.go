package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"peerlink/internal/escape"
)

// Bounds of a certificate chain. Our own certificates are 300–450 bytes.
const (
	// MaxChainLen is the number of certificates a chain may have: device,
	// account and, where there is one, the authority above the account.
	MaxChainLen = 3
	// MaxCertLen is the length of one certificate in bytes.
	MaxCertLen = 2048
	// MaxNameLen is the length of a device's name in bytes of UTF-8
	// (RFC 5280, appendix A.1: ub-common-name is 64).
	MaxNameLen = 64

	maxSANs       = 4
	maxExtensions = 16
)

// ErrChain is matched by every error of VerifyChain.
var ErrChain = errors.New("identity: certificate chain refused")

// Peer is a device whose chain has been verified. It proves nothing by itself:
// a handshake or a signature must show that the far end holds the key. The
// zero value is no device. Values are immutable and may be shared.
type Peer struct {
	// Device is the id of the device's key.
	Device DeviceID `json:"device"`
	// Account is the id of the account that signed the device's certificate.
	Account AccountID `json:"account,omitzero"`
	// CA is the id of the authority that signed the account's certificate;
	// zero where the account signed its own.
	CA AccountID `json:"ca,omitzero"`
	// Name is what the device calls itself: its certificate's common name, at
	// most 64 bytes of printable UTF-8, not unique and not to be believed.
	Name string `json:"name,omitempty"`

	key   crypto.PublicKey
	chain [][]byte
}

// Chain returns the DER certificates, device first. The slices are copies.
func (p Peer) Chain() [][]byte {
	out := make([][]byte, len(p.chain))
	for i, c := range p.chain {
		out[i] = bytes.Clone(c)
	}
	return out
}

// Verify checks a signature that the device's key made with Identity.Sign for
// the same purpose. The error matches ErrSignature.
func (p Peer) Verify(purpose string, msg, sig []byte) error {
	return verify(p.key, purpose, msg, sig)
}

// String returns the device's name, escaped, and the start of its id.
func (p Peer) String() string { return fmt.Sprintf("%q (%s)", p.Name, p.Device.Short()) }

// VerifyChain checks a chain of DER certificates that somebody presented, in
// any order, and returns whose it is. Sizes and counts are checked before a
// byte is parsed, key types before a signature is verified; at most four
// signatures are. An error matches ErrChain and says which certificate failed
// and why; a certificate outside its validity names now too, as a wrong clock
// is the usual cause. It does not block and may be called concurrently.
func VerifyChain(der [][]byte, now time.Time) (Peer, error) {
	p, err := verifyChain(der, now)
	if err != nil {
		return Peer{}, fmt.Errorf("%w: %w", ErrChain, err)
	}
	return p, nil
}

func verifyChain(der [][]byte, now time.Time) (Peer, error) {
	if len(der) < 2 || len(der) > MaxChainLen {
		return Peer{}, fmt.Errorf("%d certificates, want 2 (device, account) or 3 (and an authority)", len(der))
	}
	certs := make([]*x509.Certificate, len(der))
	for i, b := range der {
		c, err := parseCert(b)
		if err != nil {
			return Peer{}, fmt.Errorf("certificate %d: %w", i, err)
		}
		certs[i] = c
	}
	certs, err := arrange(certs)
	if err != nil {
		return Peer{}, err
	}
	for i, c := range certs {
		issuer := certs[min(i+1, len(certs)-1)]
		err := checkCert(c, issuer, i > 0, now)
		if err == nil {
			err = checkUse(c, i)
		}
		if err != nil {
			return Peer{}, err
		}
	}
	p := Peer{
		Device:  DeviceID(keyID(certs[0].RawSubjectPublicKeyInfo)),
		Account: AccountID(keyID(certs[1].RawSubjectPublicKeyInfo)),
		Name:    certs[0].Subject.CommonName,
		key:     certs[0].PublicKey,
	}
	if len(certs) == MaxChainLen {
		p.CA = AccountID(keyID(certs[2].RawSubjectPublicKeyInfo))
	}
	if p.CA == p.Account {
		return Peer{}, fmt.Errorf("account %s is its own authority", p.Account)
	}
	for _, c := range certs {
		p.chain = append(p.chain, bytes.Clone(c.Raw))
	}
	return p, nil
}

// parseCert checks sizes, parses, and caps what was parsed.
func parseCert(b []byte) (*x509.Certificate, error) {
	if len(b) > MaxCertLen {
		return nil, fmt.Errorf("%d bytes, at most %d are taken", len(b), MaxCertLen)
	}
	c, err := x509.ParseCertificate(b)
	if err != nil {
		return nil, err
	}
	if err := checkKeyType(c.PublicKey); err != nil {
		return nil, err
	}
	if n := len(c.DNSNames) + len(c.EmailAddresses) + len(c.IPAddresses) + len(c.URIs); n > maxSANs {
		return nil, fmt.Errorf("%d alternative names, at most %d are taken", n, maxSANs)
	}
	if len(c.Extensions) > maxExtensions {
		return nil, fmt.Errorf("%d extensions, at most %d are taken", len(c.Extensions), maxExtensions)
	}
	for _, e := range c.Extensions {
		if e.Critical && !slices.Contains(applied, e.Id.String()) {
			return nil, fmt.Errorf("unknown critical extension %v", e.Id)
		}
	}
	return c, nil
}

// The extensions that are applied here. Parsing knows more, name constraints among
// them, which would have to be applied to what is below.
const (
	oidKeyUsage    = "2.5.29.15"
	oidConstraints = "2.5.29.19"
	oidExtKeyUsage = "2.5.29.37"
)

var applied = []string{oidKeyUsage, oidConstraints, oidExtKeyUsage}

// checkUse applies what a certificate says of its use, if others must not ignore that.
// below is how many certificates are below it.
func checkUse(c *x509.Certificate, below int) error {
	for _, e := range c.Extensions {
		if !e.Critical {
			continue
		}
		may := func(u x509.ExtKeyUsage) bool {
			return slices.Contains(c.ExtKeyUsage, u) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
		}
		switch oid := e.Id.String(); {
		case oid == oidConstraints && c.IsCA && c.MaxPathLen >= 0 && below-1 > c.MaxPathLen:
			return fmt.Errorf("certificate of %.80q: at most %d authorities may be below it", c.Subject.CommonName, c.MaxPathLen)
		case oid == oidKeyUsage && below == 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
			return fmt.Errorf("device certificate: its key may not sign")
		case oid == oidExtKeyUsage && (!may(x509.ExtKeyUsageClientAuth) || !may(x509.ExtKeyUsageServerAuth)):
			return fmt.Errorf("certificate of %.80q: not for both ends of TLS", c.Subject.CommonName)
		}
	}
	return nil
}

// arrange puts the device first and each issuer after what it signed, by the
// names in the certificates; signatures are checked afterwards. With at most
// three certificates it is a sort, not a search.
func arrange(certs []*x509.Certificate) ([]*x509.Certificate, error) {
	i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return !c.IsCA })
	if i < 0 {
		return nil, errors.New("no device certificate: each claims to be an authority")
	}
	out := []*x509.Certificate{certs[i]}
	rest := slices.Delete(slices.Clone(certs), i, i+1)
	for len(rest) > 0 {
		last := out[len(out)-1]
		i := issuerOf(last, rest)
		if i < 0 {
			return nil, fmt.Errorf("the issuer of %.80q is not in the chain", last.Subject.CommonName)
		}
		out = append(out, rest[i])
		rest = slices.Delete(rest, i, i+1)
	}
	return out, nil
}

// issuerOf finds the one of at most two that bears the name of c's issuer, or
// -1. An account may bear its authority's name; then a signature tells them
// apart, and if neither made it, the later check says so.
func issuerOf(c *x509.Certificate, among []*x509.Certificate) int {
	named := func(i *x509.Certificate) bool { return bytes.Equal(i.RawSubject, c.RawIssuer) }
	i := slices.IndexFunc(among, named)
	if i == 0 && len(among) == 2 && named(among[1]) &&
		among[0].CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) != nil {
		return 1
	}
	return i
}

func checkCert(c, issuer *x509.Certificate, isCA bool, now time.Time) error {
	name := "device"
	if isCA {
		name = "account"
	}
	switch {
	case c.IsCA != isCA:
		return fmt.Errorf("%s certificate: authority flag is %v", name, c.IsCA)
	case isCA && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("%s certificate: may not sign certificates", name)
	case now.Before(c.NotBefore):
		return fmt.Errorf("%s certificate: not valid before %s, and here it is %s (is a clock wrong?)", name, c.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter):
		return fmt.Errorf("%s certificate: expired at %s, and here it is %s (is a clock wrong?)", name, c.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case !bytes.Equal(c.RawIssuer, issuer.RawSubject):
		return fmt.Errorf("%s certificate: issued by %.80q, but the next is %.80q", name, c.Issuer.CommonName, issuer.Subject.CommonName)
	case c.SignatureAlgorithm != certAlgorithm(issuer.PublicKey):
		return fmt.Errorf("%s certificate: signed with %v", name, c.SignatureAlgorithm)
	}
	if err := CheckName(c.Subject.CommonName); err != nil {
		return fmt.Errorf("%s certificate: %w", name, err)
	}
	if err := issuer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
		return fmt.Errorf("%s certificate: %w", name, err)
	}
	return nil
}

// CheckName reports whether s may be a device's name: 1 to 64 bytes of
// visible UTF-8 with more than spaces and marks, so that no name can hide or forge
// what a terminal shows.
func CheckName(s string) error {
	switch {
	case s == "":
		return errors.New("the name is empty")
	case len(s) > MaxNameLen:
		return fmt.Errorf("the name has %d bytes, at most %d are allowed", len(s), MaxNameLen)
	case !utf8.ValidString(s):
		return fmt.Errorf("the name %q is not UTF-8", s)
	}
	var prev rune
	for _, r := range s {
		if !escape.Visible(prev, r) {
			return fmt.Errorf("the name %+q has the unprintable or invisible character %U", s, r)
		}
		prev = r
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.In(r, unicode.Zs, unicode.M) }) {
		return fmt.Errorf("the name %+q shows nothing", s)
	}
	return nil
}
