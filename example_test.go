package peerlink_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"peerlink"
	"peerlink/identity"
)

// Two managers in one process, over a stream that somebody else made: in
// earnest the streams come from Dialers and Listeners (see package account).
func ExampleConnectionManager_AddConn() {
	ctx := context.Background()
	manager := func(name string) (*peerlink.ConnectionManager, *identity.Identity) {
		id, err := identity.Generate(name)
		if err != nil {
			log.Fatal(err)
		}
		m, err := peerlink.New(peerlink.Config{Identity: id})
		if err != nil {
			log.Fatal(err)
		}
		return m, id
	}
	alice, aliceID := manager("alice")
	bob, bobID := manager("bob")
	defer alice.Close()
	defer bob.Close()

	a, b := net.Pipe()
	go func() { _, _ = bob.AddConn(ctx, b, aliceID.Peer(), peerlink.Inbound) }()
	if _, err := alice.AddConn(ctx, a, bobID.Peer(), peerlink.Outbound); err != nil {
		log.Fatal(err)
	}

	chats, err := bob.Listen("chat://*")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		c, err := chats.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		from, _ := peerlink.PeerOf(c)
		_, _ = fmt.Fprintf(c, "hello %s", from.Name)
	}()
	c, err := alice.ConnectDevice(ctx, bobID.DeviceID(), "chat://bob", peerlink.ConnectOptions{})
	if err != nil {
		log.Fatal(err)
	}
	var greeting [11]byte
	n, err := c.Read(greeting[:])
	fmt.Printf("%s, %v\n", greeting[:n], err)
	// Output: hello alice, <nil>
}
