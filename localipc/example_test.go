package localipc_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"peerlink/identity"
	"peerlink/localipc"
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
	dir, err := os.MkdirTemp("", "run") // the default is the user's runtime folder
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	ctx := context.Background()
	l, err := localipc.Listen(ctx, localipc.Config{Identity: bob, Dir: dir})
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

	d := &localipc.Dialer{Config: localipc.Config{Identity: alice, Dir: dir}}
	conn, peer, err := d.Dial(ctx, bob.DeviceID())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	greeting, err := io.ReadAll(conn)
	fmt.Printf("%s says %q, %v\n", peer.Name, greeting, err)
	// Output: bob says "hello alice", <nil>
}
