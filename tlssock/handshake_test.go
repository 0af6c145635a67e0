package tlssock

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/identity"
)

func TestBothEndsAreProven(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	caller, callee := link(t, alice, bob)
	if got := caller.Peer(); got.Device != bob.DeviceID() || got.Account != bob.AccountID() || got.Name != "bob" {
		t.Errorf("the caller sees %v", got)
	}
	if got := callee.Peer(); got.Device != alice.DeviceID() || got.Account != alice.AccountID() || got.Name != "alice" {
		t.Errorf("the callee sees %v", got)
	}
	cs := caller.ConnectionState()
	if cs.Version != tls.VersionTLS13 || cs.NegotiatedProtocol != ALPN || cs.CurveID != tls.X25519MLKEM768 || cs.ServerName != "" {
		t.Errorf("version %x, protocol %q, key exchange %v, server name %q", cs.Version, cs.NegotiatedProtocol, cs.CurveID, cs.ServerName)
	}
}

func TestDeviceMayConnectToItself(t *testing.T) {
	me := newIdentity(t, "me")
	caller, callee := link(t, me, me)
	if caller.Peer().Device != me.DeviceID() || callee.Peer().Device != me.DeviceID() {
		t.Errorf("peers %v and %v", caller.Peer(), callee.Peer())
	}
}

// fault: D1
func TestWrongDeviceIsRefusedByTheCaller(t *testing.T) {
	alice, bob, carol := newIdentity(t, "alice"), newIdentity(t, "bob"), newIdentity(t, "carol")
	c, s := tcpPipe(t)
	donec := make(chan error, 1)
	go func() { _, err := Server(context.Background(), s, carol, nil); donec <- err }()
	_, err := Client(context.Background(), c, alice, bob.DeviceID())
	wrong, ok := errors.AsType[*WrongDeviceError](err)
	if !ok || wrong.Dialled != bob.DeviceID() || wrong.Found != carol.DeviceID() {
		t.Errorf("caller: %v", err)
	}
	if !strings.Contains(err.Error(), "tls with "+s.LocalAddr().String()) {
		t.Errorf("the error does not say where: %v", err)
	}
	if err := <-donec; !errors.Is(err, ErrRefused) {
		t.Errorf("callee: %v, want ErrRefused", err)
	}
}

// fault: D5
func TestTrustIsAskedOnBothSides(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	ban := func(s identity.Subject) *identity.Trust {
		var tr identity.Trust
		if err := tr.Set(s, identity.Banned); err != nil {
			t.Fatal(err)
		}
		return &tr
	}
	for name, tt := range map[string]struct {
		caller, callee Config
		callerRefuses  bool
	}{
		"caller bans the device":  {Config{Identity: alice, Trust: ban(bob.DeviceID())}, Config{Identity: bob}, true},
		"caller bans the account": {Config{Identity: alice, Trust: ban(bob.AccountID())}, Config{Identity: bob}, true},
		"callee bans the device":  {Config{Identity: alice}, Config{Identity: bob, Trust: ban(alice.DeviceID())}, false},
		"callee bans the account": {Config{Identity: alice}, Config{Identity: bob, Trust: ban(alice.AccountID())}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := tcpPipe(t)
			donec := make(chan error, 1)
			go func() { _, err := tt.callee.Server(context.Background(), s); donec <- err }()
			conn, callerErr := tt.caller.Client(context.Background(), c, bob.DeviceID())
			if callerErr == nil {
				// The callee's verdict comes after the caller's handshake. What the
				// caller sends meanwhile must not turn it into a reset.
				_, _ = conn.Write(make([]byte, 4096))
				_, callerErr = conn.Read(make([]byte, 1))
			}
			refuser, refused := <-donec, callerErr
			if tt.callerRefuses {
				refuser, refused = refused, refuser
			}
			if !errors.Is(refuser, identity.ErrNotTrusted) {
				t.Errorf("who refuses: %v, want identity.ErrNotTrusted", refuser)
			}
			if !errors.Is(refused, ErrRefused) {
				t.Errorf("who is refused: %v, want ErrRefused", refused)
			}
		})
	}
}

