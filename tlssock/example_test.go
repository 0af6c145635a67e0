package tlssock_test

import (
	"context"
	"fmt"
	"io"
	"log"

	"peerlink/identity"
	"peerlink/tlssock"
)

func Example() {
	alice, err := identity.Generate("alice")
	if err != nil {
		log.Fatal(err)
	}
	bob, err := identity.Generate("bob")
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	l, err := tlssock.Listen(ctx, tlssock.Config{Identity: bob}, "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, peer, err := l.Accept(ctx)
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "hello %s", peer.Name)
	}()

	d := &tlssock.Dialer{Config: tlssock.Config{Identity: alice}}
	conn, peer, err := d.DialAddr(ctx, l.Addrs()[0].String(), bob.DeviceID())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	greeting, err := io.ReadAll(conn)
	fmt.Printf("%s says %q, %v\n", peer.Name, greeting, err)
	// Output: bob says "hello alice", <nil>
}
