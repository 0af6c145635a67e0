package multiplex_test

import (
	"context"
	"net"
	"testing"

	"golang.org/x/net/nettest"

	"peerlink/channel"
	"peerlink/multiplex"
)

// linkOver runs both sides of a link over the two ends of a connection.
func linkOver(t testing.TB, a, b net.Conn, cfg multiplex.Config) (client, server *multiplex.Socket) {
	t.Helper()
	client, server = multiplex.Client(a, cfg), multiplex.Server(b, cfg)
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	return client, server
}

// link runs both sides over net.Pipe.
func link(t testing.TB, cfg multiplex.Config) (client, server *multiplex.Socket) {
	t.Helper()
	a, b := net.Pipe()
	return linkOver(t, a, b, cfg)
}

// open opens one channel and returns both ends.
func open(t testing.TB, from, to *multiplex.Socket, name string) (opener, acceptor *channel.Socket) {
	t.Helper()
	type result struct {
		s   *channel.Socket
		err error
	}
	c := make(chan result, 1)
	go func() {
		r, err := to.Accept(context.Background())
		if err != nil {
			c <- result{nil, err}
			return
		}
		s, err := r.Accept()
		c <- result{s, err}
	}()
	opener, err := from.Open(context.Background(), name)
	if err != nil {
		t.Fatalf("open %q: %v", name, err)
	}
	r := <-c
	if r.err != nil {
		t.Fatalf("accept %q: %v", name, r.err)
	}
	return opener, r.s
}

func TestChannelIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		a, b := net.Pipe()
		client, server := multiplex.Client(a, multiplex.Config{}), multiplex.Server(b, multiplex.Config{})
		c1, c2 = open(t, client, server, "chat://bob")
		return c1, c2, func() {
			_ = client.Close()
			_ = server.Close()
		}, nil
	})
}
