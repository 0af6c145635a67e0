package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// keyKinds are the two kinds of key that a device or an account may have.
var keyKinds = map[string]func(testing.TB) crypto.Signer{"ed25519": newEd25519, "p256": newP256}

// Chains of two and three, given in any order, with every mixture of keys; all
// three may bear one name.
func TestS81_ChainIsRebuiltFromItsCertificates(t *testing.T) {
	for dk, newDevice := range keyKinds {
		for ak, newAccount := range keyKinds {
			for name, names := range map[string][3]string{"own names": {"device", "account", "ca"}, "one name": {"x", "x", "x"}} {
				t.Run(fmt.Sprintf("%s under %s, %s", dk, ak, name), func(t *testing.T) {
					ca := makeCert(t, names[2], newEd25519(t), nil, authority)
					account := makeCert(t, names[1], newAccount(t), ca, authority)
					selfMade := makeCert(t, names[1], account.key, nil, authority)
					device := makeCert(t, names[0], newDevice(t), account)
					checkOrders(t, device, account, ca)
					checkOrders(t, device, selfMade)
				})
			}
		}
	}
}

// checkOrders verifies the chain in each order.
func checkOrders(t *testing.T, chain ...*cert) {
	t.Helper()
	id := func(c *cert) [idLen]byte {
		spki, err := x509.MarshalPKIXPublicKey(c.key.Public())
		if err != nil {
			t.Fatal(err)
		}
		return keyID(spki)
	}
	permutations(ders(chain...), func(given [][]byte) {
		p, err := VerifyChain(given, certNow)
		if err != nil {
			t.Fatal(err)
		}
		if p.Device != id(chain[0]) || p.Account != id(chain[1]) || p.CA.IsZero() != (len(chain) == 2) || p.Name != chain[0].tmpl.Subject.CommonName {
			t.Errorf("peer %v, account %s, authority %s", p, p.Account, p.CA)
		}
		if len(chain) == 3 && p.CA != id(chain[2]) {
			t.Errorf("authority %s", p.CA)
		}
		if !slices.EqualFunc(p.Chain(), ders(chain...), bytes.Equal) {
			t.Error("Chain is not in order")
		}
	})
}

func permutations(b [][]byte, visit func([][]byte)) {
	if len(b) == 0 {
		visit(nil)
		return
	}
	for i := range b {
		rest := slices.Delete(slices.Clone(b), i, i+1)
		permutations(rest, func(tail [][]byte) { visit(append([][]byte{b[i]}, tail...)) })
	}
}

func TestChainsOfOurOwnVerify(t *testing.T) {
	for kind, id := range map[string]*Identity{"ed25519": generate(t, "laptop"), "p256": generateP256(t, "laptop")} {
		phone, err := id.IssueDevice("phone")
		if err != nil {
			t.Fatal(err)
		}
		p, err := VerifyChain(phone.Peer().Chain(), time.Now())
		if err != nil || p.Device != phone.DeviceID() || p.Account != id.AccountID() || p.Name != "phone" {
			t.Errorf("%s: %v, %v", kind, p, err)
		}
		for i, c := range phone.Peer().Chain() {
			if len(c) > 450 {
				t.Errorf("%s: certificate %d has %d bytes, the comment on the bounds says 450", kind, i, len(c))
			}
		}
	}
}

// family is one sound chain of three that the cases below damage.
type family struct{ device, account, ca *cert }

func newFamily(t testing.TB) family {
	ca := makeCert(t, "ca", newEd25519(t), nil, authority)
	account := makeCert(t, "account", newEd25519(t), ca, authority)
	return family{makeCert(t, "device", newEd25519(t), account), account, ca}
}

// badChain is a chain that must be refused, and a word of the reason.
type badChain struct {
	name  string
	chain [][]byte
	want  string
}

// fault: D3, D4
// case: S22
func TestBadChainsAreRefused(t *testing.T) {
	f := newFamily(t)
	for _, tt := range slices.Concat(badSizes(t, f), badTimes(t, f), badRoles(t, f), badSignatures(t, f), badNames(t, f), badUses(t, f)) {
		t.Run(tt.name, func(t *testing.T) {
			p, err := VerifyChain(tt.chain, certNow)
			if !errors.Is(err, ErrChain) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want ErrChain with %q", err, tt.want)
			}
			if !p.Device.IsZero() || p.Chain() == nil || len(p.Chain()) != 0 {
				t.Errorf("a peer was returned all the same: %v", p)
			}
			if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == '\u202e' }) {
				t.Errorf("the error is not escaped: %q", err)
			}
		})
	}
}