// hostileCaller is a caller that does not keep the rules.
type hostileCaller struct {
	name string
	cfg  *tls.Config
	want string // in the callee's error
}

func hostileCallers(t *testing.T) []hostileCaller {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	with := func(edit func(*tls.Config)) *tls.Config {
		cfg := Config{Identity: alice}.ClientTLS(bob.DeviceID())
		cfg.VerifyConnection = nil
		edit(cfg)
		return cfg
	}
	chain := func(key *cert, certs ...*cert) *tls.Config {
		tc := tls.Certificate{PrivateKey: key.key}
		for _, c := range certs {
			tc.Certificate = append(tc.Certificate, c.der)
		}
		return with(func(c *tls.Config) { c.Certificates = []tls.Certificate{tc} })
	}
	stolen := newIdentity(t, "victim").Certificate()
	stolen.PrivateKey = alice.Certificate().PrivateKey

	// An authority of the attacker's own certifies the victim's account key:
	// with it in front, the chain is in order and the key it proves is its own.
	victim := makeCert(t, "account", nil, authority)
	device := makeCert(t, "victim", victim, nil)
	evil := makeCert(t, "evil", nil, authority)
	adopted := certFor(t, "account", victim.key, evil, authority)

	old := makeCert(t, "old", nil, authority)
	expired := makeCert(t, "expired", old, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	early := makeCert(t, "early", old, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })
	leafCA := makeCert(t, "leaf", old, authority)
	names := makeCert(t, "names", old, func(c *x509.Certificate) { c.DNSNames = strings.Split(strings.Repeat("a.example,", 40), ",")[:40] })
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaLeaf := certFor(t, "rsa", rsaKey, old, nil)
	big := makeCert(t, "big", old, func(c *x509.Certificate) { c.Subject.Organization = []string{strings.Repeat("x", 3000)} })
	huge := make([]*cert, 600)
	for i := range huge {
		huge[i] = old
	}
	return []hostileCaller{
		// fault: D2
		{"certificate without its key", with(func(c *tls.Config) { c.Certificates = []tls.Certificate{stolen} }), "invalid signature"},
		{"own authority before a victim's chain", chain(evil, evil, device, adopted), "first certificate is not the device's"},
		{"authority after a victim's chain", chain(evil, device, victim), "invalid signature"},
		// fault: D3
		{"600 certificates", chain(old, huge...), "more than 16384 bytes"},
		{"20 certificates", chain(old, huge[:20]...), "at most 3"},
		{"RSA key", chain(rsaLeaf, rsaLeaf, old), "key type"},
		{"40 alternative names", chain(names, names, old), "alternative names"},
		{"certificate of 3 KB", chain(big, big, old), "at most 2048"},
		// fault: D4
		{"expired", chain(expired, expired, old), "clock"},
		{"not yet valid", chain(early, early, old), "clock"},
		{"authority as a device", chain(leafCA, leafCA, old), "authority"},
		{"authority alone", chain(old, old), "1 certificates"},
		{"no certificate", with(func(c *tls.Config) { c.Certificates = nil }), "client didn't provide a certificate"},
		// fault: D9
		{"TLS 1.2", with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), "unsupported versions"},
		{"no ALPN", with(func(c *tls.Config) { c.NextProtos = nil }), `application protocol ""`},
		{"wrong ALPN", with(func(c *tls.Config) { c.NextProtos = []string{"h2"} }), "unsupported application protocols"},
	}
}

