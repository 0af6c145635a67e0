package connectionmanager_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	"peerlink"
	"peerlink/account"
	"peerlink/dht"
	"peerlink/identity"
	"peerlink/peerlinktest"
	"peerlink/peerlinktest/loopback"
)

// authority signs accounts.
type authority struct {
	key  ed25519.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = certified(t, "authority", true, nil, nil)
	return a
}

// certified makes a key and its certificate, signed by issuer or itself.
func certified(t *testing.T, name string, signs bool, issuer *x509.Certificate, by crypto.Signer) (*x509.Certificate, ed25519.PrivateKey) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if signs {
		tmpl.IsCA, tmpl.KeyUsage = true, x509.KeyUsageCertSign
	}
	if issuer == nil {
		issuer, by = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, issuer, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// issue makes a device whose account the authority has signed.
func (a *authority) issue(t *testing.T, name string) *identity.Identity {
	t.Helper()
	accountCert, accountKey := certified(t, name+"'s account", true, a.cert, a.key)
	deviceCert, deviceKey := certified(t, name, false, accountCert, accountKey)
	var b bytes.Buffer
	for _, c := range []*x509.Certificate{deviceCert, accountCert, a.cert} {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	der, err := x509.MarshalPKCS8PrivateKey(deviceKey)
	if err != nil {
		t.Fatal(err)
	}
	_ = pem.Encode(&b, &pem.Block{Type: "PEERLINK DEVICE KEY", Bytes: der})
	sealing, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := sealing.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	_ = pem.Encode(&b, &pem.Block{Type: "PEERLINK HPKE KEY", Bytes: raw})
	id, err := identity.Decode(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// bans tests that a ban of either end's device, account or authority cuts live
// links within a second, and keeps new ones from being made on both sides.
func bans(t *testing.T, w world, subjects func(*identity.Identity) map[string]identity.Subject) {
	for what := range subjects(newIdentity(t, "nobody")) {
		for _, bannerDialled := range []bool{true, false} {
			role := map[bool]string{true: "caller", false: "callee"}[bannerDialled]
			alice, bob := w.device(t, what+" "+role+" a", nil), w.device(t, what+" "+role+" b", nil)
			alice.echoing(t, "*")
			bob.echoing(t, "*")
			caller, callee := alice, bob
			if !bannerDialled {
				caller, callee = bob, alice
			}
			c := connect(t, caller, callee, "chat://1")
			exchange(t, c, "hello")
			if err := alice.trust(subjects(bob.id)[what], identity.Banned); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_, err := c.Read(make([]byte, 1))
			if d := time.Since(began); err == nil || err == io.EOF || d > time.Second {
				t.Errorf("%s (banner dialled: %v): read %v after %v", what, bannerDialled, err, d)
			}
			eventually(t, "no link is left", func() bool { return len(alice.Connections())+len(bob.Connections()) == 0 })
			for _, d := range [][2]*device{{alice, bob}, {bob, alice}} {
				ctx, cancel := context.WithTimeout(background, 300*time.Millisecond)
				if _, err := d[0].ConnectDevice(ctx, d[1].id.DeviceID(), "chat://2", peerlink.ConnectOptions{}); err == nil {
					t.Errorf("%s (banner dialled: %v): connected again", what, bannerDialled)
				}
				cancel()
			}
			if err := alice.trust(subjects(bob.id)[what], identity.Undecided); err != nil {
				t.Fatal(err)
			}
			exchange(t, connect(t, alice, bob, "chat://3"), "forgiven")
		}
	}
}

// fault: D5
func TestS80_BanCutsLiveLinksAndKeepsNewOnesOut(t *testing.T) {
	overCarriers(t, func(t *testing.T, w world) {
		bans(t, w, func(id *identity.Identity) map[string]identity.Subject {
			return map[string]identity.Subject{"device": id.DeviceID(), "account": id.AccountID()}
		})
	})
}

// fault: D5
func TestS80_BanOfAnAuthorityCutsItsDevices(t *testing.T) {
	for _, c := range []peerlinktest.Carrier{loopback.TCP(), loopback.ICE("tcp", nil), loopback.ICE("udp", nil)} {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			bans(t, authorities{peerlinktest.New(t, c)}, func(id *identity.Identity) map[string]identity.Subject {
				return map[string]identity.Subject{"authority": id.Peer().CA}
			})
		})
	}
}

// authorities is a world in which each account has an authority.
type authorities struct{ *peerlinktest.Network }

func (a authorities) device(t *testing.T, name string, _ func(*peerlink.Config)) *device {
	return ofPeer(a.PeerAs(newAuthority(t).issue(t, name)))
}

// fault: D5
func TestS80_BanSurvivesARestart(t *testing.T) {
	w := newAccountWorld(t).(*accountWorld)
	bob := w.device(t, "bob", nil)
	bob.echoing(t, "*")
	dir := filepath.Join(w.dir, "alice")
	start := func(open func(string, account.Options) (*account.Account, error), node *dht.Node) *account.Account {
		t.Helper()
		acc, err := open(dir, account.Options{Name: "alice", Bootstrap: node.Addrs(), Loopback: true, LocalDir: "off"})
		if err != nil {
			t.Fatal(err)
		}
		if err := acc.Start(background); err != nil {
			t.Fatal(err)
		}
		if err := acc.Ready(background); err != nil {
			t.Fatal(err)
		}
		return acc
	}
	acc := start(account.Create, w.node)
	alice := ofAccount(acc)
	exchange(t, connect(t, alice, bob, "chat://1"), "hello")
	if err := acc.SetTrust(bob.id.AccountID(), identity.Banned); err != nil {
		t.Fatal(err)
	}
	if err := acc.Close(); err != nil {
		t.Fatal(err)
	}
	acc = start(account.Open, w.node)
	defer acc.Close()
	alice = ofAccount(acc)
	for _, d := range [][2]*device{{alice, bob}, {bob, alice}} {
		ctx, cancel := context.WithTimeout(background, time.Second)
		if _, err := d[0].ConnectDevice(ctx, d[1].id.DeviceID(), "chat://2", peerlink.ConnectOptions{}); err == nil {
			t.Error("a banned account connected after a restart")
		}
		cancel()
	}
}
