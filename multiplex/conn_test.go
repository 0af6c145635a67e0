package multiplex_test

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"peerlink/channel"
	"peerlink/identity"
	"peerlink/multiplex"
	"peerlink/tlssock"
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

// device makes an identity that this test alone knows.
var device = sync.OnceValue(func() *identity.Identity {
	id, err := identity.Generate("test")
	if err != nil {
		panic(err)
	}
	return id
})

// overTLS returns the two ends of a mutual TLS connection over loopback TCP.
func overTLS() (client, server net.Conn, err error) {
	a, b, err := overTCP()
	if err != nil {
		return nil, nil, err
	}
	type result struct {
		conn net.Conn
		err  error
	}
	served := make(chan result, 1)
	go func() {
		conn, err := tlssock.Server(context.Background(), b, device(), nil)
		served <- result{conn, err}
	}()
	if client, err = tlssock.Client(context.Background(), a, device(), device().DeviceID()); err != nil {
		return nil, nil, err
	}
	r := <-served
	return client, r.conn, r.err
}

func overTCP() (client, server net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	server, err = l.Accept()
	return client, server, err
}

// overCryptoTLS is the yardstick: the same, but by crypto/tls alone.
func overCryptoTLS() (client, server net.Conn, err error) {
	a, b, err := overTCP()
	if err != nil {
		return nil, nil, err
	}
	cfg := tlssock.Config{Identity: device()}
	c, s := tls.Client(a, cfg.ClientTLS(device().DeviceID())), tls.Server(b, cfg.ServerTLS())
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