func TestHostileCallersAreRefused(t *testing.T) {
	bob := newIdentity(t, "bob")
	for _, tt := range hostileCallers(t) {
		t.Run(tt.name, func(t *testing.T) {
			c, s := tcpPipe(t)
			donec := make(chan error, 1)
			go func() { _, err := Server(context.Background(), s, bob, nil); donec <- err }()
			if err := readAsCaller(c, tt.cfg); err == nil {
				t.Error("the caller read a byte")
			}
			if err := <-donec; err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("callee: %v, want %q in it", err, tt.want)
			}
		})
	}
}

// The same certificates in the callee's role: whatever is presented, a caller
// believes only the device it dialled.
//
// fault: D1, D2, D3, D4, D9
func TestHostileCalleesAreRefused(t *testing.T) {
	alice := newIdentity(t, "alice")
	for _, tt := range hostileCallers(t) {
		if len(tt.cfg.Certificates) == 0 {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			leaf, err := x509.ParseCertificate(tt.cfg.Certificates[0].Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			dialled, _ := firstKey(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})
			cfg := tt.cfg.Clone()
			cfg.ClientAuth = tls.NoClientCert
			c, s := tcpPipe(t)
			donec := make(chan error, 1)
			go func() { donec <- tls.Server(s, cfg).Handshake() }()
			conn, err := Client(context.Background(), c, alice, dialled)
			if err == nil {
				t.Errorf("connected to %v", conn.Peer())
			}
			<-donec
		})
	}
}

// fault: D8
func TestNoSessionIsResumed(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	var trust identity.Trust
	cfg := Config{Identity: alice}.ClientTLS(bob.DeviceID())
	cache := &countingCache{ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	cfg.ClientSessionCache, cfg.ServerName = cache, "bob"
	for range 2 {
		c, s := tcpPipe(t)
		go func() {
			conn, err := Server(context.Background(), s, bob, &trust)
			if err == nil {
				conn.Write([]byte("x"))
				conn.Close()
			}
		}()
		tc := tls.Client(c, cfg)
		if _, err := tc.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if tc.ConnectionState().DidResume {
			t.Error("a session was resumed")
		}
	}
	if cache.puts != 0 {
		t.Errorf("%d session tickets were given out", cache.puts)
	}
	// Were one ever resumed, the ban would still be asked for.
	if err := trust.Set(alice.DeviceID(), identity.Banned); err != nil {
		t.Fatal(err)
	}
	if (Config{Identity: bob, Trust: &trust}).ServerTLS().VerifyConnection == nil {
		t.Error("the verdict does not run on resumption")
	}
}

type countingCache struct {
	tls.ClientSessionCache
	puts int
}

func (c *countingCache) Put(key string, s *tls.ClientSessionState) {
	if s != nil {
		c.puts++
	}
	c.ClientSessionCache.Put(key, s)
}

func TestPeerOfWantsAFinishedHandshake(t *testing.T) {
	caller, _ := link(t, newIdentity(t, "alice"), newIdentity(t, "bob"))
	cs := caller.ConnectionState()
	if p, err := PeerOf(cs); err != nil || p.Device != caller.Peer().Device {
		t.Errorf("%v, %v", p, err)
	}
	for name, edit := range map[string]func(*tls.ConnectionState){
		"unfinished":      func(cs *tls.ConnectionState) { cs.HandshakeComplete = false },
		"other protocol":  func(cs *tls.ConnectionState) { cs.NegotiatedProtocol = "h3" },
		"no certificates": func(cs *tls.ConnectionState) { cs.PeerCertificates = nil },
		"zero":            func(cs *tls.ConnectionState) { *cs = tls.ConnectionState{} },
	} {
		bad := cs
		edit(&bad)
		if p, err := PeerOf(bad); err == nil || !p.Device.IsZero() {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}

// Whatever stops on the way, the handshake ends in time, and the error says
// which clock ran out.
//
// fault: D7
func TestHandshakeEndsInTime(t *testing.T) {
	for _, tt := range []struct {
		name    string
		timeout time.Duration
		ctx     func() (context.Context, context.CancelFunc)
		after   time.Duration
		want    error
		text    string
	}{
		{"default", 0, nil, 10 * time.Second, os.ErrDeadlineExceeded, "not finished after 10s"},
		{"set", time.Second, nil, time.Second, os.ErrDeadlineExceeded, "not finished after 1s"},
		{"context's deadline", -1, func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), 3*time.Second)
		}, 3 * time.Second, context.DeadlineExceeded, "handshake"},
		{"context's deadline is a time-out", 0, func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), 3*time.Second)
		}, 3 * time.Second, os.ErrDeadlineExceeded, "handshake"},
		{"cancelled", 0, func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(2*time.Second, cancel)
			return ctx, cancel
		}, 2 * time.Second, context.Canceled, "handshake"},
	} {
		for _, role := range []string{"client", "server", "server, one byte in 900 ms"} {
			t.Run(fmt.Sprintf("%s/%s", tt.name, role), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { stall(t, role, tt.timeout, tt.ctx, tt.after, tt.want, tt.text) })
			})
		}
	}
}

