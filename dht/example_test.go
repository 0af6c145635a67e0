package dht_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"peerlink/dht"
	"peerlink/identity"
)

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// A bootstrap node, which would run elsewhere.
	node, err := dht.Start(ctx, dht.Config{Mode: dht.Server, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()

	device := func(name string) (*dht.Node, identity.DeviceID) {
		id, err := identity.Generate(name)
		if err != nil {
			log.Fatal(err)
		}
		n, err := dht.Start(ctx, dht.Config{Identity: id, Bootstrap: node.Addrs()})
		if err != nil {
			log.Fatal(err)
		}
		if err := n.Ready(ctx); err != nil {
			log.Fatal(err)
		}
		return n, id.DeviceID()
	}
	alice, _ := device("alice's laptop")
	defer alice.Close()
	bob, bobID := device("bob's phone")
	defer bob.Close()

	if err := alice.Send(ctx, bobID, []byte("an offer")); err != nil {
		log.Fatal(err)
	}
	from, msg, err := bob.Receive(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s sent %q\n", from.Name, msg)
	// Output: alice's laptop sent "an offer"
}