func badSizes(t testing.TB, f family) []badChain {
	alone := makeCert(t, "self", newEd25519(t), nil)
	long := makeCert(t, "long", newEd25519(t), f.account, func(c *x509.Certificate) { c.Subject.Organization = []string{strings.Repeat("x", MaxCertLen)} })
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := func(key crypto.Signer, edits ...func(*x509.Certificate)) [][]byte {
		return ders(makeCert(t, "leaf", key, f.account, edits...), f.account, f.ca)
	}
	return []badChain{
		{"nothing", nil, "0 certificates"},
		{"device alone", ders(f.device), "1 certificates"},
		{"self-signed device alone", ders(alone), "1 certificates"},
		{"four", ders(f.device, f.account, f.ca, f.ca), "4 certificates"},
		{"a thousand", slices.Repeat(ders(f.ca), 1000), "1000 certificates"},
		{"too long", ders(long, f.account, f.ca), "at most 2048"},
		{"1 MiB, refused before it is parsed", [][]byte{make([]byte, 1<<20), f.account.der}, "at most 2048"},
		{"not DER", [][]byte{[]byte("hello"), f.account.der}, "certificate 0"},
		{"empty", [][]byte{f.device.der, {}}, "certificate 1"},
		{"trailing bytes", [][]byte{append(bytes.Clone(f.device.der), 0), f.account.der, f.ca.der}, "trailing"},
		{"RSA", leaf(rsaKey), "key type *rsa.PublicKey"},
		{"P-384", leaf(p384), "P-384"},
		{"five names", leaf(newEd25519(t), func(c *x509.Certificate) { c.DNSNames = []string{"a", "b", "c", "d", "e"} }), "alternative names"},
		{"five names of several kinds", leaf(newEd25519(t), func(c *x509.Certificate) {
			c.DNSNames, c.EmailAddresses, c.URIs = []string{"a", "b"}, []string{"c@d"}, []*url.URL{{Scheme: "e", Host: "f"}, {Scheme: "g", Host: "h"}}
		}), "alternative names"},
		{"forty extensions", leaf(newEd25519(t), func(c *x509.Certificate) {
			for i := range 40 {
				c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, i}, Value: []byte{5, 0}})
			}
		}), "extensions"},
		{"unknown critical extension", leaf(newEd25519(t), func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), "unknown critical extension 1.2.3"},
	}
}

// critical makes what say says in one extension critical.
func critical(t testing.TB, oid string, say func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		say(c)
		made, err := x509.ParseCertificate(makeCert(t, "x", newEd25519(t), nil, say).der)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(made.Extensions, func(e pkix.Extension) bool { return e.Id.String() == oid })
		made.Extensions[i].Critical = true
		c.ExtraExtensions = append(c.ExtraExtensions, made.Extensions[i])
	}
}

// under is a chain in which each of device, account and authority may be edited.
func under(t testing.TB, device, account, ca func(*x509.Certificate)) [][]byte {
	or := func(edit func(*x509.Certificate)) func(*x509.Certificate) {
		if edit == nil {
			return func(*x509.Certificate) {}
		}
		return edit
	}
	top := makeCert(t, "ca", newEd25519(t), nil, authority, or(ca))
	mid := makeCert(t, "account", newEd25519(t), top, authority, or(account))
	return ders(makeCert(t, "device", newEd25519(t), mid, or(device)), mid, top)
}

// uses makes the uses of a key critical.
func uses(t testing.TB, usage ...x509.ExtKeyUsage) func(*x509.Certificate) {
	return critical(t, oidExtKeyUsage, func(c *x509.Certificate) { c.ExtKeyUsage = usage })
}