func stall(t *testing.T, role string, timeout time.Duration, mkctx func() (context.Context, context.CancelFunc), after time.Duration, want error, text string) {
	cfg := Config{Identity: newIdentity(t, "me"), HandshakeTimeout: timeout}
	ours, theirs := net.Pipe()
	if role == "server, one byte in 900 ms" {
		hello := []byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 0, 0, 0, 0, 0, 0, 0}
		var drip sync.WaitGroup
		defer drip.Wait()
		drip.Go(func() {
			for _, b := range hello {
				time.Sleep(900 * time.Millisecond) // the fault itself: virtual time
				if _, err := theirs.Write([]byte{b}); err != nil {
					return
				}
			}
		})
	}
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if mkctx != nil {
		ctx, cancel = mkctx()
	}
	defer cancel()
	start := time.Now()
	var err error
	if role == "client" {
		_, err = cfg.Client(ctx, ours, newIdentity(t, "peer").DeviceID())
	} else {
		_, err = cfg.Server(ctx, ours)
	}
	if d := time.Since(start); d != after {
		t.Errorf("ended after %s, want %s", d, after)
	}
	if !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		t.Errorf("%v, want %v with %q", err, want, text)
	}
	if _, err := theirs.Write([]byte{0}); err == nil {
		t.Error("the connection is still open")
	}
}

func TestMissingIdentityOrPeerIsAnError(t *testing.T) {
	alice, bob := newIdentity(t, "alice"), newIdentity(t, "bob")
	c, _ := net.Pipe()
	if _, err := (Config{}).Client(context.Background(), c, bob.DeviceID()); err == nil || !strings.Contains(err.Error(), "Config.Identity") {
		t.Errorf("without identity: %v", err)
	}
	tc, ts := tcpPipe(t)
	go Server(context.Background(), ts, bob, nil)
	if _, err := Client(context.Background(), tc, alice, identity.DeviceID{}); err == nil || !strings.Contains(err.Error(), "no device id") {
		t.Errorf("without peer: %v", err)
	}
}

func TestHandshakeWithAChainOfThree(t *testing.T) {
	ca := makeCert(t, "authority", nil, authority)
	account := makeCert(t, "account", ca, authority)
	device := makeCert(t, "device", account, nil)
	bob := newIdentity(t, "bob")
	cfg := Config{Identity: bob}.ClientTLS(bob.DeviceID())
	cfg.Certificates = []tls.Certificate{{Certificate: [][]byte{device.der, ca.der, account.der}, PrivateKey: device.key}}
	c, s := tcpPipe(t)
	donec := make(chan error, 1)
	go func() { donec <- readAsCaller(c, cfg) }()
	conn, err := Server(context.Background(), s, bob, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p := conn.Peer(); p.CA.IsZero() || p.Name != "device" {
		t.Errorf("peer %v with authority %v", p, p.CA)
	}
	conn.Close()
	<-donec
}
