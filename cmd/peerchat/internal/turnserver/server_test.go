package turnserver

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v3"
	turn5 "github.com/pion/turn/v5"
	"go.uber.org/goleak"

	"peerlink/identity"
	"peerlink/internal/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fixture struct {
	*Server
	key ed25519.PublicKey
	me  *identity.Identity
}

func start(t *testing.T, change func(*Config)) *fixture {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	me, err := identity.Generate("me")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Listen: "127.0.0.1:0", Key: key, Relay: true, Private: true}
	if change != nil {
		change(&cfg)
	}
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &fixture{s, public, me}
}

func (f *fixture) fetch(t *testing.T) (relay.Pass, error) {
	return relay.Fetch(t.Context(), f.Addr().String(), f.key, f.me)
}

// client is a TURN client of pion's, over UDP.
func client(t *testing.T, at, username, password string) (*turn.Client, net.PacketConn) {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return clientOn(t, conn, at, username, password), conn
}

func clientOn(t *testing.T, conn net.PacketConn, at, username, password string) *turn.Client {
	t.Helper()
	log := logging.NewDefaultLoggerFactory()
	log.DefaultLogLevel = logging.LogLevelDisabled
	c, err := turn.NewClient(&turn.ClientConfig{TURNServerAddr: at, STUNServerAddr: at, Conn: conn, Username: username, Password: password, LoggerFactory: log})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); conn.Close() })
	return c
}

// pionClient is what a TURN client of pion's can do: v3 is that of package ice, v5
// that of package webrtc.
type pionClient interface {
	Listen() error
	Allocate() (net.PacketConn, error)
	Close()
}

func TestADeviceGetsAPassAndIsRelayed(t *testing.T) {
	log := logging.NewDefaultLoggerFactory()
	log.DefaultLogLevel = logging.LogLevelDisabled
	for name, newClient := range map[string]func(at string, conn net.PacketConn, p relay.Pass) (pionClient, error){
		"ice's": func(at string, conn net.PacketConn, p relay.Pass) (pionClient, error) {
			return turn.NewClient(&turn.ClientConfig{TURNServerAddr: at, Conn: conn, Username: p.Username, Password: p.Password, LoggerFactory: log})
		},
		"webrtc's": func(at string, conn net.PacketConn, p relay.Pass) (pionClient, error) {
			return turn5.NewClient(&turn5.ClientConfig{TURNServerAddr: at, Conn: conn, Username: p.Username, Password: p.Password, LoggerFactory: log})
		},
	} {
		for _, network := range []string{"udp4", "tcp4"} {
			t.Run(name+" over "+network, func(t *testing.T) {
				f := start(t, nil)
				p, err := f.fetch(t)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.HasSuffix(p.Username, ":"+f.me.DeviceID().String()) || time.Until(p.Expires) < passLife-time.Minute {
					t.Errorf("pass %q until %v", p.Username, p.Expires)
				}
				var conn net.PacketConn
				if network == "tcp4" {
					stream, err := net.Dial(network, f.Addr().String())
					if err != nil {
						t.Fatal(err)
					}
					conn = turn.NewSTUNConn(stream)
				} else if conn, err = net.ListenPacket(network, "127.0.0.1:0"); err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				c, err := newClient(f.Addr().String(), conn, p)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if err := c.Listen(); err != nil {
					t.Fatal(err)
				}
				relayed, err := c.Allocate()
				if err != nil {
					t.Fatal(err)
				}
				talk(t, relayed)
				if n := f.Allocations(); n != 1 {
					t.Errorf("%d allocations", n)
				}
				relayed.Close()
				given(t, "the allocation has ended", func() bool { return f.Allocations() == 0 })
			})
		}
	}
}

// talk sends a packet there and back through an allocation.
func talk(t *testing.T, relayed net.PacketConn) {
	t.Helper()
	peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	b := make([]byte, 16)
	for _, way := range []struct{ from, to net.PacketConn }{{relayed, peer}, {peer, relayed}} {
		if _, err := way.from.WriteTo([]byte("hello"), way.to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		way.to.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, from, err := way.to.ReadFrom(b)
		if err != nil || string(b[:n]) != "hello" || from.String() != way.from.LocalAddr().String() {
			t.Fatalf("%q from %v, %v", b[:n], from, err)
		}
	}
}

// Another node at the address, a node that does not relay, and one that does
// not want this device.
// fault: D1
func TestNoPassFromTheWrongNodeOrAgainstItsWill(t *testing.T) {
	f := start(t, nil)
	other, _, _ := ed25519.GenerateKey(rand.Reader)
	if _, err := relay.Fetch(t.Context(), f.Addr().String(), other, f.me); err == nil || !strings.Contains(err.Error(), "another node") {
		t.Errorf("wrong key: %v", err)
	}
	off := start(t, func(c *Config) { c.Relay = false })
	if _, err := off.fetch(t); !errors.Is(err, relay.ErrNoRelay) {
		t.Errorf("no relay: %v", err)
	}
}

// fault: D2
func TestACertificateAloneGetsNoPass(t *testing.T) {
	f := start(t, nil)
	mallory, err := identity.Generate("mallory")
	if err != nil {
		t.Fatal(err)
	}
	// The victim's chain behind a certificate of one's own.
	mixed := mallory.Certificate()
	mixed.Certificate = append([][]byte{mixed.Certificate[0]}, f.me.Certificate().Certificate...)
	for name, cert := range map[string][]tls.Certificate{"none": nil, "mixed": {mixed}} {
		conn, err := tls.Dial("tcp", f.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{relay.Protocol}, Certificates: cert})
		if err != nil {
			continue
		}
		if b, _ := io.ReadAll(conn); len(b) != 0 {
			t.Errorf("%s: got %x", name, b)
		}
		conn.Close()
	}
}