func badUses(t testing.TB, f family) []badChain {
	named := func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"example.com"}
	}
	path0 := func(c *x509.Certificate) { c.MaxPathLenZero = true }
	encrypts := func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }
	policy, _ := x509.OIDFromInts([]uint64{1, 2, 3})
	sans := critical(t, "2.5.29.17", func(c *x509.Certificate) { c.DNSNames = []string{"example.com"} })
	policies := critical(t, "2.5.29.32", func(c *x509.Certificate) { c.Policies = []x509.OID{policy} })
	again := makeCert(t, "ca", f.account.key, nil, authority)
	twice := makeCert(t, "account", f.account.key, again, authority)
	self := makeCert(t, "account", f.account.key, nil, authority)
	out := []badChain{
		{"the authority may have no authority below", under(t, nil, nil, path0), "at most 0"},
		{"the device's key may not sign", under(t, encrypts, nil, nil), "may not sign"},
		{"the account twice, by two certificates", ders(makeCert(t, "d", newEd25519(t), twice), twice, again), "its own authority"},
		{"the account twice, the same certificate", ders(makeCert(t, "d", newEd25519(t), self), self, self), "its own authority"},
		{"for servers alone", under(t, uses(t, x509.ExtKeyUsageServerAuth), nil, nil), "both ends"},
		{"for signing code", under(t, uses(t, x509.ExtKeyUsageCodeSigning), nil, nil), "both ends"},
		{"the account is for mail", under(t, nil, uses(t, x509.ExtKeyUsageEmailProtection), nil), "both ends"},
	}
	for what, edit := range map[string]func(*x509.Certificate){"alternative names": sans, "policies": policies} {
		out = append(
			out, badChain{"critical on the device: " + what, under(t, edit, nil, nil), "unknown critical extension 2.5.29."},
			badChain{"critical on the account: " + what, under(t, nil, edit, nil), "unknown critical extension 2.5.29."},
			badChain{"critical on the authority: " + what, under(t, nil, nil, edit), "unknown critical extension 2.5.29."},
		)
	}
	return append(
		out, badChain{"name constraints of the account", under(t, nil, named, nil), "unknown critical extension 2.5.29.30"},
		badChain{"name constraints of the authority", under(t, nil, nil, named), "unknown critical extension 2.5.29.30"},
	)
}

// goodUses are certificates with more in them that are taken all the same: what may be
// ignored, and what is as we apply it. They are changes of the device's, the account's
// and the authority's.
func goodUses(t testing.TB) map[string][3]func(*x509.Certificate) {
	policy, _ := x509.OIDFromInts([]uint64{1, 2, 3})
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	signs := func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign }
	return map[string][3]func(*x509.Certificate){
		"nothing more":                    {},
		"alternative names, not critical": {func(c *x509.Certificate) { c.DNSNames = []string{"example.com"} }},
		"name constraints, not critical":  {nil, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} }},
		"policies, not critical":          {nil, nil, func(c *x509.Certificate) { c.Policies = []x509.OID{policy} }},
		"uses, not critical":              {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }},
		"both ends of TLS":                {uses(t, both...), uses(t, both...), uses(t, both...)},
		"any use":                         {uses(t, x509.ExtKeyUsageAny), uses(t, x509.ExtKeyUsageAny)},
		"more key uses":                   {signs, signs, signs},
		"path lengths": {
			nil, func(c *x509.Certificate) { c.MaxPathLenZero = true }, func(c *x509.Certificate) { c.MaxPathLen = 1 },
		},
	}
}

// case: S22
func TestChainsWithMoreInThemAreTaken(t *testing.T) {
	for name, edits := range goodUses(t) {
		t.Run(name, func(t *testing.T) {
			if _, err := VerifyChain(under(t, edits[0], edits[1], edits[2]), certNow); err != nil {
				t.Error(err)
			}
		})
	}
}

func badTimes(t testing.TB, f family) []badChain {
	expired := func(c *x509.Certificate) { c.NotAfter = certNow.Add(-time.Second) }
	early := func(c *x509.Certificate) { c.NotBefore = certNow.Add(time.Second) }
	oldAccount := makeCert(t, "account", newEd25519(t), f.ca, authority, expired)
	oldCA := makeCert(t, "ca", newEd25519(t), nil, authority, early)
	youngAccount := makeCert(t, "account", newEd25519(t), oldCA, authority)
	return []badChain{
		{"expired device", ders(makeCert(t, "d", newEd25519(t), f.account, expired), f.account, f.ca), "device certificate: expired at 2026-06-01T11:59:59Z, and here it is 2026-06-01T12:00:00Z (is a clock wrong?)"},
		{"device not yet valid", ders(makeCert(t, "d", newEd25519(t), f.account, early), f.account, f.ca), "device certificate: not valid before 2026-06-01T12:00:01Z, and here it is 2026-06-01T12:00:00Z (is a clock wrong?)"},
		{"expired account", ders(makeCert(t, "d", newEd25519(t), oldAccount), oldAccount, f.ca), "account certificate: expired"},
		{"authority not yet valid", ders(makeCert(t, "d", newEd25519(t), youngAccount), youngAccount, oldCA), "account certificate: not valid before"},
	}
}

