package ice

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// coturn is somebody else's TURN server, on loopback.
type coturn struct {
	addr  string
	roots *x509.CertPool
}

const coturnSecret = "a secret that both know"

// startCoturn runs it with a shared secret, for UDP, TCP and TLS on one port.
func startCoturn(t *testing.T, flags ...string) *coturn {
	t.Helper()
	prog, err := exec.LookPath("turnserver")
	if err != nil {
		fmt.Fprintf(os.Stderr, "\n*** SKIPPED: %s: coturn is not installed (apt-get install coturn)\n\n", t.Name())
		t.Skip("coturn is not installed")
	}
	dir := t.TempDir()
	c := &coturn{roots: x509.NewCertPool()}
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	c.certificate(t, cert, key)
	c.addr = freePort(t)
	_, port, _ := net.SplitHostPort(c.addr)
	args := append([]string{
		"-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--listening-port=" + port, "--tls-listening-port=" + port,
		"--realm=example", "--allow-loopback-peers", "--cli-password=unused", "--no-cli", "--cert=" + cert, "--pkey=" + key,
		"--log-file=stdout", "--simple-log", "--pidfile=" + filepath.Join(dir, "pid"), "--userdb=" + filepath.Join(dir, "db"), "--no-stdout-log",
	}, flags...)
	cmd := exec.Command(prog, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-done
	})
	waitFor(t, func() bool {
		conn, err := net.DialTimeout("tcp", c.addr, 100*time.Millisecond)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return c
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (c *coturn) certificate(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	c.roots.AddCert(leaf)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Somebody else's server is used over UDP, TCP and TLS, with short-lived
// credentials made from a shared secret and with long-term ones.
// fault: F1, F3
func TestCoturnRelaysOverEachTransport(t *testing.T) {
	shared := startCoturn(t, "--use-auth-secret", "--static-auth-secret="+coturnSecret)
	long := startCoturn(t, "--lt-cred-mech", "--user=alice:wonderland")
	for name, s := range map[string]Server{
		"UDP, shared secret": {URL: "turn:" + shared.addr + "?transport=udp", Secret: coturnSecret, Username: "alice"},
		"TCP, shared secret": {URL: "turn:" + shared.addr + "?transport=tcp", Secret: coturnSecret},
		"TLS, shared secret": {URL: "turns:" + shared.addr, Secret: coturnSecret, TLS: &tls.Config{RootCAs: shared.roots, MinVersion: tls.VersionTLS12}},
		"UDP, long-term":     {URL: "turn:" + long.addr, Username: "alice", Password: "wonderland"},
	} {
		t.Run(name, func(t *testing.T) {
			use := func(c *Config) { c.Servers = []Server{s} }
			a, b := newApart(t, use, use)
			ca, cb := connect(t, a, b)
			relayed(t, ca)
			exchangeBytes(t, ca, cb, 1<<20)
		})
	}
}

// A server whose certificate no authority vouches for is not used, nor one that
// refuses the credentials; both are told.
// fault: F3
func TestAServerThatIsNotTheRightOneIsNotUsed(t *testing.T) {
	c := startCoturn(t, "--use-auth-secret", "--static-auth-secret="+coturnSecret)
	for name, x := range map[string]struct {
		s    Server
		want string
	}{
		"unknown authority": {Server{URL: "turns:" + c.addr, Secret: coturnSecret}, "certificate"},
		"wrong secret":      {Server{URL: "turn:" + c.addr, Secret: "guessed"}, "401"},
		"no credentials":    {Server{URL: "turn:" + c.addr}, "no credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			var r Report
			// On a busy machine the server's answer may take longer than the call.
			for timeout := 1500 * time.Millisecond; timeout < 15*time.Second; timeout *= 2 {
				use := func(c *Config) { c.Servers, c.Timeout = []Server{x.s}, timeout }
				a, b := newApart(t, use, use)
				_, _, err := a.Dial(WithReport(limit(t, 20*time.Second), func(told Report) { r = told }), b.id.DeviceID())
				if err == nil {
					t.Fatal("connected")
				}
				if strings.Contains(strings.Join(r.Silent, "\n"), x.want) {
					return
				}
			}
			t.Errorf("%q is not told by %q", x.want, r.Silent)
		})
	}
}