// fault: F3
func TestForgedAndExpiredCredentialsAreRefused(t *testing.T) {
	f := start(t, nil)
	p, err := f.fetch(t)
	if err != nil {
		t.Fatal(err)
	}
	old := fmt.Sprintf("%d:%s", time.Now().Add(-time.Second).Unix(), f.me.DeviceID())
	for name, c := range map[string][2]string{
		"forged":       {p.Username, "guess"},
		"expired":      {old, f.password(old)},
		"no expiry":    {"alice", f.password("alice")},
		"another name": {strings.Replace(p.Username, ":", ":a", 1), p.Password},
	} {
		cl, _ := client(t, f.Addr().String(), c[0], c[1])
		if _, err := cl.Allocate(); err == nil {
			t.Errorf("%s: allocated", name)
		}
	}
}

// fault: J1
func TestAllocationsAreBounded(t *testing.T) {
	f := start(t, func(c *Config) { c.most = 3 })
	p, err := f.fetch(t)
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for range 5 {
		c, _ := client(t, f.Addr().String(), p.Username, p.Password)
		if a, err := c.Allocate(); err == nil {
			got++
			defer a.Close()
		}
	}
	if got != 3 {
		t.Errorf("%d allocations in all, want 3", got)
	}
}

// A relay is no way into its own network.
// fault: E8
func TestPeersThatAreNobodysBusinessAreRefused(t *testing.T) {
	f := start(t, func(c *Config) { c.Private = false })
	f.own[netip.MustParseAddr("203.0.113.9")] = true
	for ip, want := range map[string]bool{
		"198.51.100.7": true, "127.0.0.1": false, "10.0.0.1": false, "192.168.1.1": false, "169.254.169.254": false, "224.0.0.1": false,
		"0.0.0.0": false, "255.255.255.255": false, "fd00::1": false, "::1": false, "2001:db8::1": true, "100.64.0.1": false,
		"100.128.0.1": true, "0.1.2.3": false, "240.0.0.1": false, "203.0.113.9": false, "203.0.113.8": true,
	} {
		if got := f.isPublic(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: %v", ip, got)
		}
	}
	private := start(t, nil)
	for ip, want := range map[string]bool{"127.0.0.1": true, "10.0.0.1": true, "100.64.0.1": true, "224.0.0.1": false, "169.254.169.254": false} {
		if got := private.isPublic(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s with Config.Private: %v", ip, got)
		}
	}
}

// Two relayed devices meet at the relay's own address, where nothing else of the
// machine is reached.
// case: S25
// fault: E8
func TestOfItsOwnPortsARelayReachesTheRelayedOnes(t *testing.T) {
	f := start(t, func(c *Config) { c.Private, c.Address = false, netip.MustParseAddr("203.0.113.9") })
	p, err := f.fetch(t)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := client(t, f.Addr().String(), p.Username, p.Password)
	a, err := c.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	relayed := addrPort(a.LocalAddr())
	if !f.isPublic(relayed.Addr()) || f.isOwn(relayed) {
		t.Errorf("%s is refused", relayed)
	}
	for _, at := range []string{"203.0.113.9:" + fmt.Sprint(f.Addr().Port()), "127.0.0.1:22"} {
		if !f.isOwn(netip.MustParseAddrPort(at)) {
			t.Errorf("%s is reached", at)
		}
	}
	if other := netip.MustParseAddrPort("198.51.100.7:22"); f.isOwn(other) {
		t.Errorf("%s is refused", other)
	}
}

func TestTLSCarriesTURNToo(t *testing.T) {
	f := start(t, nil)
	p, err := f.fetch(t)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", f.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpnTURN}})
	if err != nil {
		t.Fatal(err)
	}
	c := clientOn(t, turn.NewSTUNConn(conn), f.Addr().String(), p.Username, p.Password)
	a, err := c.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
}

// fault: J3, D7
func TestConnectionsOfOneAddressAreBounded(t *testing.T) {
	f := start(t, nil)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range maxConnsOfOne + 8 {
		c, err := net.Dial("tcp", f.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	var closed atomic.Int32
	var readers sync.WaitGroup
	for _, c := range conns {
		readers.Go(func() {
			c.SetReadDeadline(time.Now().Add(firstByteLimit / 2))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				closed.Add(1)
			}
		})
	}
	readers.Wait()
	if n := closed.Load(); n != 8 {
		t.Errorf("%d connections were closed, want 8", n)
	}
}

func TestTheServerClosesWithClientsOnIt(t *testing.T) {
	f := start(t, nil)
	p, err := f.fetch(t)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := client(t, f.Addr().String(), p.Username, p.Password)
	a, err := c.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	silent, err := net.Dial("tcp", f.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	done := make(chan struct{})
	go func() { f.Close(); f.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("it does not close")
	}
}

func TestListenSaysWhatIsWrong(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	for want, c := range map[string]Config{
		"Key":   {Listen: "127.0.0.1:0"},
		"IPv4":  {Listen: "127.0.0.1:0", Key: key, Relay: true, Address: netip.MustParseAddr("2001:db8::1")},
		"a:b:c": {Listen: "a:b:c", Key: key},
	} {
		if s, err := Listen(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v; want %q", s, err, want)
		}
	}
}