func badRoles(t testing.TB, f family) []badChain {
	caLeaf := makeCert(t, "leaf", newEd25519(t), f.account, authority)
	plain := makeCert(t, "account", newEd25519(t), nil)
	noSign := makeCert(t, "account", newEd25519(t), nil, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageDigitalSignature })
	selfLeaf := makeCert(t, "self", newEd25519(t), nil)
	return []badChain{
		{"authority flag on the device", ders(caLeaf, f.account, f.ca), "no device certificate"},
		{"account without authority flag", ders(makeCert(t, "d", newEd25519(t), plain), plain), "authority flag is false"},
		{"account that may not sign", ders(makeCert(t, "d", newEd25519(t), noSign), noSign), "may not sign"},
		{"self-signed device beside an account", ders(selfLeaf, f.ca), `the issuer of "self" is not in the chain`},
		{"device as its own account", ders(selfLeaf, selfLeaf), "authority flag is false"},
		{"authority left out", ders(f.device, f.account), "account certificate: issued by"},
		{"account left out", ders(f.device, f.ca), "the issuer of \"device\" is not in the chain"},
		{"stranger in the chain", ders(f.device, f.account, makeCert(t, "stranger", newEd25519(t), nil, authority)), "not in the chain"},
	}
}

func badSignatures(t testing.TB, f family) []badChain {
	swappedCA := makeCert(t, "ca", newEd25519(t), nil, authority)
	swappedAccount := makeCert(t, "account", newEd25519(t), f.ca, authority)
	flip := func(b []byte, at int) []byte { b = bytes.Clone(b); b[at] ^= 1; return b }
	d := f.device.der
	return []badChain{
		{"swapped root", ders(f.device, f.account, swappedCA), "account certificate: x509: Ed25519 verification failure"},
		{"swapped account", ders(f.device, swappedAccount, f.ca), "device certificate: x509: Ed25519 verification failure"},
		{"damaged signature", [][]byte{flip(d, len(d)-1), f.account.der, f.ca.der}, "verification failure"},
		{"damaged name", [][]byte{bytes.Replace(d, []byte("device"), []byte("devicf"), 1), f.account.der, f.ca.der}, "verification failure"},
		{"damaged root", [][]byte{d, f.account.der, flip(f.ca.der, len(f.ca.der)-1)}, "account certificate: x509: Ed25519 verification failure"},
		{"signed with SHA-512", shaChain(t), "signed with ECDSA-SHA512"},
	}
}

// shaChain has one account sign with a hash that we do not use.
func shaChain(t testing.TB) [][]byte {
	account := makeCert(t, "account", newP256(t), nil, authority)
	return ders(makeCert(t, "d", newEd25519(t), account, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA512 }), account)
}

func badNames(t testing.TB, f family) []badChain {
	var out []badChain
	for what, name := range map[string]string{
		"no name":          "",
		"terminal escape":  "\x1b]0;root\x07",
		"bidi override":    "txt\u202eexe",
		"zero width":       "a\u200bb",
		"line break":       "a\nb",
		"NUL":              "a\x00b",
		"too long":         strings.Repeat("é", MaxNameLen/2+1),
		"no-break space":   "a\u00a0b",
		"private use rune": "\ue000",
	} {
		out = append(out, badChain{"name: " + what, ders(makeCert(t, name, newEd25519(t), f.account), f.account, f.ca), "device certificate: the name"})
	}
	account := makeCert(t, "a\u202eb", newEd25519(t), nil, authority)
	return append(out, badChain{"name of the account", ders(makeCert(t, "d", newEd25519(t), account), account), "account certificate: the name"})
}

func TestNamesThatPeopleUseAreTaken(t *testing.T) {
	for _, name := range []string{"a", "alice's laptop", "Größe", "名前", "ноутбук", "📱 phone", strings.Repeat("x", MaxNameLen)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := CheckName("a\xffb"); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("invalid UTF-8: %v", err)
	}
}

// A new certificate is good for a peer whose clock is a day behind, and no
// longer; the bounds themselves are valid instants.
//
// fault: D4, I4
func TestClocksADayApart(t *testing.T) {
	now := time.Now()
	chain := generate(t, "me").Peer().Chain()
	for off, ok := range map[time.Duration]bool{
		0: true, time.Hour: true, -23 * time.Hour: true, -25 * time.Hour: false,
		365 * 24 * time.Hour: true, deviceValidity + time.Hour: false,
	} {
		if _, err := VerifyChain(chain, now.Add(off)); (err == nil) != ok {
			t.Errorf("clock off by %s: %v", off, err)
		}
	}
	f := newFamily(t)
	for _, at := range []time.Time{certNow.Add(-time.Hour), certNow.Add(time.Hour)} {
		if _, err := VerifyChain(ders(f.device, f.account, f.ca), at); err != nil {
			t.Errorf("at the bound: %v", err)
		}
	}
}

