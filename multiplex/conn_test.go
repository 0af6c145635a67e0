package multiplex_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"peerlink/channel"
	"peerlink/multiplex"
)

// open opens one channel and returns both ends.
func open(from, to *multiplex.Socket, name string) (opener, acceptor *channel.Socket, err error) {
	if opener, err = from.OpenEarly(context.Background(), name); err != nil {
		return nil, nil, err
	}
	r, err := to.Accept(context.Background())
	if err != nil {
		return nil, nil, err
	}
	acceptor, err = r.Accept()
	return opener, acceptor, err
}

// certificate makes a key and a certificate that this test alone believes.
var certificate = sync.OnceValue(func() tls.Certificate {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, tmpl, tmpl, pub, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// overTLS returns the two ends of a TLS connection over loopback TCP, set up as
// tlssock does: TLS 1.3, records of full size.
func overTLS() (client, server net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	b, err := l.Accept()
	if err != nil {
		return nil, nil, err
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{certificate()}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true}
	c, s := tls.Client(a, cfg), tls.Server(b, cfg)
	errc := make(chan error, 1)
	go func() { errc <- s.Handshake() }()
	if err := c.Handshake(); err != nil {
		return nil, nil, err
	}
	return c, s, <-errc
}

func overPipe() (client, server net.Conn, err error) {
	client, server = net.Pipe()
	return client, server, nil
}

// links are a link's two ends over each kind of conn.
var carriers = map[string]func() (client, server net.Conn, err error){"pipe": overPipe, "tls": overTLS}

func TestChannelIsANetConn(t *testing.T) {
	for name, carrier := range carriers {
		for _, opener := range []string{"client", "server"} {
			t.Run(name+"/"+opener, func(t *testing.T) {
				nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
					a, b, err := carrier()
					if err != nil {
						return nil, nil, nil, err
					}
					client, server := multiplex.Client(a, multiplex.Config{}), multiplex.Server(b, multiplex.Config{})
					from, to := client, server
					if opener == "server" {
						from, to = server, client
					}
					c1, c2, err = open(from, to, "chat://bob")
					return c1, c2, func() {
						_ = client.Close()
						_ = server.Close()
					}, err
				})
			})
		}
	}
}

// A link over a real transport closes at once: nobody waits for a time-out.
func TestCloseOverRealTransportIsPrompt(t *testing.T) {
	for name, carrier := range carriers {
		for _, version := range []int{1, 2} {
			a, b, err := carrier()
			if err != nil {
				t.Fatal(err)
			}
			cfg := multiplex.Config{Version: version, CloseTimeout: time.Minute}
			client, server := multiplex.Client(a, cfg), multiplex.Server(b, cfg)
			c, s, err := open(client, server, "x")
			if err != nil {
				t.Fatal(err)
			}
			got := make(chan int)
			go func() {
				n := 0
				buf := make([]byte, 1<<20)
				for {
					k, err := s.Read(buf)
					if n += k; err != nil {
						got <- n
						return
					}
				}
			}()
			if _, err := c.Write(make([]byte, 3<<20)); err != nil {
				t.Error(err)
			}
			_ = c.Close()
			start := time.Now()
			_ = client.Close()
			if n := <-got; n != 3<<20 {
				t.Errorf("%s, version %d: %d bytes arrived", name, version, n)
			}
			if d := time.Since(start); d > 30*time.Second {
				t.Errorf("%s, version %d: closed after %v", name, version, d)
			}
			_ = server.Close()
		}
	}
}