func TestPeerCannotBeChangedFromOutside(t *testing.T) {
	me := generate(t, "me")
	me.Peer().Chain()[0][0] ^= 1
	me.Certificate().Certificate[0][0] ^= 1
	if _, err := VerifyChain(me.Peer().Chain(), time.Now()); err != nil {
		t.Error("the chain was changed through a copy")
	}
	given := me.Peer().Chain()
	p, err := VerifyChain(given, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	clear(given[0])
	if bytes.Equal(p.Chain()[0], given[0]) {
		t.Error("the peer keeps the caller's memory")
	}
	if got := (Peer{Name: "a\x1b", Device: me.DeviceID()}).String(); got != `"a\x1b" (`+me.DeviceID().Short()+`)` {
		t.Errorf("String: %q", got)
	}
}

// Whatever is presented costs less than a millisecond. The fastest of many
// runs is taken, as the machine may be busy.
//
// fault: D3
func TestHostileChainsAreCheap(t *testing.T) {
	f := newFamily(t)
	big := func(n int) [][]byte { return [][]byte{bytes.Repeat([]byte{0x30}, n), bytes.Repeat([]byte{0x30}, n)} }
	nested := append(bytes.Repeat([]byte{0x30, 0x80}, MaxCertLen/2-1), 0, 0)
	hostile := slices.Concat(badSizes(t, f), badSignatures(t, f), []badChain{
		{"sound", ders(f.device, f.account, f.ca), ""},
		{"megabytes", big(1 << 22), ""},
		{"nested", [][]byte{nested, nested, nested}, ""},
	})
	for _, tt := range hostile {
		best := time.Hour
		for range 300 {
			start := time.Now()
			_, _ = VerifyChain(tt.chain, certNow)
			if best = min(best, time.Since(start)); best <= costLimit {
				break
			}
		}
		if best > costLimit {
			t.Errorf("%s: %s, want at most %s", tt.name, best, costLimit)
		}
	}
}

func FuzzVerifyChain(f *testing.F) {
	// Fixed certificates: with new ones each time the inputs found before would
	// say nothing.
	v, fixed := readVector(f)
	join := func(chain ...[]byte) (out []byte) {
		for _, c := range chain {
			out = append(out, byte(len(c)>>8), byte(len(c)))
			out = append(out, c...)
		}
		return out
	}
	f.Add(join(fixed[0], fixed[1]))
	f.Add(join(fixed[1], fixed[0]))
	f.Add(join(fixed[0], fixed[1], fixed[1]))
	f.Add(join(fixed[0]))
	f.Add([]byte{0, 2, 0x30, 0, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var chain [][]byte
		for len(b) >= 2 && len(chain) < 5 {
			n := min(int(b[0])<<8|int(b[1]), len(b)-2)
			chain, b = append(chain, b[2:2+n]), b[2+n:]
		}
		p, err := VerifyChain(chain, v.At)
		if err != nil {
			if !errors.Is(err, ErrChain) || !p.Device.IsZero() {
				t.Errorf("%v with %v", p, err)
			}
			return
		}
		if p.Device.IsZero() || p.Account.IsZero() || CheckName(p.Name) != nil {
			t.Errorf("accepted %v", p)
		}
		if q, err := VerifyChain(p.Chain(), v.At); err != nil || q.Device != p.Device {
			t.Errorf("its own chain: %v, %v", q, err)
		}
	})
}

func BenchmarkVerifyChain(b *testing.B) {
	chain := generate(b, "me").Peer().Chain()
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := VerifyChain(chain, now); err != nil {
			b.Fatal(err)
		}
	}
}

// case: S21
func TestNamesShowSomething(t *testing.T) {
	for _, r := range []rune{0x34F, 0x115F, 0x1160, 0x17B4, 0x180E, 0x2065, 0x2800, 0x3164, 0xFE00, 0xFE0F, 0xFFA0, 0xFFF0, 0x13441, 0x16FE4, 0x1D159, 0xE0020, 0xE01EF} {
		for _, name := range []string{string(r), "bob" + string(r), string(r) + "bob"} {
			if err := CheckName(name); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%U", r)) {
				t.Errorf("%+q: %v", name, err)
			}
		}
	}
	for _, name := range []string{" ", "  ", " \u0301"} {
		if err := CheckName(name); err == nil {
			t.Errorf("%+q is taken for a name", name)
		}
	}
	for _, name := range []string{"bob", "Zoë’s phone", "\u2764\ufe0f", "\u845b\U000e0100\u57ce", "نور", "日本"} {
		if err := CheckName(name); err != nil {
			t.Errorf("%+q: %v", name, err)
		}
	}
}
